//! Tests of the executor, with surroundings that remember what they are told.

mod damaged;
mod failures;
mod inputs;
mod runs;
mod shapes;
mod values;

use std::cell::{Cell, RefCell};
use std::env;
use std::ffi::CString;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{Run, Trouble};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use super::library::lock;
use super::{Executor, RunIo};
use crate::template::{self, CALL, CONST, FUNC, INPUT, LOCAL, NO_BATCH, NO_KEY};
use crate::value::{self, Encoded, Payload};

const GRAPH: GraphId = GraphId { peer: PeerId(0), seq: 1 };

/// How many tasks each graph is said to have: input numbers from here on are externals.
const TASKS: u32 = 1000;

/// Externals from here on are objects that the user's program put; those before are results of another graph.
const PUTS: u32 = 50;

fn external(k: u32) -> Option<ObjectId> {
    let graph = if k < PUTS { GraphId { peer: PeerId::USER, seq: 9 } } else { GraphId::puts(PeerId::USER) };
    (k < 2 * PUTS).then_some(ObjectId { graph, index: k })
}

fn object(index: u32) -> ObjectId {
    ObjectId { graph: GRAPH, index }
}

/// What tests call and inspect.
const FUNCTIONS: &str = r#"
import gc, pickle, sys, types, weakref

def inc(x): return x + 1
def add(x, y=0, *, z=0): return x + y + z
def collect(*args, **kwargs): return args, kwargs
def fail(*args): raise KeyError("no such thing")
def interrupt(): raise KeyboardInterrupt
def leave(): raise SystemExit(3)
def lambda_of(x): return lambda: x
def nothing(x): return None
def reenter(x): return callback(x)

class Thing:
    alive = weakref.WeakSet()
    def __init__(self, *inputs): Thing.alive.add(self)
    @staticmethod
    def count(*inputs): return len(Thing.alive)

class Ends:
    alive = weakref.WeakSet()
    def __init__(self): Ends.alive.add(self)
    def __del__(self): pass
    @staticmethod
    def count(*inputs): return len(Ends.alive)

class Wrapper:
    def __init__(self): self.inner = types.SimpleNamespace(end=Ends())

class Unpicklable:
    def __reduce_ex__(self, protocol): raise RuntimeError("not for travelling")

class Bomb:
    def __reduce__(self): return (fail, ())

def array(n):
    import numpy
    return numpy.arange(n)

def write(a):
    a[0] = 7
    return a

def write_and_fail(a):
    a[0] = 7
    raise KeyError("after writing")

def write_if(a, wanted):
    if wanted: a[0] = 7
    return a.flags.writeable

def write_to_own():
    a = array(3)
    a.flags.writeable = False
    return write(a)

def write_first(items): return write(items[0])
def write_second(a, b): return write(b)

class Changeable:
    def __init__(self, items): self.items = items
    def append(self, item): self.items.append(item)
    def __getitem__(self, place): return self.items
    def __repr__(self): return repr(self.items)

def change(items):
    items.append("changed")
    return items

def writeable(a): return a.flags.writeable

log = []
def before(key, inputs):
    log.append(("before", key, inputs))
    return key.upper()
def after(key, result, state): log.append(("after", key, result, state))
def before_fails(key, inputs): raise LookupError("hook")

errors = types.ModuleType("eagleray._errors")
inputs_of_failed = []
def dump_error(error, inputs, call):
    inputs_of_failed.append(inputs)
    return pickle.dumps((type(error).__name__, str(error)))
errors.dump_error = dump_error
arguments = sys.modules.setdefault("eagleray._arguments", types.ModuleType("eagleray._arguments"))
arguments.not_picklable_result = lambda result, cause: TypeError(f"{type(result).__name__}: {cause}")
# The package without its `__init__`, which needs the extension module.
sys.modules.setdefault("eagleray", types.ModuleType("eagleray")).__path__ = [package_path]
sys.modules["eagleray._errors"] = errors
"#;

/// Runs a test with the interpreter. The packages are those of the Python that the build was made for. One test at a time:
/// they share the module of [`FUNCTIONS`].
fn python(test: impl FnOnce(Python<'_>)) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    Python::initialize();
    Python::attach(|py| {
        functions(py);
        test(py);
    });
}

fn functions(py: Python<'_>) -> &Bound<'_, PyModule> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let make = || -> PyResult<Py<PyModule>> {
        if let Ok(python) = env::var("PYO3_PYTHON") {
            let asked = Command::new(python).args(["-c", "import sys; print('\\n'.join(sys.path))"]).output()?;
            let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
            String::from_utf8_lossy(&asked.stdout).lines().try_for_each(|line| path.append(line))?;
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/eagleray");
        let code = CString::new(format!("package_path = {path:?}\n{FUNCTIONS}"))?;
        Ok(PyModule::from_code(py, &code, c"functions.py", c"executor_test_functions")?.unbind())
    };
    MODULE.get_or_try_init(py, make).expect("test functions").bind(py)
}

/// The value of an expression, in the module of [`FUNCTIONS`].
fn eval<'py>(py: Python<'py>, expression: &str) -> Bound<'py, PyAny> {
    let globals = functions(py).dict();
    py.eval(&CString::new(expression).unwrap(), Some(&globals), None).expect(expression)
}

