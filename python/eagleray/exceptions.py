"""What can go wrong. All classes have one root, `EaglerayError`."""

from __future__ import annotations

__all__ = [
    "EaglerayError",
    "GetTimeoutError",
    "InfeasibleResourceError",
    "MissingKeyError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OutOfMemoryError",
    "ReadOnlyInputError",
    "TaskCancelledError",
    "TaskError",
    "WorkerCrashedError",
]


class EaglerayError(Exception):
    """Root of eagleray's own exceptions."""


class TaskError(EaglerayError):
    """A task raised an exception that could not be brought here. What is known of it is kept as text.

    An exception that can be pickled is raised as itself, not as a `TaskError`. Of one that cannot, a class derived from
    this one and from its own is raised if its class is known here, so that `except` finds it by either.
    """

    def __init__(self, type_name: str, text: str, remote_traceback: str = "") -> None:
        # Not `super()`: a derived class has the constructor of somebody's exception behind this one.
        Exception.__init__(self, type_name, text, remote_traceback)
        self.type_name = type_name
        """The qualified name of the exception's class."""
        self.text = text
        """What `str` of the exception gave."""
        self.remote_traceback = remote_traceback
        """The traceback as the worker formatted it."""

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class MissingKeyError(EaglerayError, KeyError):
    """A key that was asked for, or that a task needs, is not in the graph. `args` holds the key, as of any `KeyError`."""

    def __init__(self, key: object, text: str = "") -> None:
        super().__init__(key)
        self.text = text
        """What is wrong, in whole sentences."""

    def __str__(self) -> str:
        return self.text or super().__str__()


class WorkerCrashedError(EaglerayError):
    """A worker process ended under a task, more often than it may be retried; or no worker could be started."""


class ObjectLostError(EaglerayError):
    """The object was released, belongs to another session, or its only copy is gone and nothing can make it again."""


class GetTimeoutError(EaglerayError, TimeoutError):
    """The value was not there in time."""


class InfeasibleResourceError(EaglerayError, ValueError):
    """A task asks for more of a resource than it can ever get."""


class TaskCancelledError(EaglerayError):
    """The task was cancelled before it had a result."""


class OutOfMemoryError(EaglerayError):
    """A task was stopped because the machine ran out of memory."""


class ObjectStoreFullError(EaglerayError):
    """The object store has no room for an object and nothing in it can be freed."""


class ReadOnlyInputError(EaglerayError, ValueError):
    """A task wrote to an object that belongs to the driver. The write would have been lost."""

    def __init__(self, argument: str, storing: bool = False, key: object = None) -> None:
        super().__init__(argument, storing, key)
        self.argument = argument
        """What it wrote to: the argument and its type."""
        self.storing = storing
        """Whether it did so for `dask.array.store`."""
        self.key = key
        """The key of the task, once it is known."""

    def __str__(self) -> str:
        task = "The task" if self.key is None else f"Task {self.key!r}"
        wrote = f"{task} wrote to {self.argument}, which belongs to the driver. "
        if self.storing:
            return (
                f"{wrote}Workers are other processes and only have a copy of it, so dask.array.store() cannot fill it. "
                "Write `target[...] = x.compute()`, or store to files: zarr (to_zarr), HDF5 (a target that opens the "
                "file in __setitem__), NumPy files (to_npy_stack)."
            )
        return (
            f"{wrote}Tasks have a read-only view of it, because the write would be lost. Let the task work on a copy "
            "(`x = x.copy()`) and return it."
        )
