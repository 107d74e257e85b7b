"""The schedulers: `ray_dask_get` on the worker pool, `ray_dask_get_sync` in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import dask
from dask.base import named_schedulers
from dask.callbacks import local_callbacks

from eagleray import _engine, _output, _surroundings
from eagleray._engine import native
from eagleray.dask import graphs
from eagleray.dask.callbacks import local_ray_callbacks
from eagleray.dask.graphs import Key, Nodes
from eagleray.dask.hooks import Hooks
from eagleray.dask.local import LocalGraph
from eagleray.dask.options import Options
from eagleray.dask.stepwise import Steps, Walk

__all__ = ["disable_dask_on_ray", "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync"]


def ray_dask_get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Computes keys of a Dask graph on the worker pool. Starts one if there is none.

    Args:
        dsk: A mapping, a HighLevelGraph or a Dask expression.
        keys: A key, or a list of keys and of such lists.
        **kwargs: The options:
            `ray_callbacks`: a `RayDaskCallback` or `RayCallback`, or several, instead of those in force;
            `num_workers`: how many workers the pool gets if it is started now;
            `ray_persist`: return refs, at once, instead of values;
            `callbacks`: Dask's callbacks, instead of those in force;
            `cache`: a mapping of keys to values that are known already;
            `rerun_exceptions_locally`: if a task fails, run the graph again in this process, for a debugger;
            `pool`, `chunksize`, `optimize_graph`: accepted, without effect.

    Returns:
        The value of a single key. For a list of keys a list, or a tuple if a literal or a list is among them.

    Raises:
        KeyError: A key is not in the graph.
        TypeError: The graph is none, or an option is unknown.
        Exception: What a task raised, with a note of its key and the traceback in the worker. The rest is cancelled.
    """
    options = Options.of("ray_dask_get", kwargs)
    _engine.ensure_started(options.num_workers)
    surroundings = _surroundings.capture()
    with _hooks(options) as hooks:
        mapping = _mapping(dsk, options)
        submitted: Submitted
        if hooks.per_task:

            def submit(nodes: Nodes, wanted: Any) -> Steps:
                tasks, aliases = graphs.aliases_as_tasks(nodes)
                return native.submit(
                    tasks, wanted, worker_hooks=hooks.pickled(aliases), surroundings=surroundings, stepwise=True
                )

            submitted = Walk(graphs.to_nodes(mapping), keys, hooks, submit)
        else:
            graph = native.submit(mapping, keys, worker_hooks=hooks.pickled(), surroundings=surroundings)
            submitted = Whole(mapping, keys, graph)
        return _conclude(submitted, keys, hooks, options, lambda: native.run_local(mapping, keys))


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Computes keys of a Dask graph in this process and thread, one task at a time: for a debugger.

    Takes and returns what `ray_dask_get` does. All hooks are called, those of workers too, here.
    """
    options = Options.of("ray_dask_get_sync", kwargs)
    with _hooks(options) as hooks:
        mapping = _mapping(dsk, options)
        if not (hooks.per_task or hooks.worker or hooks.postsubmit_all or options.ray_persist):
            values = native.run_local(mapping, keys)
            return _finish(graphs.shape(keys, values, lambda key: graphs.is_literal(mapping, key)), hooks)

        def submit(nodes: Nodes, wanted: Any) -> Steps:
            tasks, aliases = graphs.aliases_as_tasks(nodes)
            return LocalGraph(tasks, wanted, hooks.for_workers(aliases))

        return _conclude(Walk(graphs.to_nodes(mapping), keys, hooks, submit), keys, hooks, options)


@contextmanager
def _hooks(options: Options) -> Iterator[Hooks]:
    with local_ray_callbacks(options.hooks()) as callbacks, local_callbacks(options.dask_hooks()) as dask_callbacks:
        yield Hooks(callbacks, dask_callbacks)


def _mapping(dsk: Any, options: Options) -> Mapping[Key, Any]:
    mapping = graphs.to_mapping(dsk)
    if not options.cache:
        return mapping
    known = {key: graphs.literal(key, value) for key, value in options.cache.items() if key in mapping}
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
    """From the submission to the result: the hooks that are left, the wait, the containers."""
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
    return _finish(result, hooks)


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


def enable_dask_on_ray(shuffle: str | None = "tasks", use_shuffle_optimization: bool = True) -> dask.config.set:
    """Makes `ray_dask_get` Dask's default scheduler, until `disable_dask_on_ray()` or the end of a `with` block.

    Args:
        shuffle: Dask's `dataframe.shuffle.method` meanwhile.
        use_shuffle_optimization: Without effect: Dask has no place for it any more.
    """
    return dask.config.set({"scheduler": ray_dask_get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> dask.config.set:
    """Takes back `enable_dask_on_ray`: Dask chooses scheduler and shuffle itself again."""
    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


named_schedulers["eagleray"] = ray_dask_get