/// Whether an expression holds of `x`.
fn holds(x: &Bound<'_, PyAny>, expression: &str) -> bool {
    let py = x.py();
    let locals = PyDict::new(py);
    locals.set_item("x", x).unwrap();
    let globals = functions(py).dict();
    let answer = py.eval(&CString::new(expression).unwrap(), Some(&globals), Some(&locals)).expect(expression);
    answer.is_truthy().unwrap()
}

/// The plain pickle of an expression's value.
fn pickled(py: Python<'_>, expression: &str) -> Payload {
    let bytes = py.import("pickle").unwrap().call_method1("dumps", (eval(py, expression),)).unwrap();
    Arc::new(bytes.extract::<Vec<u8>>().unwrap())
}

/// The encoded form of an expression's value.
fn encoded(py: Python<'_>, expression: &str) -> Payload {
    Arc::new(value::encode(py, &eval(py, expression)).unwrap().to_vec())
}

/// The form of constants.
fn to_share(py: Python<'_>, expression: &str) -> Payload {
    Arc::new(value::encode_to_share(&eval(py, expression)).unwrap().to_vec())
}

fn input(parameter: u32) -> Vec<u32> {
    vec![INPUT, parameter]
}

fn constant(parameter: u32) -> Vec<u32> {
    vec![CONST, parameter]
}

fn local(step: u32) -> Vec<u32> {
    vec![LOCAL, step]
}

/// Calls a function entry.
fn call(function: u32, arguments: &[Vec<u32>]) -> Vec<u32> {
    [&[CALL, arguments.len() as u32, 0, FUNC, function], &arguments.concat()[..]].concat()
}

/// A template's code.
fn code(steps: &[Vec<u32>]) -> Vec<u8> {
    template::to_bytes(&[&[steps.len() as u32], &steps.concat()[..]].concat())
}

/// A task: its index, template, output flags and parameters.
type Task<'a> = (u32, u32, u8, &'a [u32]);

#[derive(Default)]
struct Session {
    executor: Executor,
    functions: AtomicU32,
    batch: AtomicBool,
    hooks: AtomicBool,
}

impl Session {
    /// Adds a template, with the values of these expressions as its function entries.
    fn template(&self, py: Python<'_>, id: u32, steps: &[Vec<u32>], functions: &[&str]) {
        let mut entries = Vec::new();
        for expression in functions {
            let number = self.functions.fetch_add(1, Relaxed);
            self.executor.add_blob(number + 10, pickled(py, expression));
            self.executor.add_function(GRAPH, number, number + 10);
            entries.push(number);
        }
        self.executor.add_template(GRAPH, id, &code(steps), entries).expect("well-formed");
    }

    /// The constants of all tasks. With hooks, constant `i` is also the key of task `i`.
    fn constants(&self, py: Python<'_>, list: &str) {
        self.executor.add_batch(GRAPH, 0, to_share(py, list));
        self.batch.store(true, Relaxed);
    }

    fn hooks(&self, py: Python<'_>, list: &str) {
        self.executor.set_hooks(GRAPH, pickled(py, list));
        self.hooks.store(true, Relaxed);
    }

