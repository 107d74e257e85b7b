"""Random Dask graphs for tests: everything that Dask lets a graph be, and what it must give.

A graph is drawn once and built twice, for eagleray and for Dask's own scheduler. They differ only where an `ObjectRef`
stands: the other graph has its value there.
"""

import functools
import hashlib
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef, Tuple, fuse_linear_task_spec
from dask.optimization import fuse
from dask.utils import apply
from hypothesis import strategies as st

from eagleray._dask_versions import LEGACY_DATAFRAMES

MOST_TASKS = 10


def exact(value: Any) -> Any:
    """A description that is equal for equal values of equal types, and for no others."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, np.ndarray):
        return (name, value.dtype.str, value.shape, hashlib.sha1(np.ascontiguousarray(value).tobytes()).hexdigest())
    if isinstance(value, list | tuple):
        return (name, *map(exact, value))
    if isinstance(value, set | frozenset):
        return (name, *sorted(map(repr, map(exact, value))))
    if isinstance(value, dict):
        return (name, *((exact(key), exact(item)) for key, item in value.items()))
    # A function's repr has its address. Dask leaves some calls as they are, such as those in a dict in a list.
    return (name, getattr(value, "__qualname__", None) or repr(value))


def pack(*args: Any, **kwargs: Any) -> Any:
    """All that it was called with, as a value; what is large as its digest."""
    description = repr((exact(args), exact(kwargs)))
    if len(description) < 400:
        return [list(args), kwargs]
    return hashlib.sha1(description.encode()).hexdigest()


def array(length: int, *seeds: Any) -> np.ndarray:
    """An array whose bytes depend on the arguments."""
    seed = int(hashlib.sha1(repr(exact(seeds)).encode()).hexdigest()[:6], 16)
    return np.arange(length, dtype="f8") * (seed % 1000) + 1


def summary(value: Any) -> Any:
    return float(value.sum()) if isinstance(value, np.ndarray) else repr(exact(value))[:40]


def several(count: int, *args: Any) -> tuple[Any, ...]:
    """A function with several results: its consumers take one each."""
    return tuple((place, pack(*args)) for place in range(count))


class Adder:
    """A callable with state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any) -> Any:
        return pack(self.state, *args)


LITERALS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(2, 90),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.25 if x == int(x) and abs(x) < 1e6 else x),
    st.text("xyz äß", max_size=4).map(lambda text: f"text {text}"),
    st.binary(max_size=4).map(lambda data: b"bytes " + data),
    st.frozensets(st.integers(2, 90), max_size=3),
    st.sampled_from([np.float32(1.5), np.int64(7), 2 + 3j, range(4), slice(1, 5), int, Ellipsis]),
    st.integers(0, 3).map(lambda n: np.arange(n, dtype="i4")),
    st.just(30_000).map(np.ones),
    st.just(1).map(lambda _: np.array(5.0)),
    st.integers(2, 4).map(lambda n: np.arange(n * n).reshape(n, n).T),
)
"""Values that are not keys and hold none."""

KEY_FORMS: list[Callable[[int], Any]] = [
    lambda n: f"key-{n}",
    lambda n: ("part", n),
    lambda n: ("part", n, 0),
    lambda n: (f"name-{n}", n, ("inner", n)),
    lambda n: 1000 + n,
    lambda n: 5000.5 + n,
    *([] if LEGACY_DATAFRAMES else [lambda n: b"key %d" % n]),  # which takes them for keys in some places only
]


@dataclass
class Drawn:
    """A graph in both forms, what is asked of it, and which of its keys are no literals."""

    keys: list[Any] = field(default_factory=list)
    graph: dict[Any, Any] = field(default_factory=dict)
    oracle: dict[Any, Any] = field(default_factory=dict)
    computed: set[Any] = field(default_factory=set)
    """Keys of tasks, and of aliases of them."""
    refs: set[Any] = field(default_factory=set)
    """Keys whose value is a ref, and their aliases."""
    tuples: set[Any] = field(default_factory=set)
    """Keys of tasks with several results."""
    request: Any = None


