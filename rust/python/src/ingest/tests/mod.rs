//! Graphs are ingested, their templates interpreted, and the results compared with Dask's own.

mod collections;
mod graphs;
mod interpreter;

use std::ffi::CString;
use std::process::Command;
use std::sync::Once;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::{Ingested, Options, ingest};

const PRELUDE: &str = r#"
import sys, types

# The package without its `__init__`, which needs the extension module.
sys.modules.setdefault("eagleray", types.ModuleType("eagleray")).__path__ = [package_path]

import dask
from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple
from operator import add, mul, neg

def inc(x):
    return x + 1

def pack(*args, **kwargs):
    return args, kwargs

class Ref:
    "A stand-in for an object reference."
    def __init__(self, name, value):
        self.name, self.value = name, value
    def __eq__(self, other):
        return isinstance(other, Ref) and self.name == other.name
    def __hash__(self):
        return hash(self.name)

def resolved(value):
    if type(value) is Ref:
        return value.value
    if type(value) in (list, tuple, set):
        return type(value)(map(resolved, value))
    if type(value) is dict:
        return {resolved(k): resolved(v) for k, v in value.items()}
    return value

def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if hasattr(a, "equals"):
        return a.equals(b)
    if hasattr(a, "shape"):
        return a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
    return a == b

def captured(collection):
    "The graph and keys that Dask hands to a scheduler."
    found = []
    def get(dsk, keys, **kwargs):
        found[:] = dict(dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk), keys
        return dask.get(dsk, keys)
    dask.compute(collection, scheduler=get)
    return found
"#;

/// Runs `code` after the prelude, and gives its variables to `test`.
fn with_python<T>(code: &str, test: impl FnOnce(Python<'_>, &Bound<'_, PyDict>) -> T) -> T {
    static START: Once = Once::new();
    START.call_once(|| {
        Python::initialize();
        Python::attach(|py| {
            add_search_path(py);
            // Its modules import each other in circles, which two threads must not begin at once.
            py.import("dask.dataframe").unwrap();
        });
    });
    Python::attach(|py| {
        let scope = PyDict::new(py);
        scope.set_item("__name__", "ingest_test").unwrap();
        scope.set_item("package_path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/eagleray")).unwrap();
        for part in [PRELUDE, code] {
            py.run(&CString::new(part).unwrap(), Some(&scope), None)
                .unwrap_or_else(|error| panic!("{}", traceback(py, &error)));
        }
        test(py, &scope)
    })
}

/// The embedded interpreter knows nothing of the virtual environment that the build used.
fn add_search_path(py: Python<'_>) {
    let path = py.import("sys").unwrap().getattr("path").unwrap();
    if path.contains("").unwrap() {
        return;
    }
    let python = std::env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python).args(["-c", "import sys; print('\\n'.join(sys.path))"]).output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        path.call_method1("append", (line,)).unwrap();
    }
    path.call_method1("append", ("",)).unwrap();
}

fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let lines = py.import("traceback").unwrap().call_method1("format_exception", (error.value(py),)).unwrap();
    lines.extract::<Vec<String>>().unwrap().concat()
}

/// Ingests `dsk` for `keys`.
fn ingest_scope(py: Python<'_>, scope: &Bound<'_, PyDict>, options: Options) -> PyResult<Ingested> {
    let get = |name: &str| scope.get_item(name).unwrap().unwrap();
    ingest(py, &get("dsk"), &get("keys"), get("Ref").cast::<PyType>().unwrap(), options)
}

/// Ingests what `code` leaves as `dsk` and `keys`, interprets it, and compares the result with `expected`, which is by
/// default what Dask makes of the same. Then gives what was ingested to `test`.
fn check_with<T>(code: &str, options: Options, test: impl FnOnce(Python<'_>, &Ingested) -> T) -> T {
    with_python(code, |py, scope| {
        let ingested = ingest_scope(py, scope, options).unwrap_or_else(|error| panic!("{}", traceback(py, &error)));
        let result =
            interpreter::run(py, &ingested, options).unwrap_or_else(|error| panic!("{}", traceback(py, &error)));
        scope.set_item("result", &result).unwrap();
        let compare = c"
if 'expected' not in globals():
    expected = dask.get(dsk, keys)
# Dask gives nested tuples for nested lists of keys.
listed = lambda value, keys: list(map(listed, value, keys)) if isinstance(keys, list) else value
assert same(result, listed(expected, keys)), (repr(result)[:2000], repr(expected)[:2000])
";
        py.run(compare, Some(scope), None).unwrap_or_else(|error| panic!("{}", traceback(py, &error)));
        test(py, &ingested)
    })
}

fn check(code: &str) {
    check_with(code, Options::default(), |_, _| ());
}

/// Ingests what `code` leaves, which must fail. The exception's type and text.
fn failure(code: &str) -> (String, String) {
    with_python(code, |py, scope| {
        let error = ingest_scope(py, scope, Options::default()).err().expect("an exception");
        (error.get_type(py).name().unwrap().to_string(), error.value(py).to_string())
    })
}