    fn execute(&self, py: Python<'_>, tasks: &[Task<'_>], io: &Io<'_>) -> PyResult<()> {
        self.execute_with(py, tasks, &[], io)
    }

    fn execute_with(&self, py: Python<'_>, tasks: &[Task<'_>], inputs: &[(u32, &str)], io: &Io<'_>) -> PyResult<()> {
        let mut code = Csr::new();
        for &(index, template, _, parameters) in tasks {
            let batch = if self.batch.load(Relaxed) { 0 } else { NO_BATCH };
            let key = if self.hooks.load(Relaxed) { index } else { NO_KEY };
            code.push_row([5, batch, template, key].into_iter().chain(parameters.iter().copied()));
        }
        let inputs = inputs.iter().map(|&(k, expression)| (external(k).unwrap(), encoded(py, expression)));
        let inputs: Vec<_> = inputs.collect();
        for (input, payload) in &inputs {
            self.executor.add_input(*input, payload.clone());
        }
        let run = Run {
            id: RunId { worker: WorkerId(0), seq: 0 },
            graph: GRAPH,
            tasks: tasks.iter().map(|task| task.0).collect(),
            outputs: tasks.iter().map(|task| task.2).collect(),
            inputs: inputs.into_iter().map(|(input, _)| input).collect(),
            gpus: Vec::new(),
        };
        self.executor.execute(py, &run, &code, TASKS, &external, io)
    }

    fn kept<'py>(&self, py: Python<'py>, index: u32) -> Option<Bound<'py, PyAny>> {
        self.executor.kept(py, object(index)).map(|value| value.into_bound(py))
    }

    /// The kept result of a task, as its `repr`.
    fn kept_repr(&self, py: Python<'_>, index: u32) -> Option<String> {
        self.kept(py, index).map(|value| value.repr().unwrap().to_string())
    }
}

/// How a task ended: place, bytes, trouble.
type Ended = (u32, u64, Option<Trouble>);

/// Lets claim `limit` tasks and remembers the rest.
struct Io<'a> {
    limit: u32,
    claimed: Cell<u32>,
    clock: Cell<u64>,
    started: RefCell<Vec<u32>>,
    published: RefCell<Vec<(u32, Vec<u8>, bool)>>,
    ended: RefCell<Vec<Ended>>,
    /// The places of tasks that are to be interrupted.
    interrupted: Vec<u32>,
    /// Tasks whose results stand for later ones.
    deferred: Vec<u32>,
    /// Called between tasks, with the number of tasks that have been claimed.
    between: Box<dyn Fn(Python<'_>, u32) + 'a>,
}

impl Io<'_> {
    fn new(limit: usize) -> Self {
        Self {
            limit: limit as u32,
            claimed: Cell::new(0),
            clock: Cell::new(0),
            started: RefCell::default(),
            published: RefCell::default(),
            ended: RefCell::default(),
            interrupted: Vec::new(),
            deferred: Vec::new(),
            between: Box::new(|_, _| ()),
        }
    }

    /// What became of the tasks: `+` for a good end, else the trouble's first letter.
    fn ends(&self) -> String {
        let ended = self.ended.borrow();
        let end = |(_, _, trouble): &Ended| match trouble {
            None => '+',
            Some(Trouble::Raised(_)) => 'R',
            Some(Trouble::Retry(_)) => 'A',
            Some(Trouble::Skipped) => 'S',
            Some(Trouble::Unsendable(_)) => 'U',
            Some(Trouble::InputNotHere(_)) => 'I',
            Some(Trouble::Deferred) => 'D',
            Some(Trouble::Cancelled) => 'C',
        };
        ended.iter().map(end).collect()
    }

    /// The type and text of the exception at a place.
    fn error(&self, py: Python<'_>, place: u32) -> (String, String) {
        let ended = self.ended.borrow();
        let Some(Trouble::Raised(bytes) | Trouble::Unsendable(bytes)) = &ended[place as usize].2 else {
            panic!("{ended:?} is no error")
        };
        let loaded = py.import("pickle").unwrap().call_method1("loads", (&bytes[..],)).unwrap();
        loaded.extract().unwrap()
    }
}

impl RunIo for Io<'_> {
    fn claim(&self) -> Option<u32> {
        let place = self.claimed.get();
        (place < self.limit).then(|| self.claimed.replace(place + 1))
    }

    fn start(&self, index: u32, _now_ns: u64) {
        self.started.borrow_mut().push(index);
    }

    fn was_interrupted(&self, index: u32) -> bool {
        self.interrupted.contains(&index)
    }

    fn is_deferred(&self, _py: Python<'_>, task: ObjectId, _result: &Py<PyAny>) -> bool {
        task.graph == GRAPH && self.deferred.contains(&task.index)
    }

    fn now_ns(&self) -> u64 {
        self.clock.replace(self.clock.get() + 1)
    }

    fn publish(&self, _py: Python<'_>, index: u32, value: Encoded, seal: bool) -> PyResult<()> {
        self.published.borrow_mut().push((index, value.to_vec(), seal));
        Ok(())
    }

    fn ended(&self, index: u32, class: u32, ns: u64, bytes: u64, trouble: Option<Trouble>) {
        assert_eq!(class, 5);
        assert_eq!(ns, 1);
        assert_eq!(index as usize, self.ended.borrow().len());
        self.ended.borrow_mut().push((index, bytes, trouble));
    }

    fn between(&self, py: Python<'_>) -> PyResult<()> {
        (self.between)(py, self.claimed.get());
        Ok(())
    }
}
