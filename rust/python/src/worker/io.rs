//! The surroundings of a run in a worker: its control page, and what is reported of it.

use std::cell::{Cell, RefCell};

use eagleray_core::graph::Csr;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{Timing, Trouble, output};
use eagleray_runtime::session::now_ns;
use pyo3::prelude::*;
use rustc_hash::FxHashSet;

use super::report::Unreported;
use super::{REPORT_NS, Worker, deferred, lock, os};
use crate::executor::RunIo;
use crate::template::CLASS;
use crate::value::Encoded;

/// The surroundings of a run in a worker.
pub(super) struct WorkerIo<'a> {
    pub(super) worker: &'a Worker,
    pub(super) seq: u32,
    pub(super) code: &'a Csr,
    pub(super) outputs: &'a [u8],
    /// The clock as it was last read.
    pub(super) now: Cell<u64>,
    pub(super) quick: RefCell<FxHashSet<u32>>,
    /// A report that could not be sent before a task.
    pub(super) failed: Cell<Option<PyErr>>,
    /// Why the surroundings of the tasks are not what they should be.
    pub(super) obstacle: Cell<Option<PyErr>>,
}

impl WorkerIo<'_> {
    fn is(&self, index: u32, flag: u8) -> bool {
        self.outputs.get(index as usize).is_some_and(|flags| flags & flag != 0)
    }

    /// Whether what was done before a task is not to be reported without it.
    fn is_with_last(&self, index: u32) -> bool {
        self.is(index, output::WITH_LAST)
    }

    /// Whether what is done is to be reported before a task: somebody may wait for it, and the task may take long; or it
    /// would be done again if the task ended the worker.
    fn is_told_before(&self, index: u32) -> bool {
        if self.is_with_last(index) {
            return false;
        }
        let class = self.code.row(index)[CLASS];
        let waits = |state: &Unreported| state.awaited() && !self.quick.borrow().contains(&class);
        lock(&self.worker.unreported).as_ref().is_some_and(|(_, state)| state.once || waits(state))
    }
}

impl RunIo for WorkerIo<'_> {
    fn obstacle(&self) -> Option<PyErr> {
        self.obstacle.take()
    }

    fn claim(&self) -> Option<u32> {
        self.worker.link.page().claim(self.seq)
    }

    fn start(&self, index: u32, now_ns: u64) {
        self.now.set(now_ns);
        if self.is_told_before(index) {
            let reported = Python::attach(|py| self.worker.report_between(py));
            if let Err(error) = reported {
                self.failed.set(Some(error));
            }
        }
        self.worker.link.page().start(self.seq, index, now_ns);
        self.worker.deferred.set_class(self.code.row(index)[CLASS]);
        self.worker.interrupts.allow();
    }

    fn returned(&self) {
        self.worker.interrupts.forbid();
    }

    fn was_interrupted(&self, index: u32) -> bool {
        self.worker.link.page().is_to_interrupt(self.seq, index)
    }

    fn is_deferred(&self, py: Python<'_>, object: ObjectId, result: &Py<PyAny>) -> bool {
        self.worker.deferred.is_asked() && deferred::is_of(result.bind(py), object)
    }

    fn now_ns(&self) -> u64 {
        let now = now_ns();
        self.now.set(now);
        now
    }

    fn publish(&self, _py: Python<'_>, index: u32, mut encoded: Encoded, seal: bool) -> PyResult<()> {
        let contained = encoded.take_contained();
        let value = self.worker.link.store(encoded.len(), seal, |target| encoded.write_to(target)).map_err(os)?;
        if let Some((_, state)) = lock(&self.worker.unreported).as_mut() {
            if !state.awaited() {
                state.since_ns = self.now.get();
            }
            state.values.push((index, value, contained));
        }
        Ok(())
    }

    fn ended(&self, index: u32, class: u32, ns: u64, bytes: u64, trouble: Option<Trouble>) {
        if ns < REPORT_NS {
            self.quick.borrow_mut().insert(class);
        } else {
            self.quick.borrow_mut().remove(&class);
        }
        let mut unreported = lock(&self.worker.unreported);
        let Some((_, state)) = unreported.as_mut() else { return };
        state.upto = index + 1;
        if !self.is_with_last(state.upto) {
            state.whole = state.upto;
        }
        state.once |= self.is(index, output::ONCE);
        if self.worker.records_times {
            state.times.add(self.now.get().saturating_sub(ns), ns);
        }
        if self.worker.deferred.is_asked() {
            if let Some(task) = self.worker.executor.task_at(index) {
                let away = matches!(trouble, Some(Trouble::Deferred));
                if !state.awaited() {
                    state.since_ns = self.now.get();
                }
                state.completed.extend(self.worker.deferred.task_ended(task, away));
            }
        }
        if let Some(trouble) = trouble {
            // Of a task that has failed nothing is published, though its hook may have raised after that.
            state.values.retain(|(published, ..)| *published != index);
            if !state.awaited() {
                state.since_ns = self.now.get();
            }
            state.troubles.push((index, trouble));
            return;
        }
        let at = state.timings.iter().rposition(|timing| timing.class == class).unwrap_or_else(|| {
            state.timings.push(Timing { class, count: 0, total_ns: 0, max_ns: 0, total_bytes: 0 });
            state.timings.len() - 1
        });
        let timing = &mut state.timings[at];
        timing.count += 1;
        timing.total_ns += ns;
        timing.max_ns = timing.max_ns.max(ns);
        timing.total_bytes += bytes;
    }

    fn between(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let due = lock(&self.worker.unreported)
            .as_ref()
            .filter(|(_, state)| state.awaited() && self.now.get() >= state.since_ns + REPORT_NS)
            .is_some_and(|(_, state)| !self.is_with_last(state.upto));
        if due {
            self.worker.report_between(py)?;
        }
        if self.worker.link.requested() {
            // What is asked for may be a result of a task before.
            self.worker.call_after_run(py);
            self.worker.take_in().map_err(os)?;
            self.worker.do_chores()?;
            self.worker.cancel_deferred();
        }
        Ok(())
    }
}
