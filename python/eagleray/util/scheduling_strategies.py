"""Values of the option `scheduling_strategy`, beside "DEFAULT" and "SPREAD"."""

from __future__ import annotations

from eagleray._options import NodeAffinitySchedulingStrategy

__all__ = ["NodeAffinitySchedulingStrategy"]
