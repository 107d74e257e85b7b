//! What a task may ask about itself.

use std::sync::atomic::Ordering;

use eagleray_core::ids::ObjectId;
use pyo3::prelude::*;

use super::{Worker, lock, this_worker};

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
#[pyo3(signature = (function, /))]
pub(crate) fn after_run(function: Py<PyAny>) {
    if let Some(worker) = this_worker() {
        lock(&worker.after_run).push(function);
    }
}

#[pyfunction]
pub(crate) fn retire() {
    if let Some(worker) = this_worker() {
        worker.retires.store(true, Ordering::Relaxed);
    }
}