def two(build: Callable[[Callable[[Any], Any]], Any], put: Callable[[Any], Any]) -> tuple[Any, Any]:
    return build(put), build(lambda value: value)


@st.composite
def arguments(draw: st.DrawFn, keys: list[Any], new: bool, depth: int = 2) -> Callable[[Callable[[Any], Any]], Any]:
    """An argument of a task, as a function that builds it: it is told what stands for a ref."""
    kinds = ["literal", "ref"] + ["key", "key", "key"] * bool(keys)
    if depth:
        kinds += ["list", "dict", "task"] + ["tuple"] * new
    kind = draw(st.sampled_from(kinds))
    if kind == "literal":
        value = draw(LITERALS)
        return lambda put: value
    if kind == "ref":
        value = draw(LITERALS)
        return lambda put: put(value)
    if kind == "key":
        key = draw(st.sampled_from(keys))
        return (lambda put: TaskRef(key)) if new else (lambda put: key)
    parts = draw(st.lists(arguments(keys, new, depth - 1), max_size=3))
    if kind == "list":
        return (
            (lambda put: List(*[part(put) for part in parts])) if new else (lambda put: [part(put) for part in parts])
        )
    if kind == "tuple":
        return lambda put: Tuple(*[part(put) for part in parts])
    if kind == "dict":
        names = [f"name {place}" for place in range(len(parts))]
        if new:
            return lambda put: Dict({name: part(put) for name, part in zip(names, parts, strict=True)})
        return lambda put: {name: part(put) for name, part in zip(names, parts, strict=True)}
    if new:
        return lambda put: Task(None, pack, *[part(put) for part in parts])
    return lambda put: (pack, *[part(put) for part in parts])


def functions(state: Any) -> list[tuple[Any, bool]]:
    """What tasks call, and whether it takes named arguments."""
    return [
        (pack, True),
        (functools.partial(pack, state), True),
        (Adder(state), False),
        (lambda *args, **kwargs: pack(state, *args, **kwargs), True),
        (functools.partial(array, 10), False),
        (functools.partial(array, 20_000), False),
        (functools.partial(several, 3), False),
    ]


@st.composite
def graphs(draw: st.DrawFn, put: Callable[[Any], Any]) -> Drawn:
    """A graph of at most so many keys. Each reads only keys before it."""
    drawn = Drawn()
    count = draw(st.integers(1, MOST_TASKS))
    for place in range(count):
        key = draw(st.sampled_from(KEY_FORMS))(place)
        known = list(drawn.keys)
        kinds = ["legacy", "legacy", "new", "new", "literal", "ref", "many"]
        kinds += ["alias", "old alias", "list", "getitem"] * bool(known)
        kind = draw(st.sampled_from(kinds))
        if kind == "getitem" and not drawn.tuples:
            kind = "many"
        target = draw(st.sampled_from(known)) if known else None
        ours, theirs = draw(_values(kind, key, target, known, drawn.tuples, put))
        drawn.graph[key], drawn.oracle[key] = ours, theirs
        drawn.keys.append(key)
        if kind == "old alias" and isinstance(target, bytes):
            pass  # Dask takes no bytes for a key there: a literal
        elif kind in ("alias", "old alias"):
            for group in (drawn.computed, drawn.refs, drawn.tuples):
                if target in group:
                    group.add(key)
        elif kind == "ref":
            drawn.refs.add(key)
        elif kind != "literal":
            drawn.computed.add(key)
            if kind == "many":
                drawn.tuples.add(key)
    drawn.request = draw(
        st.one_of(
            st.sampled_from(drawn.keys),
            st.recursive(
                st.lists(st.sampled_from(drawn.keys), max_size=4),
                lambda inner: st.lists(inner | st.sampled_from(drawn.keys), max_size=3),
                max_leaves=6,
            ),
        )
    )
    _fuse(draw(st.sampled_from(["", "", "", "linear", "legacy"])), drawn)
    return drawn


