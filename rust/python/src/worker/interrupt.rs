//! Interrupting the task that runs: the node names it on the control page and sends SIGINT.
//!
//! The signal may come late, when that task has ended or another one runs. So the handler, which Python calls on the main
//! thread between two steps of a program, raises only if the task that was named is the one in progress.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{self, ThreadId};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use super::this_worker;
use crate::raw;

/// No task is in progress.
const NONE: u8 = 0;
/// A task is.
const TASK: u8 = 1;
/// One is, and waits while this process does something that concerns others.
const OTHERS: u8 = 2;

/// What the main thread is doing.
pub(super) struct Interrupts {
    main: ThreadId,
    state: AtomicU8,
    /// A task is to be interrupted as soon as it goes on.
    pending: AtomicBool,
}

impl Interrupts {
    /// To be made on the main thread.
    pub(super) fn new() -> Self {
        Self { main: thread::current().id(), state: AtomicU8::new(NONE), pending: AtomicBool::new(false) }
    }

    /// Whether this is the main thread.
    pub(super) fn is_main(&self) -> bool {
        thread::current().id() == self.main
    }

    /// Whether a task is in progress, on the main thread.
    pub(super) fn in_task(&self) -> bool {
        self.state.load(Ordering::Relaxed) != NONE
    }

    /// A task begins.
    pub(super) fn allow(&self) {
        self.state.store(TASK, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn forbid(&self) {
        self.state.store(NONE, Ordering::Relaxed);
    }

    /// What this thread does now must not be interrupted, as long as what is returned lives.
    pub(super) fn put_off(&self) -> Option<PutOff<'_>> {
        let in_task = self.is_main() && self.state.load(Ordering::Relaxed) == TASK;
        in_task.then(|| {
            self.state.store(OTHERS, Ordering::Relaxed);
            PutOff(self)
        })
    }
}

/// See [`Interrupts::put_off`].
pub(super) struct PutOff<'a>(&'a Interrupts);

impl Drop for PutOff<'_> {
    fn drop(&mut self) {
        self.0.state.store(TASK, Ordering::Relaxed);
        if self.0.pending.swap(false, Ordering::Relaxed) {
            raw::signal_interrupt();
        }
    }
}

/// Python's handler of SIGINT in a worker.
#[pyfunction]
#[pyo3(signature = (_signal, _frame, /))]
fn on_interrupt(_signal: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) -> PyResult<()> {
    let interrupt = || Err(PyKeyboardInterrupt::new_err(()));
    // A process that a task has forked does what Python does.
    let Some(worker) = this_worker() else { return interrupt() };
    let page = worker.link.page();
    if !page.running().is_some_and(|task| page.is_to_interrupt(task.seq, task.index)) {
        return Ok(());
    }
    match worker.interrupts.state.load(Ordering::Relaxed) {
        TASK => interrupt(),
        OTHERS => {
            worker.interrupts.pending.store(true, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Has this process, a worker, handle SIGINT. To be called on the main thread.
pub(super) fn listen(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, wrap_pyfunction!(on_interrupt, py)?))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_others_is_not_interrupted() {
        let interrupts = Interrupts::new();
        assert!(interrupts.put_off().is_none(), "there is no task");
        interrupts.allow();
        thread::scope(|scope| {
            scope.spawn(|| assert!(!interrupts.is_main() && interrupts.put_off().is_none()));
        });
        let others = interrupts.put_off();
        assert!(others.is_some() && interrupts.put_off().is_none());
        assert_eq!(interrupts.state.load(Ordering::Relaxed), OTHERS);
        drop(others);
        assert_eq!(interrupts.state.load(Ordering::Relaxed), TASK);
        interrupts.forbid();
        assert!(!interrupts.in_task());
    }
}
