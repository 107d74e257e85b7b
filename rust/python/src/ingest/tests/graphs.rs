//! Graphs written by hand.

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Options, check, check_with, failure, with_python};
use crate::ingest::{ResultShape, ingest};

#[test]
fn legacy() {
    check("dsk = {'a': 1, 'b': (inc, 'a'), 'c': (add, 'a', (mul, 'b', (inc, 2)))}; keys = ['c', ['a', 'b']]");
    check("dsk = {('x', i): (inc, i) for i in range(600)}; keys = [list(dsk)]");
    // An argument that equals a key is one, whatever its type.
    check(
        "dsk = {1: (inc, 5), 2: (pack, 1, 1.0, True, 'x', 'y', (1, 2), [1, {1}]), (1, 2): 7, 'x': (inc, 1)}; keys = 2",
    );
    check("dsk = {'a': (inc, 1), 'b': (pack, ['a', ('a', 'zz', [{'a'}])], frozenset(['a', 3]), 'a')}; keys = 'b'");
    check("dsk = {'a': (inc, 1), 'b': ['a', ('a', [1])], 'c': (pack, 'b', 'd'), 'd': [1, 2]}; keys = ['c', 'b', 'd']");
    check("dsk = {'a': [], 'b': (), 'c': (pack, (), [], {}, set(), ''), '': 4}; keys = ['a', 'b', 'c']");
    check("dsk = {'a': (list, (range, 3)), 'b': (sum, 'a')}; keys = ['a', 'b']");
    check("dsk = {b'a': 1, None: (inc, 2), 'c': (pack, b'a', None)}; keys = ['c', None]");
}

#[test]
fn legacy_containers_of_derived_types() {
    check(
        r"
from collections import namedtuple, OrderedDict
P = namedtuple('P', 'x y')
class L(list): pass
class T(tuple): pass
dsk = {'a': (inc, 1), 'b': (pack, P('a', [2]), L(['a']), T(['a', 3]), P(1, 2), L([1])), 'c': P(1, 'a')}
keys = ['b', 'c']
",
    );
}

#[test]
fn legacy_dicts_are_not_searched_for_keys() {
    check(
        "dsk = {'a': (inc, 1), 'b': (pack, {'a': 'a'}, [{'x': 'a'}], {'y': (inc, 1)}), 'c': {'z': 'a'}}; keys = ['b', 'c']",
    );
    check("dsk = {'a': (inc, 1), 'b': (pack, {'x': TaskRef('a'), 'y': Task(None, inc, TaskRef('a'))})}; keys = 'b'");
}

#[test]
fn nodes() {
    check(
        "dsk = {'a': DataNode('a', 1), 'b': Task('b', inc, TaskRef('a')), 'c': Alias('c', 'b')}; keys = ['a', 'b', 'c']",
    );
    check(
        r"
dsk = {
    'a': Task('a', inc, 1),
    'b': Task('b', pack, List(TaskRef('a'), 2, [TaskRef]), Tuple(1, Alias('a')), Set(TaskRef('a')),
              Dict({'k': TaskRef('a'), 'l': List(1)}), Task(None, inc, TaskRef('a')), DataNode(None, [1]),
              ['a', ('a',), {'a': 'a'}], x=TaskRef('a'), y=[1], z=None),
    'c': List(TaskRef('a'), 'a'),
    'd': Dict(), 'e': List(),
}
keys = ['b', 'c', 'd', 'e']
",
    );
    check(
        "dsk = {'a': (inc, 1), 'b': Task('b', add, TaskRef('a'), TaskRef('a')), 'c': (pack, Alias('b'), 'a')}; keys = ['c']",
    );
    check("dsk = {('a', 0): TaskRef('b'), 'b': (inc, 1), 'c': (pack, [TaskRef(('a', 0))])}; keys = ['c', ('a', 0)]");
}

