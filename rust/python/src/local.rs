//! Runs a graph in this process, one task at a time: the executor without workers. Nothing is pickled, so that a debugger
//! sees the objects themselves, and an exception is the one that was raised, with its traceback.

use std::cell::{Cell, RefCell};

use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{Failure, FailureKind, Opaque, Run, Trouble, output};
use eagleray_runtime::session::now_ns;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::executor::{Executor, Inputs, RunIo};
use crate::ingest::{self, Options, ResultShape};
use crate::refs::ObjectRef;
use crate::value::Encoded;
use crate::{failures, template};

/// A run that nobody recalls and nobody waits for.
struct LocalIo {
    tasks: u32,
    next: Cell<u32>,
    trouble: RefCell<Option<(u32, Trouble)>>,
    /// What the task raised, and its inputs.
    raised: RefCell<Option<(PyErr, Inputs)>>,
}

impl RunIo for LocalIo {
    fn claim(&self) -> Option<u32> {
        // The first failure ends it.
        let next = self.next.get();
        if next == self.tasks || self.trouble.borrow().is_some() {
            return None;
        }
        self.next.set(next + 1);
        Some(next)
    }

    fn start(&self, _index: u32, _now_ns: u64) {}

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn publish(&self, _py: Python<'_>, _index: u32, _value: Encoded, _seal: bool) -> PyResult<()> {
        Err(PyRuntimeError::new_err("nothing is published within one process"))
    }

    fn raised(&self, _py: Python<'_>, error: PyErr, inputs: Option<Inputs>) -> PyResult<Opaque> {
        self.raised.replace(Some((error, inputs.unwrap_or_default())));
        Ok(Opaque::default())
    }

    fn ended(&self, index: u32, _class: u32, _ns: u64, _bytes: u64, trouble: Option<Trouble>) {
        if let Some(trouble) = trouble {
            self.trouble.borrow_mut().get_or_insert((index, trouble));
        }
    }

    fn between(&self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()
    }
}

/// Runs a graph in this process and thread, one task at a time. Returns values nested as `keys`.
#[pyfunction]
pub(crate) fn run_local<'py>(
    py: Python<'py>,
    dsk: &Bound<'py, PyAny>,
    keys: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let found = ingest::ingest(py, dsk, keys, &py.get_type::<ObjectRef>(), Options::default())?;
    let graph = GraphId { peer: PeerId::USER, seq: 0 };
    let tasks = found.position.len() as u32;
    let executor = Executor::in_place();
    for (id, function) in found.functions.iter().enumerate() {
        executor.add_loaded_blob(id as u32, function.clone_ref(py));
        executor.add_function(graph, id as u32, id as u32);
    }
    let at = found.at();
    for (id, (code, functions)) in found.templates.iter().enumerate() {
        executor
            .add_template(graph, id as u32, &template::to_bytes(code), functions.clone())
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    }
    for (id, batch) in found.batches.iter().enumerate() {
        let constants = batch.constants.iter().map(|constant| constant.clone_ref(py)).collect();
        executor.add_loaded_batch(graph, id as u32, constants);
    }
    let external = |k: u32| ObjectId { graph: GraphId { peer: PeerId::USER, seq: 1 }, index: k };
    let mut values = Vec::new();
    for reference in &found.externals {
        let value = py.import("eagleray._engine")?.getattr("get")?.call1((reference,))?;
        values.push(value);
    }
    values.extend(found.literals.iter().map(|literal| literal.bind(py).clone()));
    for (k, value) in values.iter().enumerate() {
        executor.keep(external(k as u32), value.clone().unbind());
    }
    let mut outputs = vec![0; at.len()];
    for &task in &found.outputs {
        outputs[found.position[task as usize] as usize] = output::KEEP;
    }
    let mut code = eagleray_core::graph::Csr::with_capacity(at.len(), found.code.items().len());
    for &task in &at {
        code.push_row(found.code.row(task).iter().copied());
    }
    let run = Run {
        id: RunId { worker: WorkerId(0), seq: 0 },
        graph,
        tasks: at,
        outputs,
        inputs: Vec::new(),
        gpus: Vec::new(),
    };
    let io = LocalIo { tasks, next: Cell::new(0), trouble: RefCell::new(None), raised: RefCell::new(None) };
    executor.execute(py, &run, &code, tasks, &|k| Some(external(k)), &io)?;
    if let Some((index, trouble)) = io.trouble.into_inner() {
        let task = run.tasks[index as usize];
        if let (Trouble::Raised(_), Some((error, inputs))) = (trouble, io.raised.into_inner()) {
            found.names().annotate(py, &error, task, &inputs)?;
            return Err(error);
        }
        let failure = Failure { origin: ObjectId { graph, index: task }, kind: FailureKind::Lost };
        return Err(failures::failure(py, &failure, Some(found.names())));
    }
    found.result.nest(py, &mut |part| match part {
        ResultShape::Task(index) => executor
            .kept(py, ObjectId { graph, index: *index })
            .map(|value| value.into_bound(py))
            .ok_or_else(|| PyRuntimeError::new_err("a result is not there")),
        ResultShape::External(k) => Ok(values[*k as usize].clone()),
        ResultShape::Literal(literal) => Ok(literal.bind(py).clone()),
        ResultShape::List(_) => Err(PyRuntimeError::new_err("a list is no value")),
    })
}
