"""What surrounds tasks and actors, under Ray's names."""

from __future__ import annotations

from typing import Any

from eagleray import _runtime_env

__all__ = ["RuntimeEnv"]


class RuntimeEnv(dict[str, Any]):
    """A `runtime_env`, checked when it is made."""

    def __init__(self, **said: Any) -> None:
        """Takes `env_vars`, `working_dir` and `py_modules`; None stands for what is not said.

        Raises:
            TypeError, ValueError: An argument is unknown, or not what it should be.
        """
        given = {name: value for name, value in said.items() if value is not None}
        _runtime_env.checked(given, "RuntimeEnv()")
        super().__init__(given)