#[test]
fn aliases_and_literals_are_no_tasks() {
    let code = "dsk = {'a': 1, 'b': 'a', 'c': Alias('c', 'b'), 'd': (add, 'c', 'e'), 'e': 'f', 'f': (inc, 4), 'unused': (inc, 'f')}
keys = ['d', 'c', 'e', 'f', 'd']";
    check_with(code, Options::default(), |_, graph| {
        assert_eq!(graph.keys.len(), 2);
        assert_eq!(graph.outputs.len(), 2);
        let ResultShape::List(parts) = &graph.result else { panic!("{:?}", graph.result) };
        assert!(matches!(parts[1], ResultShape::Literal(_)));
    });
}

#[test]
fn fused() {
    check(
        r"
a, b, c = Task('a', inc, TaskRef('x')), Task('b', add, TaskRef('a'), TaskRef('a')), Task('c', mul, TaskRef('b'), TaskRef('y'))
dsk = {'x': 1, 'y': (inc, 2), 'c': Task.fuse(a, b, c)}
keys = 'c'
",
    );
    // Inner aliases and values, an inner fused task, and an inner key that the graph has too.
    let code = r"
inner = Task.fuse(Task('p', inc, TaskRef('b')), Task('q', add, TaskRef('p'), TaskRef('x')), key='q')
parts = DataNode('a', 5), Alias('b', 'a'), inner, Task('r', pack, List(TaskRef('q'), TaskRef('b')), k=TaskRef('q'))
dsk = {'x': (inc, 10), 'b': (inc, 100), 'r': Task.fuse(*parts), 'z': (pack, 'b', 'r')}
keys = ['r', 'z']
";
    check_with(code, Options::default(), |_, graph| {
        let execute = graph.functions.iter().any(|function| format!("{function}").contains("_execute_subgraph"));
        assert!(!execute, "an inner graph was not compiled");
    });
}

#[test]
fn fused_task_evaluates_a_dependency_once() {
    check(
        r"
from dask._task_spec import _execute_subgraph
calls = []
def once(x):
    calls.append(x)
    return x + len(calls)
inner = {'s': Task('s', pack, TaskRef('i'), TaskRef('i'), TaskRef('j'))}
dsk = {'t': Task('t', _execute_subgraph, inner, 's', ('i', 'j'), Task(None, once, 1), [2])}
keys = 't'
expected = (2, 2, [2]), {}
",
    );
}

#[test]
fn fused_chain_may_be_long() {
    check(
        r"
chain = [Task(('x', 0), inc, TaskRef('start'))]
chain += [Task(('x', i), inc, TaskRef(('x', i - 1))) for i in range(1, 5000)]
dsk = {'start': (inc, 0), 'end': Task.fuse(*chain[::-1], key='end')}
keys = ['end']
expected = [5001]
",
    );
}

#[test]
fn unrecognised_inner_graph_is_called() {
    // `x` is neither an inner key nor an inkey, but not needed either; `u` is not a node.
    check(
        r"
from dask._task_spec import _execute_subgraph
inner = {'s': Task('s', inc, TaskRef('i')), 't': Task('t', inc, TaskRef('s'))}
class Inner(dict): pass
dsk = {
    'a': Task('a', _execute_subgraph, inner, 't', ['i'], (1)),
    'b': Task('b', _execute_subgraph, inner, 't', ('i',), TaskRef('a')),
    'c': Task('c', _execute_subgraph, DataNode(None, inner), 't', ('i',), TaskRef('b')),
    'd': Task('d', _execute_subgraph, inner, 'i', ('i',), TaskRef('c')),
}
keys = list(dsk)
",
    );
    with_python(
        r"
from dask._task_spec import _execute_subgraph
dsk = {'a': Task('a', _execute_subgraph, {'s': Task('s', inc, TaskRef('nowhere'))}, 's', ())}
keys = 'a'
",
        |py, scope| {
            let graph = super::ingest_scope(py, scope, Options::default()).unwrap();
            assert_eq!(graph.functions.len(), 1);
            assert!(super::interpreter::run(py, &graph, Options::default()).is_err());
        },
    );
}

