//! What is done and not reported, and reports of it.

use eagleray_core::ids::ObjectId;
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
    /// Tasks before this one can be: what is done from there on is told with what is not done yet.
    pub(super) whole: u32,
    /// Tasks before this one are reported.
    reported: u32,
    /// Some of it is not to be done again, and told before anything else begins.
    pub(super) once: bool,
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
}

impl Worker {
    /// Tells of first and last uses: what follows may end what this process has them from.
    pub(super) fn flush_uses(&self) -> Result<(), ClientError> {
        self.role.get().map_or(Ok(()), |role| role.client.flush_uses())
    }

    /// Sends what is not reported.
    pub(super) fn report(&self, ended: bool) -> PyResult<()> {
        let mut unreported = lock(&self.unreported);
        let Some((run, state)) = unreported.as_mut() else { return Ok(()) };
        // A task may wait that takes a part of a result, when its value is pickled, say.
        let upto = if ended { state.upto } else { state.whole };
        if !ended && upto == state.reported {
            return Ok(());
        }
        let run = *run;
        let done = std::mem::take(state);
        // A result may be published whose task has not ended: a hook of it still runs, and computes.
        let (values, early): (Vec<_>, Vec<_>) = done.values.into_iter().partition(|(index, ..)| *index < upto);
        let (troubles, later): (Vec<_>, Vec<_>) = done.troubles.into_iter().partition(|(index, _)| *index < upto);
        *state = Unreported {
            upto: done.upto,
            whole: upto,
            reported: upto,
            once: done.once && upto < done.upto,
            values: early,
            troubles: later,
            since_ns: done.since_ns,
            ..Unreported::default()
        };
        if ended {
            *unreported = None;
        }
        tracing::trace!(run = run.seq, upto, ended, "what is done is reported");
        let timings = done.timings;
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
