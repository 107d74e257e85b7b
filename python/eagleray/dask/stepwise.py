"""Submits a graph task by task, because hooks of the driver want to be called for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from dask.local import finish_task

from eagleray import _dask_versions, _engine
from eagleray._engine import ObjectRef
from eagleray.dask import graphs
from eagleray.dask.graphs import Key, Nodes
from eagleray.dask.hooks import Hooks


class Steps(Protocol):
    """What is needed of a graph: of `native.Graph`, and of `local.LocalGraph` which runs in this process."""

    @property
    def keys(self) -> list[Key]: ...
    def steps(self) -> int: ...
    def at(self, position: int, /) -> int: ...
    def admit(self, upto: int, /) -> None: ...
    def supply(self, index: int, value: object, /) -> None: ...
    def ref(self, index: int, /) -> ObjectRef: ...
    def result(self) -> Any: ...
    def cancel(self) -> None: ...


class _Unknown:
    """Stands for what a task has yet to make."""


_UNKNOWN = _Unknown()


class Walk:
    """One graph on its way through the hooks.

    Aliases must be submitted as tasks: presubmit and Dask's hooks see them, and what presubmit returns for one reaches
    its consumers only.
    """

    def __init__(self, nodes: Nodes, keys: Any, hooks: Hooks, submit: Callable[[Nodes, Any], Steps]) -> None:
        self._nodes = nodes
        self._keys = keys
        self._hooks = hooks
        self._supplied: dict[Key, Any] = {}
        """What presubmit hooks returned."""
        self._index: dict[Key, int] = {}
        self._state: dict[str, Any] = {}
        """Dask's own, empty if nobody looks at it."""
        self.graph = self._start(submit)
        """All its tasks have been submitted."""

    def _start(self, submit: Callable[[Nodes, Any], Steps]) -> Steps:
        """Submits all tasks. Dask's `finish` hooks have been called when it returns or raises."""
        started: list[Callable[..., Any] | None] = []
        errored = True
        try:
            for start, *_, finish in self._hooks.dask:
                if start:
                    start(self._nodes)
                started.append(finish)
            graph = self._steps = submit(self._nodes, self._keys)
            try:
                self._run(graph)
            except BaseException:
                graph.cancel()
                raise
            errored = False
            return graph
        finally:
            for finish in started:
                if finish:
                    finish(self._nodes, self._state, errored)

    def nodes(self) -> Nodes:
        return self._nodes

    def refs(self) -> Any:
        """Refs and literals, nested as the keys."""
        return graphs.nest(self._keys, self._value)

    def is_literal(self, key: Key) -> bool:
        """Whether a key has a value without a task."""
        return not isinstance(self._known(key), _Unknown | ObjectRef)

    def _known(self, key: Key) -> Any:
        """What presubmit answered or the graph says for a key; `_UNKNOWN` for a task's result."""
        while key not in self._supplied and graphs.is_alias(self._nodes[key]):
            key = graphs.target(self._nodes[key])
        if key in self._supplied:
            return self._supplied[key]
        return self._nodes[key]() if graphs.is_literal(self._nodes, key) else _UNKNOWN

    def _value(self, key: Key) -> Any:
        """The value of a key, if it needs no task, else its ref."""
        known = self._known(key)
        # An alias has an object of its own: its target's goes with the last consumer.
        return self._steps.ref(self._index[key]) if known is _UNKNOWN else known

    def _run(self, graph: Steps) -> None:
        keys = graph.keys
        order = [graph.at(position) for position in range(graph.steps())]
        self._index = {key: index for index, key in enumerate(keys)}
        place = {keys[index]: position for position, index in enumerate(order)}
        dask = self._hooks.dask
        requested = set(graphs.flat(self._keys))
        if dask:
            self._state = _dask_versions.start_state(self._nodes, requested, lambda key: place.get(key, -1))
            for _, start_state, *_ in dask:
                if start_state:
                    start_state(self._nodes, self._state)
        for position, index in enumerate(order):
            key = keys[index]
            if dask:
                self._begin(key)
            self._step(position, index, key)
            if dask:
                self._end(key, requested, place)

    def _step(self, position: int, index: int, key: Key) -> None:
        """Submits one task, or supplies what stands for its result."""
        graph, hooks, node = self._steps, self._hooks, self._nodes[key]
        deps = {dep: self._value(dep) for dep in node.dependencies} if hooks.sees_deps else {}
        # All hooks run; the first that returns something decides.
        answers = [hook(node, key, deps) for hook in hooks.presubmit]
        answer = next((answer for answer in answers if answer is not None), None)
        if answer is not None:
            self._supplied[key] = answer
            graph.supply(index, _engine.get(answer) if isinstance(answer, ObjectRef) else answer)
            graph.admit(position + 1)
        elif hooks.postsubmit and not graphs.is_alias(node):
            # Held before it may run: a result that is known to be wanted is not dropped with its last consumer.
            ref = graph.ref(index)
            graph.admit(position + 1)
            for hook in hooks.postsubmit:
                hook(node, key, deps, ref)
        else:
            graph.admit(position + 1)

    def _begin(self, key: Key) -> None:
        ready = self._state["ready"]
        for at in range(len(ready) - 1, -1, -1):  # the next by our order is near the end of Dask's stack
            if ready[at] == key:
                del ready[at]
                break
        self._state["running"].add(key)
        for _, _, pretask, *_ in self._hooks.dask:
            if pretask:
                pretask(key, self._nodes, self._state)

    def _end(self, key: Key, requested: set[Key], place: dict[Key, int]) -> None:
        value = self._value(key)
        self._state["cache"][key] = value
        finish_task(self._nodes, key, self._state, requested, place.__getitem__)
        for _, _, _, posttask, _ in self._hooks.dask:
            if posttask:
                posttask(key, value, self._nodes, self._state, threading.get_ident())
