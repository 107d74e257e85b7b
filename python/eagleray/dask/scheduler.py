"""The schedulers: `ray_dask_get` on the worker pool, `ray_dask_get_sync` in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import dask
from dask.base import named_schedulers
from dask.callbacks import local_callbacks

from eagleray import _dask_versions, _engine, _modules, _output, _surroundings
from eagleray._engine import native
from eagleray.dask import graphs, optimizations
from eagleray.dask.annotations import key_scoped_remote_args, specs_of
from eagleray.dask.callbacks import local_ray_callbacks
from eagleray.dask.common import ray_get_unpack
from eagleray.dask.diagnostics import Diagnostics
from eagleray.dask.execution import Execution, Observer
from eagleray.dask.graphs import Key, Nodes
from eagleray.dask.guard import is_guard
from eagleray.dask.hooks import Hooks
from eagleray.dask.local import LocalGraph, dask_task_wrapper
from eagleray.dask.multiple_returns import MultipleReturnFunc, multiple_return_get
from eagleray.dask.options import TOP_LEVEL_RESOURCES_ERR_MSG, Options
from eagleray.dask.progress import Progress, render_progress_bar
from eagleray.dask.settings import Disabled, Enabled
from eagleray.dask.stepwise import Steps, Walk
from eagleray.exceptions import WorkerImportError

__all__ = [
    "TOP_LEVEL_RESOURCES_ERR_MSG",
    "MultipleReturnFunc",
    "dask_task_wrapper",
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "multiple_return_get",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_get_unpack",
    "render_progress_bar",
]


def ray_dask_get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Computes keys of a Dask graph on the worker pool. Starts one if there is none.

    Args:
        dsk: A mapping, a HighLevelGraph or a Dask expression.
        keys: A key, or a list of keys and of such lists.
        **kwargs: The options:
            `ray_callbacks`: a `RayDaskCallback` or `RayCallback`, or several, instead of those in force;
            `ray_remote_args`: what each task needs and how it fails; see `eagleray.dask.annotations`;
            `num_workers`: how many workers the pool gets if it is started now;
            `ray_persist`: return refs, at once, instead of values;
            `callbacks`: Dask's callbacks, instead of those in force;
            `cache`: a mapping of keys to values that are known already, also of keys that the graph lacks;
            `_ray_enable_progress_bar`: show a bar of the tasks that ran, and then a summary (not with `ray_persist`);
            `rerun_exceptions_locally`: if a task fails, run the graph again in this process, for a debugger;
            `pool`: a thread pool or an executor; accepted, without effect: no thread is needed to submit tasks;
            `chunksize`, `optimize_graph`, and what Dask's optimizations take (`fuse` and the like): accepted, without effect.

    Returns:
        The value of a single key. For a list of keys a list, or a tuple if a literal or a list is among them.

    Raises:
        KeyError: A key is not in the graph.
        TypeError: The graph is none, or an option or annotation is unknown or not of its type.
        ValueError: An option or annotation has a value that it cannot have.
        ImportError: A progress bar is wanted, and tqdm is not installed.
        Exception: What a task raised, with a note of its key and the traceback in the worker. The rest is cancelled.
    """
    options = Options.of("ray_dask_get", kwargs)
    _engine.ensure_started(options.num_workers)
    if not native.in_worker():
        _modules.refresh()
    surroundings = _surroundings.capture()
    with _hooks(options) as hooks:
        hooks.split()
        mapping = _mapping(dsk, options)
        specs = specs_of(dsk, mapping, options.ray_remote_args)
        said: dict[str, Any] = {"surroundings": surroundings, "annotations": specs}
        with _execution(hooks, options, mapping, keys) as execution:
            hooks.watched(execution.hooks())

            def submit(nodes: Nodes, wanted: Any) -> Steps:
                tasks, aliases = graphs.aliases_as_tasks(nodes)
                graph = native.submit(tasks, wanted, worker_hooks=hooks.pickled(aliases), stepwise=True, **said)
                execution.submitted(graph)
                return graph

            def attempt() -> Any:
                submitted: Submitted
                if hooks.per_task:
                    submitted = Walk(graphs.to_nodes(mapping), keys, hooks, submit)
                else:
                    graph = native.submit(mapping, keys, worker_hooks=hooks.pickled(), **said)
                    submitted = Whole(mapping, keys, graph)
                    execution.submitted(graph)
                return _conclude(submitted, keys, hooks, options, lambda: native.run_local(mapping, keys))

            try:
                result = attempt()
            except WorkerImportError as error:
                # Hooks in the driver have been told of this attempt, so there is no other.
                if not _modules.send_by_value(error) or hooks.per_task or hooks.postsubmit_all:
                    raise
                result = attempt()
        return _finish(result, hooks)


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Computes keys of a Dask graph in this process and thread, one task at a time: for a debugger.

    Takes and returns what `ray_dask_get` does. All hooks are called, those of workers too, here. Annotations and
    `ray_remote_args` are checked, and have no effect otherwise.
    """
    options = Options.of("ray_dask_get_sync", kwargs)
    with _hooks(options) as hooks:
        mapping = _mapping(dsk, options)
        specs_of(dsk, mapping, options.ray_remote_args)
        with _execution(hooks, options, mapping, keys, here=True) as execution:
            hooks.watched(execution.hooks())
            if not (hooks.per_task or hooks.worker or hooks.postsubmit_all or options.ray_persist):
                values = native.run_local(mapping, keys)
                result = graphs.shape(keys, values, lambda key: graphs.is_literal(mapping, key))
            else:

                def submit(nodes: Nodes, wanted: Any) -> Steps:
                    tasks, aliases = graphs.aliases_as_tasks(nodes)
                    graph = LocalGraph(tasks, wanted, hooks.for_workers(aliases))
                    execution.submitted(graph)
                    return graph

                result = _conclude(Walk(graphs.to_nodes(mapping), keys, hooks, submit), keys, hooks, options)
        return _finish(result, hooks)


def _execution(
    hooks: Hooks, options: Options, mapping: Mapping[Key, Any], keys: Any, *, here: bool = False
) -> Execution:
    """Those who watch the tasks of a compute. What is persisted runs on when nobody waits for it, and is not watched."""
    observers: list[Observer] = []
    if not options.ray_persist:
        if hooks.diagnostics:
            observers.append(Diagnostics(hooks.diagnostics, graphs.flat(keys)))
        if options._ray_enable_progress_bar:
            observers.append(Progress())
    return Execution(observers, lambda: graphs.to_nodes(mapping), here=here) if observers else _UNWATCHED


_UNWATCHED = Execution((), dict)


@contextmanager
def _hooks(options: Options) -> Iterator[Hooks]:
    with local_ray_callbacks(options.hooks()) as callbacks, local_callbacks(options.dask_hooks()) as dask_callbacks:
        yield Hooks(callbacks, [callback for callback in dask_callbacks if not is_guard(callback)])


def _mapping(dsk: Any, options: Options) -> Mapping[Key, Any]:
    mapping = graphs.to_mapping(dsk)
    if not options.cache:
        return mapping
    known = {key: graphs.literal(key, value) for key, value in options.cache.items()}
    return {**mapping, **known}


class Submitted(Protocol):
    """A graph that has been submitted: in one piece (`Whole`) or step by step (`Walk`)."""

    @property
    def graph(self) -> Steps: ...
    def nodes(self) -> Nodes: ...
    def refs(self) -> Any: ...
    def is_literal(self, key: Key, /) -> bool: ...


class Whole:
    """A graph submitted in one call: nothing in the driver wants to hear of single tasks."""

    def __init__(self, mapping: Mapping[Key, Any], keys: Any, graph: native.Graph) -> None:
        self._mapping = mapping
        self._keys = keys
        self.graph = graph

    def nodes(self) -> Nodes:
        return graphs.to_nodes(self._mapping)

    def refs(self) -> Any:
        return graphs.tuples(self._keys, self.graph.refs())

    def is_literal(self, key: Key) -> bool:
        return graphs.is_literal(self._mapping, key)


def _conclude(
    submitted: Submitted, keys: Any, hooks: Hooks, options: Options, rerun: Callable[[], Any] | None = None
) -> Any:
    """From the submission to the result: the hooks after submission, the wait, the containers."""
    graph = submitted.graph
    try:
        refs = submitted.refs() if hooks.postsubmit_all or options.ray_persist else None
        for hook in hooks.postsubmit_all:
            hook(refs, submitted.nodes())
        if options.ray_persist:
            result = refs
        else:
            del refs  # held, the results would outlive their use
            result = graphs.shape(keys, _values(graph, options, rerun), submitted.is_literal)
    except BaseException:
        graph.cancel()
        raise
    return result


def _finish(result: Any, hooks: Hooks) -> Any:
    for hook in hooks.finish:
        hook(result)
    return result


def _values(graph: Steps, options: Options, rerun: Callable[[], Any] | None) -> Any:
    try:
        return graph.result()
    except Exception:
        wanted = options.rerun_exceptions_locally
        if wanted is None:
            wanted = dask.config.get("rerun_exceptions_locally", False)
        if wanted and rerun:
            rerun()
        raise
    finally:
        _output.drain()


def enable_dask_on_ray(shuffle: str | None = "tasks", use_shuffle_optimization: bool = True) -> Enabled:
    """Makes `ray_dask_get` Dask's default scheduler, until `disable_dask_on_ray()` or the end of a `with` block.

    Args:
        shuffle: Dask's `dataframe.shuffle.method` meanwhile: `"tasks"`, `"disk"` or None, which lets Dask choose.
        use_shuffle_optimization: Optimize dataframes by `dataframe_optimize`. Without effect on Dask 2025.1 or newer,
            which optimizes them itself.

    Raises:
        ValueError: `shuffle` is something else.
    """
    optimize = None
    if use_shuffle_optimization and _dask_versions.LEGACY_DATAFRAMES:
        optimize = optimizations.dataframe_optimize
    return Enabled(ray_dask_get, shuffle, optimize)


def disable_dask_on_ray() -> Disabled:
    """Takes back `enable_dask_on_ray`: scheduler and shuffle are again what they were before the first of them.

    As a context manager, only until the `with` block ends.
    """
    return Disabled()


_build_key_scoped_ray_remote_args = key_scoped_remote_args

named_schedulers["eagleray"] = ray_dask_get
