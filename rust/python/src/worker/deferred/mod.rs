//! Tasks that go on when their function has returned: calls of actors that do several things at a time.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use eagleray_core::ids::ObjectId;
use eagleray_core::message::Trouble;
use eagleray_runtime::program::Value;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::{Worker, lock, os, this_worker};
use crate::contained::Contained;
use crate::executor::{dump_error, not_picklable};
use crate::refs::hex;
use crate::role::raise;
use crate::value;

/// How a deferred task has ended.
pub(super) type Outcome = Result<(Value, Contained), Trouble>;

/// How far a task is that is or will be deferred.
enum Stage {
    /// Its function has not returned.
    Begun,
    /// The same, but the end is known already.
    Early(Outcome),
    /// Its function has returned.
    Away {
        /// It is to be cancelled.
        cancelled: bool,
    },
}

/// The tasks of this worker that are deferred.
#[derive(Default)]
pub(super) struct Deferrals {
    /// By task: which attempt, and how far it is.
    stages: Mutex<FxHashMap<ObjectId, (u64, Stage)>>,
    attempts: AtomicU64,
    /// The task in progress has asked for it.
    asked: AtomicBool,
    /// The class of the task in progress.
    class: AtomicU32,
    /// Those that shall be cancelled.
    pub(super) to_cancel: Mutex<VecDeque<ObjectId>>,
    /// Whom to tell that.
    cancel: Mutex<Option<Py<PyAny>>>,
}

impl Deferrals {
    /// A task begins.
    pub(super) fn set_class(&self, class: u32) {
        self.class.store(class, Ordering::Relaxed);
    }

    /// Whether the task in progress has asked to be deferred.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The task that asked has ended, or it is `away`. Gives its end, if that is known already: to be told when it has been
    /// reported that the task is deferred.
    pub(super) fn task_ended(&self, task: ObjectId, away: bool) -> Option<(ObjectId, Outcome)> {
        self.asked.store(false, Ordering::Relaxed);
        let mut stages = lock(&self.stages);
        if !away {
            stages.remove(&task);
            return None;
        }
        let (attempt, stage) = stages.remove(&task)?;
        if let Stage::Early(outcome) = stage {
            return Some((task, outcome));
        }
        stages.insert(task, (attempt, Stage::Away { cancelled: false }));
        None
    }

    /// Whether a deferred task shall be cancelled, and has not ended of its own.
    fn is_cancelled(&self, task: ObjectId) -> bool {
        matches!(lock(&self.stages).get(&task), Some((_, Stage::Away { cancelled: true })))
    }

    /// The next deferred task to be cancelled; it counts as that from now on.
    fn next_to_cancel(&self) -> Option<ObjectId> {
        loop {
            let task = lock(&self.to_cancel).pop_front()?;
            if let Some((_, Stage::Away { cancelled })) = lock(&self.stages).get_mut(&task) {
                *cancelled = true;
                return Some(task);
            }
        }
    }
}

impl Worker {
    /// Whether this thread has deferred tasks to cancel: the main thread does that.
    pub(super) fn has_to_cancel(&self) -> bool {
        !lock(&self.deferred.to_cancel).is_empty() && self.interrupts.is_main()
    }

    /// Has deferred tasks cancelled, if this is the main thread.
    pub(super) fn cancel_deferred(&self) {
        if !self.has_to_cancel() {
            return;
        }
        let _others = self.interrupts.put_off();
        Python::attach(|py| {
            while let Some(task) = self.deferred.next_to_cancel() {
                let Some(cancel) = lock(&self.deferred.cancel).as_ref().map(|cancel| cancel.clone_ref(py)) else {
                    return;
                };
                if let Err(error) = cancel.call1(py, (hex(task),)) {
                    error.write_unraisable(py, Some(cancel.bind(py)));
                }
            }
        });
    }

    fn complete(&self, deferred: &Deferred, outcome: Outcome) -> PyResult<()> {
        let mut stages = lock(&self.deferred.stages);
        let Some((_, stage)) = stages.get_mut(&deferred.task).filter(|(attempt, _)| *attempt == deferred.attempt)
        else {
            drop(stages);
            return Err(PyRuntimeError::new_err(
                "The task has ended without its Deferred: its function must return that object itself.",
            ));
        };
        if matches!(stage, Stage::Begun) {
            *stage = Stage::Early(outcome);
            return Ok(());
        }
        stages.remove(&deferred.task);
        drop(stages);
        // What says that the task is deferred comes first, and what its value holds.
        self.report(false)?;
        self.flush_uses().map_err(raise)?;
        self.send_completed(deferred.task, outcome);
        self.link.flush().map_err(os)
    }
}