@st.composite
def _values(
    draw: st.DrawFn, kind: str, key: Any, target: Any, known: list[Any], tuples: set[Any], put: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """What stands in the graph under a key, in both forms."""
    if kind in ("literal", "ref"):
        value = draw(LITERALS)
        wrapped = draw(st.booleans())

        def literal(put: Callable[[Any], Any]) -> Any:
            found = put(value) if kind == "ref" else value
            return DataNode(key, found) if wrapped else found

        return two(literal, put)
    if kind == "alias":
        return two(lambda put: Alias(key, target), put)
    if kind == "old alias":
        return target, target
    if kind == "getitem":
        source, place, new = (
            draw(st.sampled_from(sorted(tuples, key=repr))),
            draw(st.integers(0, 2)),
            draw(st.booleans()),
        )
        if new:
            return two(lambda put: Task(key, operator.getitem, TaskRef(source), place), put)
        return two(lambda put: (operator.getitem, source, place), put)
    new = kind == "new" or (kind == "many" and draw(st.booleans()))
    args = draw(st.lists(arguments(known, new), max_size=4))
    if kind == "list":
        args = draw(st.lists(arguments(known, False), min_size=1, max_size=3))
        # With a key in it that Dask takes for one: otherwise it would be a literal.
        names = [name for name in known if not isinstance(name, bytes)]
        if not names:
            return two(lambda put: (list, [arg(put) for arg in args]), put)
        named = draw(st.sampled_from(names))
        return two(lambda put: [named, *[arg(put) for arg in args]], put)
    if kind == "many":
        function, names = functools.partial(several, 3), False
    else:
        function, names = draw(st.sampled_from(functions(draw(st.integers(2, 90)))))
    kwargs = draw(st.dictionaries(st.sampled_from("abc"), arguments(known, new), max_size=2)) if names else {}
    if new:
        return two(
            lambda put: Task(key, function, *[a(put) for a in args], **{name: a(put) for name, a in kwargs.items()}),
            put,
        )
    if kwargs:
        return two(
            lambda put: (apply, function, [a(put) for a in args], {name: a(put) for name, a in kwargs.items()}), put
        )
    return two(lambda put: (function, *[a(put) for a in args]), put)


def _fuse(how: str, drawn: Drawn) -> None:
    """Fuses chains as Dask does before it hands a graph over. Keys that went away are asked for no more."""
    flat = set(_flat(drawn.request))
    if how == "linear":
        # Dask fuses when it has resolved the aliases.
        if any(not isinstance(node, Task | DataNode) for node in drawn.graph.values()):
            return
        drawn.graph, drawn.oracle = (dict(fuse_linear_task_spec(graph, flat)) for graph in (drawn.graph, drawn.oracle))
    elif how == "legacy":
        # Here, other than elsewhere, Dask takes `bytes` for keys.
        if any(
            isinstance(node, Task | Alias | DataNode) or isinstance(key, bytes) for key, node in drawn.graph.items()
        ):
            return
        drawn.graph, drawn.oracle = (
            fuse(graph, keys=list(flat), ave_width=2, rename_keys=False)[0] for graph in (drawn.graph, drawn.oracle)
        )
    drawn.keys = [key for key in drawn.keys if key in drawn.graph]
    drawn.computed &= set(drawn.keys)


def _flat(request: Any) -> Any:
    if isinstance(request, list):
        for part in request:
            yield from _flat(part)
    else:
        yield request


def shaped(values: Any, request: Any, task: Callable[[Any], bool]) -> Any:
    """What Dask gives (tuples throughout), in the containers of Dask-on-Ray."""
    if isinstance(request, list) and all(not isinstance(key, list) and task(key) for key in request):
        return list(values)
    return values
