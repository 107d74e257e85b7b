"""Where code runs, under Ray's names."""

from __future__ import annotations

from eagleray._runtime_context import RuntimeContext, get_runtime_context

__all__ = ["RuntimeContext", "get_runtime_context"]
