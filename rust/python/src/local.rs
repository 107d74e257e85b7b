//! Runs a graph in this process, one task at a time: the executor without workers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{Failure, FailureKind, Run, Trouble, output};
use eagleray_runtime::session::now_ns;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::executor::{Executor, RunIo};
use crate::ingest::{self, Options, ResultShape};
use crate::pickles::dumps;
use crate::refs::ObjectRef;
use crate::value::Encoded;
use crate::{failures, template};

/// A run that nobody recalls and nobody waits for.
struct LocalIo {
    tasks: u32,
    next: Cell<u32>,
    trouble: RefCell<Option<(u32, Trouble)>>,
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
    let executor = Executor::new();
    for (id, function) in found.functions.iter().enumerate() {
        executor.add_blob(id as u32, Arc::new(dumps(function.bind(py))?));
        executor.add_function(graph, id as u32, id as u32);
    }
    let at = found.at();
    for (id, (code, functions)) in found.templates.iter().enumerate() {
        executor
            .add_template(graph, id as u32, &template::to_bytes(code), functions.clone())
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    }
    for (id, batch) in found.batches.iter().enumerate() {
        executor.add_batch(graph, id as u32, Arc::new(dumps(PyList::new(py, &batch.constants)?.as_any())?));
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
    let io = LocalIo { tasks, next: Cell::new(0), trouble: RefCell::new(None) };
    executor.execute(py, &run, &code, tasks, &|k| Some(external(k)), &io)?;
    if let Some((index, trouble)) = io.trouble.into_inner() {
        let task = run.tasks[index as usize];
        let kind = match trouble {
            Trouble::Raised(error) | Trouble::Retry(error) => FailureKind::Raised { error, attempts: 1 },
            Trouble::Skipped | Trouble::InputNotHere(_) => FailureKind::Lost,
        };
        let failure = Failure { origin: ObjectId { graph, index: task }, kind };
        return Err(failures::failure(py, &failure, found.keys[task as usize].bind(py)));
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