/// The end of a task that goes on when its function has returned.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct Deferred {
    task: ObjectId,
    attempt: u64,
    class: u32,
    ended: AtomicBool,
}

impl Deferred {
    /// Ends the task, once, with what `outcome` says.
    fn end(&self, outcome: impl FnOnce(&Worker) -> PyResult<Outcome>) -> PyResult<()> {
        let worker = this_worker().ok_or_else(|| PyRuntimeError::new_err("A task is completed in its own process."))?;
        if self.ended.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("The task has been completed already, and can be so only once."));
        }
        let ended = outcome(worker).and_then(|outcome| worker.complete(self, outcome));
        if ended.is_err() {
            self.ended.store(false, Ordering::Relaxed);
        }
        ended
    }

    fn raised(&self, worker: &Worker, py: Python<'_>, error: PyErr) -> PyResult<Trouble> {
        let again = worker.executor.retries_for(py, self.task.graph, self.class, &error);
        let error = dump_error(py, error, None)?;
        Ok(if again { Trouble::Retry(error) } else { Trouble::Raised(error) })
    }
}

#[pymethods]
impl Deferred {
    /// The id of the task's object.
    #[getter]
    fn hex(&self) -> String {
        hex(self.task)
    }

    /// The task has this result. A value that cannot be pickled is its failure.
    #[pyo3(signature = (value, /))]
    fn complete(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        self.end(|worker| match value::encode(py, value) {
            Ok(mut encoded) => {
                let stored = worker.link.store(encoded.len(), false, |target| encoded.write_to(target));
                Ok(Ok((stored.map_err(os)?, encoded.take_contained())))
            }
            Err(cause) if cause.is_instance_of::<PyException>(py) => {
                Ok(Err(self.raised(worker, py, not_picklable(py, value, cause))?))
            }
            Err(cause) => Err(cause),
        })
    }

    /// The task has raised this.
    #[pyo3(signature = (error, /))]
    fn fail(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        let error = PyErr::from_value(error.clone());
        self.end(|worker| {
            let stopped = worker.deferred.is_cancelled(self.task) && is_end_of_cancelled(py, &error)?;
            Ok(Err(if stopped { Trouble::Cancelled } else { self.raised(worker, py, error)? }))
        })
    }
}

/// Whether an exception is one with which a coroutine or a thread ends that was cancelled, and not of the user's.
fn is_end_of_cancelled(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let cancelled = py.import("eagleray.exceptions")?.getattr("TaskCancelledError")?;
    Ok(!error.is_instance_of::<PyException>(py) || error.value(py).is_instance(&cancelled)?)
}

/// Whether a result is the [`Deferred`] of its task.
pub(super) fn is_of(result: &Bound<'_, PyAny>, task: ObjectId) -> bool {
    result.cast_exact::<Deferred>().is_ok_and(|deferred| deferred.get().task == task)
}

#[pyfunction]
pub(crate) fn defer() -> PyResult<Deferred> {
    let worker = this_worker().filter(|worker| worker.interrupts.is_main() && worker.interrupts.in_task());
    let found = worker.and_then(|worker| Some((worker, worker.running()?)));
    let (worker, task) =
        found.ok_or_else(|| PyRuntimeError::new_err("defer() is for the thread that runs a task in a worker."))?;
    let deferred = &worker.deferred;
    let attempt = deferred.attempts.fetch_add(1, Ordering::Relaxed);
    let old = lock(&deferred.stages).insert(task, (attempt, Stage::Begun));
    drop(old);
    deferred.asked.store(true, Ordering::Relaxed);
    let class = deferred.class.load(Ordering::Relaxed);
    Ok(Deferred { task, attempt, class, ended: AtomicBool::new(false) })
}

/// Nothing is sent by a worker that waits, and its threads may let go of what they had when they have told its end.
#[pyfunction]
pub(crate) fn flush_uses() -> PyResult<()> {
    let worker = this_worker().ok_or_else(|| PyRuntimeError::new_err("Only a worker has deferred tasks."))?;
    worker.flush_uses().map_err(raise)?;
    worker.link.flush().map_err(os)
}

#[pyfunction]
#[pyo3(signature = (function, /))]
pub(crate) fn set_cancel_deferred(function: Py<PyAny>) -> PyResult<()> {
    let worker = this_worker().ok_or_else(|| PyRuntimeError::new_err("Only a worker has deferred tasks."))?;
    let old = lock(&worker.deferred.cancel).replace(function);
    drop(old);
    Ok(())
}
