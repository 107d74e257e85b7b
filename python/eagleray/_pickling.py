"""How what plain pickle refuses crosses a process boundary."""

from __future__ import annotations

import pickle

from eagleray import _modules, _sharing

PROTOCOL = 5


def dump(value: object) -> bytes:
    """Pickles a value: plain pickle first, cloudpickle for what it refuses and for what names `__main__`.

    A worker has no `__main__` of the driver's, so plain pickle's reference to it could not be followed there.
    """
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:
        pass
    else:
        if b"__main__" not in data and not _modules.names_by_value(data):
            return data
    import cloudpickle

    by_value: bytes = cloudpickle.dumps(value, PROTOCOL)
    return by_value


def dump_function(function: object) -> bytes:
    """Pickles something that tasks call."""
    return dump(_sharing.sent(function))
