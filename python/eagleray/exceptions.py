"""What can go wrong. All classes have one root, `EaglerayError`."""

from __future__ import annotations

__all__ = [
    "EaglerayError",
    "GetTimeoutError",
    "InfeasibleResourceError",
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

    An exception that can be pickled is raised as itself, not as a `TaskError`.
    """

    def __init__(self, type_name: str, text: str, remote_traceback: str = "") -> None:
        super().__init__(type_name, text, remote_traceback)
        self.type_name = type_name
        """The qualified name of the exception's class."""
        self.text = text
        """What `str` of the exception gave."""
        self.remote_traceback = remote_traceback
        """The traceback as the worker formatted it."""

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


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