#[test]
fn nodes_of_unknown_kind_are_called() {
    check(
        r"
class Odd(Task):
    def __call__(self, values=()):
        return 'odd', super().__call__(values)
dsk = {'a': (inc, 1), 'b': Odd('b', add, TaskRef('a'), 3), 'c': (pack, 'b', Odd(None, inc, TaskRef('a')))}
keys = ['c']
",
    );
}

#[test]
fn object_references() {
    let code = r"
r, s = Ref('r', 10), Ref('s', [1])
dsk = {
    'a': r, 'b': (add, r, 'a'), 'c': [r, 1], 'd': (pack, {'k': [r, {s.name: (s,)}]}, [0]),
    'e': Task('e', pack, [r, 2], {r}, x=Ref('r', 10), y=s), 'f': DataNode('f', Ref('r', 10)),
    'g': DataNode('g', {'k': (s, 's')}), 'h': Alias('h', 'a'), 'i': Task('i', pack, TaskRef('f'), TaskRef('g')),
    'j': Task.fuse(Task('j0', pack, [r]), Task('j', pack, TaskRef('j0'), [s, 1], TaskRef('h'))),
}
keys = [list(dsk), 'a']
expected = [[10, 20, [10, 1], (({'k': [10, {'s': ([1],)}]}, [0]), {}), (([10, 2], {10}), {'x': 10, 'y': [1]}), 10,
             {'k': ([1], 's')}, 10, ((10, {'k': ([1], 's')}), {}), (((([10],), {}), [[1], 1], 10), {})], 10]
";
    check_with(code, Options::default(), |_, graph| {
        assert_eq!(graph.externals.len(), 2, "equal references are one object");
        assert_eq!(graph.literals.len(), 0);
    });
}

#[test]
fn large_constants_are_objects() {
    let code = r"
import numpy as np
import pandas as pd
big, small, text = np.zeros(10_000), np.zeros(10), 'x' * 70_000
frame = pd.DataFrame({'a': np.arange(10_000)})
dsk = {'a': (pack, big, small), 'b': Task('b', pack, [big, 1], text, x=TaskRef('l')), 'l': frame, 'm': big}
keys = ['a', 'b', 'm']
";
    check_with(code, Options::default(), |_, graph| {
        assert_eq!(graph.literals.len(), 3);
        let constants: usize = graph.batches.iter().map(|batch| batch.constants.len()).sum();
        assert_eq!(constants, 2, "the small array and the 1");
    });
}

#[test]
fn equal_tasks_share_templates_and_classes() {
    let code = r"
dsk = {('x-1', i): (inc, i) for i in range(1000)}
dsk |= {('y-2', i): Task(('y-2', i), add, TaskRef(('x-1', i)), i) for i in range(1000)}
dsk |= {('z', i): Task(('z', i), pack, TaskRef(('y-2', i)), a=i, b='b') for i in range(1000)}
keys = [k for k in dsk if k[0] == 'z']
";
    let fingerprints = check_with(code, Options { keys_for_hooks: true, ..Options::default() }, |_, graph| {
        assert_eq!(graph.templates.len(), 3);
        let upto: Vec<u32> = graph.batches.iter().map(|batch| batch.upto).collect();
        assert_eq!(upto, [256, 768, 1792, 3000], "each batch is twice as long as the one before");
        graph.classes.iter().map(|class| class.fingerprint).collect::<Vec<_>>()
    });
    assert_eq!(fingerprints.len(), 3);
    // Other keys of the same prefix, functions of the same name: the same classes.
    let again = code.replace("-1'", "-7'").replace("-2'", "-99'");
    check_with(&again, Options::default(), |_, graph| {
        assert_eq!(graph.classes.iter().map(|class| class.fingerprint).collect::<Vec<_>>(), fingerprints);
    });
}

#[test]
fn many_functions_are_constants() {
    let code = "dsk = {('f', i): (lambda x, i=i: x + i, 'a') for i in range(3000)} | {'a': 1}; keys = list(dsk)";
    check_with(code, Options::default(), |_, graph| assert!(graph.templates.len() < 1100));
}

