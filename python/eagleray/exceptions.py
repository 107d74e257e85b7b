"""What can go wrong. All classes have one root, `EaglerayError`."""

from __future__ import annotations

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "EaglerayError",
    "GetTimeoutError",
    "InfeasibleResourceError",
    "LocalRayletDiedError",
    "MissingKeyError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReadOnlyInputError",
    "ReferenceCountingAssertionError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskError",
    "TaskUnschedulableError",
    "WorkerCrashedError",
    "WorkerImportError",
]


class EaglerayError(Exception):
    """Root of eagleray's own exceptions."""


class TaskError(EaglerayError):
    """A remote call raised an exception, or a task of a graph raised one that could not be brought here.

    What a remote function or a method of an actor raised is `cause`. What is raised here is of a class derived from this
    one and from that of the cause, so that `except` finds it by either, and its `str` has the traceback in the worker. It
    has the attributes of the cause.

    What a task of a graph raised is raised as itself. If it cannot be pickled there is no `cause`: what is known of it is
    kept as text, and `except` still finds it by its class if that is known here.
    """

    cause: BaseException | None = None
    """What was raised; None if it could not be brought here."""
    where: str = ""
    """Which call failed and in which process; empty for a task of a graph."""

    def __init__(self, type_name: str, text: str, remote_traceback: str = "") -> None:
        # Not `super()`: a derived class has the constructor of somebody's exception behind this one.
        Exception.__init__(self, type_name, text, remote_traceback)
        self.type_name = type_name
        """The qualified name of the exception's class."""
        self.text = text
        """What `str` of the exception gave."""
        self.remote_traceback = remote_traceback
        """The traceback as the worker formatted it."""

    def as_instanceof_cause(self) -> TaskError:
        """Itself, which is of the class of its cause already. For code that was written for Ray."""
        return self

    def __str__(self) -> str:
        if self.where:
            return f"{self.where} Traceback there:\n{self.remote_traceback.rstrip()}"
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class ActorError(EaglerayError):
    """An actor cannot be called."""


class ActorDiedError(ActorError):
    """The actor is dead and will not come back, or could not be made."""


class ActorUnavailableError(ActorError):
    """The actor died while it ran the call. It is restarted, but the call is not made again."""


class ActorAlreadyExistsError(EaglerayError, ValueError):
    """There is an actor of this name in the namespace."""


class PendingCallsLimitExceeded(EaglerayError):  # noqa: N818 - the name is Ray's
    """More calls of an actor wait for their results than `max_pending_calls` allows."""


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


class OwnerDiedError(ObjectLostError):
    """The process that had made the object is gone, and the object with it."""


class ObjectFreedError(ObjectLostError):
    """The object was freed while somebody still had a ref to it."""


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


class RuntimeEnvSetupError(EaglerayError):
    """What surrounds a task, such as its working directory, cannot be had in a worker."""


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


class WorkerImportError(EaglerayError, ImportError):
    """A worker could not import a module that a task needs, or did not find in it what the driver has there."""

    def __init__(self, module: str, reason: str, search_path: list[str], key: object = None) -> None:
        super().__init__(module, reason, search_path, key)
        self.module = module
        """The module's name."""
        self.reason = reason
        """What the worker's import said."""
        self.search_path = search_path
        """The worker's `sys.path`."""
        self.key = key
        """The key of the task, once it is known."""

    def __str__(self) -> str:
        task = "The task" if self.key is None else f"Task {self.key!r}"
        where = ", ".join(map(repr, self.search_path))
        return (
            f"{task} cannot be loaded in a worker, because of module {self.module!r} ({self.reason}). Workers look in "
            f"{where}. Install the module, or have its directory in sys.path."
        )


# Ray's names.

RayError = EaglerayError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = WorkerCrashedError
TaskUnschedulableError = InfeasibleResourceError
ActorUnschedulableError = InfeasibleResourceError
ObjectReconstructionFailedError = ObjectLostError
ObjectFetchTimedOutError = ObjectLostError
ReferenceCountingAssertionError = ObjectLostError
NodeDiedError = WorkerCrashedError
LocalRayletDiedError = WorkerCrashedError
OutOfDiskError = ObjectStoreFullError
