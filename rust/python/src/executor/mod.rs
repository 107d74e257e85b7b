//! Executes runs: program and inputs in, results out. Knows no socket.
//!
//! [`Executor`] is told functions, templates and constants ([`library`]; a template is compiled once, [`shape`]), and the
//! values of inputs ([`objects`]). A run is planned as a whole ([`plan`]: who reads what, for how long) and then executed
//! task by task ([`run`]) by a small stack machine ([`machine`]).

mod constants;
mod failure;
mod finalizer;
mod hooks;
mod io;
mod library;
mod machine;
mod objects;
mod plan;
mod run;
mod shape;
mod size;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::Run;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

pub(crate) use failure::{Inputs, dump as dump_error, not_picklable};
pub(crate) use io::RunIo;
pub(crate) use shape::BadProgram;

use crate::value::Payload;
use library::{Library, lock};
use objects::Objects;
use plan::Plan;
use run::{Runner, Values};
use shape::Shape;

/// Executes runs. There is one in a process; a task may come back to it, and start a run while its own is not over.
#[derive(Default)]
pub(crate) struct Executor {
    library: Library,
    objects: Objects,
    /// The values of the runs that are not over, the innermost last.
    active: Mutex<Vec<Arc<Values>>>,
    /// Tasks work on the objects themselves that they are given, and what they return is not made read-only.
    in_place: bool,
}

impl Executor {
    /// One that knows nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One for the driver's own process, where tasks may write to the driver's objects.
    pub(crate) fn in_place() -> Self {
        Self { in_place: true, ..Self::default() }
    }

    /// The pickle of a function, by its number in the session. It is loaded at its first use. Bytes for a number that has
    /// some are not looked at.
    pub(crate) fn add_blob(&self, blob: u32, bytes: Payload) {
        self.library.add_blob(blob, bytes);
    }

    /// A function as it is, for tasks of the process that it belongs to.
    pub(crate) fn add_loaded_blob(&self, blob: u32, function: Py<PyAny>) {
        self.library.add_loaded_blob(blob, function);
    }

    /// Drops the pickle of a function, and the function if no graph uses it.
    pub(crate) fn drop_blob(&self, blob: u32) {
        self.library.drop_blob(blob);
    }

    /// Function `id` of a graph is this blob.
    pub(crate) fn add_function(&self, graph: GraphId, id: u32, blob: u32) {
        self.library.add_function(graph, id, blob);
    }

    /// A template of a graph: its code as [`crate::template`] describes it, and the graph's functions that its entries are.
    /// The error says what is wrong with the code; then nothing was added.
    pub(crate) fn add_template(
        &self,
        graph: GraphId,
        id: u32,
        code: &[u8],
        functions: Vec<u32>,
    ) -> Result<(), BadProgram> {
        self.library.add_template(graph, id, Shape::compile(code, functions)?);
        Ok(())
    }

    /// A batch of constants of a graph: an encoded list. It is loaded at its first use. Each task gets those for itself that
    /// a task may change.
    pub(crate) fn add_batch(&self, graph: GraphId, id: u32, bytes: Payload) {
        self.library.add_batch(graph, id, bytes);
    }

    /// A batch of constants as they are, for tasks of the process that they belong to.
    pub(crate) fn add_loaded_batch(&self, graph: GraphId, id: u32, constants: Vec<Py<PyAny>>) {
        self.library.add_loaded_batch(graph, id, constants.into());
    }

    /// The worker hooks of a graph: the pickle of a list of pairs of a function before and one after each task, or `None`.
    /// Holds for runs that begin later.
    pub(crate) fn set_hooks(&self, graph: GraphId, bytes: Payload) {
        self.library.set_hooks(graph, bytes);
    }

    /// Tasks of these classes of a graph may be run again if they raise, or, if there is a pickle of a tuple of exception
    /// classes, if they raise one of these.
    pub(crate) fn add_retry_filter(&self, graph: GraphId, classes: &[u32], exceptions: Option<&Payload>) {
        self.library.add_retry_filter(graph, classes, exceptions);
    }

    /// Whether a task of this class that raised this is one to be run again.
    pub(crate) fn retries_for(&self, py: Python<'_>, graph: GraphId, class: u32, error: &PyErr) -> bool {
        self.library.retries_for(py, graph, class, error)
    }

    /// A published object that a run reads. It is decoded when a task first reads it, to read-only views of the payload; what
    /// the driver put, and a task may change, for each task that reads it.
    /// To be called once for each run that names it in [`Run::inputs`]; it is gone when the last of them has ended.
    pub(crate) fn add_input(&self, object: ObjectId, payload: Payload) {
        self.objects.add_input(object, payload);
    }

    /// A value has been published from here. One whose end has effects stays until [`Executor::forget`]: it must not end
    /// before its copies have been read.
    pub(crate) fn published(&self, graph: GraphId, value: &Bound<'_, PyAny>) {
        if finalizer::has(value) {
            self.library.hold(graph, value.clone().unbind());
        }
    }

    /// Drops what was learned of a graph. Values that are kept stay.
    pub(crate) fn forget(&self, graph: GraphId) {
        self.library.forget(graph);
    }

    /// A result that is kept, or that a run not yet over has in hand.
    pub(crate) fn kept(&self, py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
        self.objects.kept(py, object).or_else(|| {
            let active = lock(&self.active).clone();
            active.iter().find_map(|values| values.get(py, object))
        })
    }

    /// The task at a place of the innermost run that is not over.
    pub(crate) fn task_at(&self, place: u32) -> Option<ObjectId> {
        lock(&self.active).last()?.task_at(place)
    }

    /// Keeps a value until [`Executor::drop_kept`].
    pub(crate) fn keep(&self, object: ObjectId, value: Py<PyAny>) {
        self.objects.keep(object, value);
    }

    /// Drops a kept value. A run that is not over may still hold it for its own tasks.
    pub(crate) fn drop_kept(&self, object: ObjectId) {
        self.objects.drop_kept(object);
    }

    /// Executes a run straight through, as far as `io` lets it claim tasks. Row `i` of `code` is that of the run's `i`-th
    /// task. An input number `n_tasks_in_graph + k` stands for `externals(k)`.
    ///
    /// What goes wrong with a task is reported to `io`. An error is something after which the process is no good: a
    /// [`BadProgram`] as `RuntimeError`, `SystemExit` of a task, or what `io` returned.
    pub(crate) fn execute(
        &self,
        py: Python<'_>,
        run: &Run,
        code: &Csr,
        n_tasks_in_graph: u32,
        externals: &dyn Fn(u32) -> Option<ObjectId>,
        io: &dyn RunIo,
    ) -> PyResult<()> {
        let planned = Plan::new(&self.library, run, code, n_tasks_in_graph, externals);
        let ended = planned.map_err(|error| PyRuntimeError::new_err(error.to_string())).and_then(|(plan, slots)| {
            let values = Arc::new(Values::new(run.clone(), slots));
            lock(&self.active).push(values.clone());
            let ended = Runner::new(py, self, run, code, io, plan, &values).execute();
            // The worker is asked for these when their readers have a new place.
            for (object, value) in values.take_unread() {
                self.objects.keep(object, value);
            }
            lock(&self.active).retain(|other| !Arc::ptr_eq(other, &values));
            ended
        });
        for object in &run.inputs {
            self.objects.end_input(*object);
        }
        ended
    }
}