#[test]
fn any_mapping() {
    check(
        r"
from types import MappingProxyType
legacy = {'a': 1, 'b': (inc, 'a')}
dsk, keys, expected = MappingProxyType(legacy), 'b', 2
",
    );
    check("dsk, keys = {}, []");
}

#[test]
fn errors() {
    let missing =
        |key: &str, why: &str| ("MissingKeyError".to_owned(), format!("Key {key} is not in the graph, but {why}."));
    assert_eq!(failure("dsk, keys = {'a': 1}, [['a'], 'b']"), missing("'b'", "it was asked for"));
    assert_eq!(failure("dsk, keys = {'a': 1}, ('b', 1)"), missing("('b', 1)", "it was asked for"));
    let in_a_task = failure("dsk, keys = {'a': Task('a', inc, TaskRef(('b', 1)))}, 'a'");
    assert_eq!(in_a_task, missing("('b', 1)", "task 'a' needs it"));
    assert_eq!(failure("dsk, keys = {'a': Alias('a', 'b')}, 'a'"), missing("'b'", "task 'a' needs it"));
    assert!(failure("dsk, keys = {'a': 'a'}, 'a'").1.contains("an alias of itself"));
    let cycle = |text: &str| {
        ("RuntimeError".to_owned(), format!("Cycle detected in the graph, each key needs the next: {text}"))
    };
    assert_eq!(failure("dsk, keys = {'a': 'b', 'b': Alias('b', 'a')}, 'b'"), cycle("'b' -> 'a' -> 'b'"));
    assert_eq!(failure("dsk, keys = {'a': (inc, 'a')}, 'a'"), cycle("'a' -> 'a'"));
    let (kind, text) = failure("dsk, keys = {'a': (inc, ('b', 0)), ('b', 0): [1, 'c'], 'c': (inc, 'a')}, 'a'");
    assert_eq!(kind, "RuntimeError");
    assert!(
        ["'a' -> ('b', 0) -> 'c' -> 'a'", "'c' -> 'a' -> ('b', 0) -> 'c'", "('b', 0) -> 'c' -> 'a' -> ('b', 0)"]
            .iter()
            .any(|way| text.ends_with(way)),
        "{text}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    // Without optimisation the frames are many times larger than a thread of the test runner bears.
    std::thread::Builder::new().stack_size(32 << 20).spawn(refuse_deep_nesting).unwrap().join().unwrap();
}

fn refuse_deep_nesting() {
    for nest in ["(inc, x)", "[x]", "{'k': x}", "List(x)"] {
        for place in ["x", "(pack, x)", "Task('a', pack, x)"] {
            let code =
                format!("x = 'b'\nfor _ in range(20_000): x = {nest}\ndsk, keys = {{'a': {place}, 'b': 1}}, 'a'");
            // A dict of the graph itself is deep but holds no key, and a dropped deep value must not end the process.
            let (kind, text) = failure(&code);
            assert_eq!(kind, "RecursionError", "{code}: {text}");
        }
    }
}

#[test]
fn exceptions_of_keys_are_passed_on() {
    let (kind, text) = failure(
        r"
class Bad:
    def __hash__(self): return 1
    def __eq__(self, other): raise ZeroDivisionError('no')
dsk, keys = {Bad(): 1}, Bad()
",
    );
    assert_eq!((kind.as_str(), text.as_str()), ("ZeroDivisionError", "no"));
}

#[test]
fn unhashable_arguments_are_no_keys() {
    check("dsk = {('a', 1): 1, 'b': (pack, (1, [2]), ([('a', 1)],))}; keys = 'b'");
}

#[test]
fn a_type_of_references_that_is_not_used() {
    with_python("dsk, keys = {'a': (inc, 1)}, 'a'", |py, scope| {
        let get = |name: &str| scope.get_item(name).unwrap().unwrap();
        let graph = ingest(py, &get("dsk"), &get("keys"), &py.get_type::<PyType>(), Options::default()).unwrap();
        assert!(matches!(graph.result, ResultShape::Task(0)));
    });
}
