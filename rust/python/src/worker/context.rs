//! What a task may ask about itself.

use eagleray_core::ids::ObjectId;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Worker, lock, this_worker};
use crate::refs::hex;

impl Worker {
    /// The task that runs, or ran last in the present run.
    pub(super) fn running(&self) -> Option<ObjectId> {
        let running = self.link.page().running()?;
        self.executor.task_at(running.index)
    }
}

#[pyfunction]
pub(crate) fn current_task() -> Option<(u64, u32)> {
    let task = this_worker()?.running()?;
    Some((task.graph.to_u64(), task.index))
}

#[pyfunction]
pub(crate) fn task_context(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let worker = this_worker();
    let context = PyDict::new(py);
    context.set_item("task", worker.and_then(|worker| worker.running()).map(hex))?;
    context.set_item("actor", worker.and_then(|worker| worker.actor.get()).copied().map(hex))?;
    context.set_item("worker", worker.map(|worker| worker.link.worker().0))?;
    context.set_item("gpus", worker.map_or_else(Vec::new, |worker| lock(&worker.gpus).clone()))?;
    Ok(context)
}

#[pyfunction]
#[pyo3(signature = (function, /))]
pub(crate) fn after_run(function: Py<PyAny>) {
    if let Some(worker) = this_worker() {
        lock(&worker.after_run).push(function);
    }
}
