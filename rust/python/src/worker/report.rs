//! What is done and not reported, and reports of it.

use std::sync::MutexGuard;

use eagleray_core::ids::{ObjectId, RunId};
use eagleray_core::message::{Report, Timing, Trouble};
use eagleray_runtime::FromWorker;
use eagleray_runtime::client::ClientError;
use eagleray_runtime::program::Value;
use eagleray_runtime::times::Times;
use pyo3::prelude::*;

use super::deferred::Outcome;
use super::{Worker, lock, os};
use crate::contained::Contained;
use crate::role::raise;

/// What of a run is done and not reported.
#[derive(Default)]
pub(super) struct Unreported {
    pub(super) upto: u32,
    /// Tasks before this one are reported.
    reported: u32,
    /// The last task that began which those before it need not wait for.
    pub(super) divided: u32,
    pub(super) troubles: Vec<(u32, Trouble)>,
    pub(super) values: Vec<(u32, Value, Contained)>,
    /// Ends of deferred tasks that came before it was reported that they are.
    pub(super) completed: Vec<(ObjectId, Outcome)>,
    pub(super) timings: Vec<Timing>,
    /// When the tasks ran, if that is recorded.
    pub(super) times: Times,
    /// When the oldest of what somebody may wait for came.
    pub(super) since_ns: u64,
}

impl Unreported {
    /// Whether somebody may wait for some of it.
    pub(super) fn awaited(&self) -> bool {
        !self.values.is_empty() || !self.troubles.is_empty() || !self.completed.is_empty()
    }

    /// Whether somebody may wait for some of it while a task runs that it can be reported without.
    pub(super) fn is_divided(&self) -> bool {
        self.awaited() && self.divided == self.upto
    }
}

impl Worker {
    /// Tells of first and last uses: what follows may end what this process has them from.
    pub(super) fn flush_uses(&self) -> Result<(), ClientError> {
        self.role.get().map_or(Ok(()), |role| role.client.flush_uses())
    }

    /// Sends what is not reported.
    pub(super) fn report(&self, ended: bool) -> PyResult<()> {
        self.report_locked(lock(&self.unreported), ended)
    }

    pub(super) fn report_locked(
        &self,
        mut unreported: MutexGuard<'_, Option<(RunId, Unreported)>>,
        ended: bool,
    ) -> PyResult<()> {
        let Some((run, state)) = unreported.as_mut() else { return Ok(()) };
        if !ended && state.upto == state.reported {
            return Ok(());
        }
        let run = *run;
        let upto = state.upto;
        let done = std::mem::take(state);
        // A result may be published whose task has not ended: a hook of it still runs, and computes.
        let (values, early): (Vec<_>, Vec<_>) = done.values.into_iter().partition(|(index, ..)| *index < upto);
        let (divided, since_ns) = (done.divided, done.since_ns);
        *state = Unreported { upto, reported: upto, divided, values: early, since_ns, ..Unreported::default() };
        if ended {
            *unreported = None;
        }
        tracing::trace!(run = run.seq, upto, ended, "what is done is reported");
        let (troubles, timings) = (done.troubles, done.timings);
        let (published, contained) = (Vec::new(), Vec::new());
        let report = Report { run, upto, ended, troubles, published, contained, timings };
        let wakeups = self.link.take_wakeups();
        // What the results name is held here until that has been told.
        let mut held = Vec::new();
        let told = |(index, value, contained): (u32, Value, Contained)| {
            let objects = contained.objects();
            if !contained.is_empty() {
                held.push(contained);
            }
            (index, value, objects)
        };
        let values = values.into_iter().map(told).collect();
        // Under the lock: another thread's report must not overtake this one, nor what the tasks of this one hold.
        let flushed = self.flush_uses();
        self.link.send(&FromWorker::Report { report, values, wakeups, times: done.times.into_bytes() });
        drop(unreported);
        flushed.map_err(raise)?;
        for (object, outcome) in done.completed {
            self.send_completed(object, outcome);
        }
        drop(held);
        self.link.flush().map_err(os)
    }

    /// Tells how a deferred task has ended.
    pub(super) fn send_completed(&self, object: ObjectId, outcome: Outcome) {
        let (outcome, _held) = match outcome {
            Ok((value, contained)) => (Ok((value, contained.objects())), Some(contained)),
            Err(trouble) => (Err(trouble), None),
        };
        self.link.send(&FromWorker::Completed(object, outcome));
    }
}
