"""Runs a graph in this process, one task at a time, with all hooks: for a debugger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from eagleray import _engine, _failures
from eagleray._engine import ObjectRef, native
from eagleray.dask import graphs
from eagleray.dask.callbacks import Hook, Pair
from eagleray.dask.graphs import Key, Nodes


class LocalGraph:
    """A graph whose tasks run when they are admitted. Has the methods of `native.Graph` that `stepwise.Walk` uses."""

    def __init__(self, nodes: Nodes, keys: Any, hooks: Sequence[Pair]) -> None:
        self._nodes = nodes
        self._wanted = keys
        self._hooks = hooks
        self._values: dict[Key, Any] = {}
        self._next = 0
        inputs = self._needed()
        self.keys = [key for key in inputs if not graphs.is_literal(nodes, key)]
        number = {key: index for index, key in enumerate(self.keys)}
        positions = native.order(
            [[number[dep] for dep in inputs[key] if dep in number] for key in self.keys], self.keys
        )
        self._order = sorted(range(len(self.keys)), key=positions.__getitem__)
        self._uses = Counter(dep for key in self.keys for dep in inputs[key])
        self._uses.update(graphs.flat(keys))

    def _needed(self) -> dict[Key, frozenset[Key]]:
        """The inputs of each key that the wanted ones need."""
        inputs: dict[Key, frozenset[Key]] = {}
        stack = list(graphs.flat(self._wanted))
        while stack:
            key = stack.pop()
            if key in inputs:
                continue
            if key not in self._nodes:
                dependents = [other for other, needed in inputs.items() if key in needed]
                raise _failures.missing_key(key, dependents[:1], self._nodes)
            inputs[key] = self._nodes[key].dependencies
            stack.extend(inputs[key])
        return inputs

    def steps(self) -> int:
        return len(self._order)

    def at(self, position: int) -> int:
        return self._order[position]

    def admit(self, upto: int) -> None:
        while self._next < upto:
            key = self.keys[self._order[self._next]]
            self._next += 1
            if key not in self._values:
                self._values[key] = self._run(key)
            for dep in self._nodes[key].dependencies:
                self._uses[dep] -= 1
                if not self._uses[dep]:
                    self._values.pop(dep, None)

    def supply(self, index: int, value: object) -> None:
        self._values[self.keys[index]] = value

    def ref(self, index: int) -> ObjectRef:
        key = self.keys[index]
        if key not in self._values:
            self._values[key] = self._run(key)  # asked for just before it is admitted
        value = self._values[key]
        if not isinstance(value, ObjectRef):
            value = self._values[key] = _engine.put(value)
        return value

    def result(self) -> Any:
        return graphs.nest(self._wanted, self._value)

    def cancel(self) -> None:
        """Nothing runs between two calls."""

    def _value(self, key: Key) -> Any:
        node = self._nodes[key]
        value = self._values[key] if key in self._values else node()
        return _engine.get(value, copy=True) if isinstance(value, ObjectRef) else value

    def _run(self, key: Key) -> Any:
        node = self._nodes[key]
        inputs = {dep: self._value(dep) for dep in node.dependencies}
        made = [dep for dep in inputs if not graphs.is_literal(self._nodes, dep)]

        def repack(results: Sequence[Any]) -> tuple[dict[Key, Any]]:
            return ({**inputs, **dict(zip(made, results, strict=True))},)

        pretasks = [pretask for pretask, _ in self._hooks]
        posttasks = [posttask for _, posttask in self._hooks]
        try:
            return dask_task_wrapper(node, repack, key, pretasks, posttasks, *[inputs[dep] for dep in made])
        except BaseException as error:
            from eagleray import _errors

            _errors.add_local_note(error, key, list(enumerate(inputs.values())), node, list(inputs), ())
            raise


def dask_task_wrapper(
    task: Callable[[Any], Any],
    repack: Callable[[Sequence[Any]], tuple[Any]],
    key: Key,
    ray_pretask_cbs: Sequence[Hook | None] | None,
    ray_posttask_cbs: Sequence[Hook | None] | None,
    *args: Any,
) -> Any:
    """Calls a task between its hooks, as `ray_dask_get_sync` does.

    Workers run tasks natively, not through this function: putting another one in its place has no effect on them.

    Args:
        task: Called with the values of its dependencies, by key.
        repack: Makes those of `args`, in a tuple of one.
        key: The key of the task.
        ray_pretask_cbs: Called before, with `key` and `args`.
        ray_posttask_cbs: Called after, with `key`, the result, and what the pretask hook in the same place returned.
        *args: The values of the dependencies that are results of tasks.
    """
    states = [pretask(key, args) if pretask else None for pretask in ray_pretask_cbs or ()]
    (inputs,) = repack(args)
    result = task(inputs)
    for posttask, state in zip_longest(ray_posttask_cbs or (), states):
        if posttask:
            posttask(key, result, state)
    return result
