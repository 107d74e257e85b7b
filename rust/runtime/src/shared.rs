//! What the driver's threads and the session's loop share.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use eagleray_store::Arena;
use parking_lot::Mutex;

use crate::calls::Batch;
use crate::command::Command;
use crate::history::Timeline;
use crate::look::{Look, Snapshot};
use crate::seat::Seat;

/// Counts since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames between node and workers, both ways.
    pub frames: u64,
    /// How often a thread or process that slept was woken: who runs the session's loop, workers in `read`, waiting drivers.
    pub wakeups: u64,
    /// Runs assigned.
    pub runs: u64,
    /// Tasks done in workers.
    pub tasks: u64,
    /// Results that came inline.
    pub inline: u64,
    /// Results that came sealed.
    pub sealed: u64,
    /// Batches of constants, functions and worker hooks that were pickled and sent to the session.
    pub pickles: u64,
    /// Recalls that brought tasks back.
    pub recalls: u64,
    /// Tasks that balancing took from one worker for another.
    pub moved: u64,
    /// Tasks run again because a worker or a result was lost.
    pub reruns: u64,
    /// Published objects at this moment.
    pub objects: u64,
    /// Bytes of sealed blocks in use at this moment.
    pub sealed_bytes: u64,
}

impl Counters {
    /// Each with its name.
    pub fn by_name(&self) -> [(&'static str, u64); 12] {
        [
            ("frames", self.frames),
            ("wakeups", self.wakeups),
            ("runs", self.runs),
            ("tasks", self.tasks),
            ("inline", self.inline),
            ("sealed", self.sealed),
            ("pickles", self.pickles),
            ("recalls", self.recalls),
            ("moved", self.moved),
            ("reruns", self.reruns),
            ("objects", self.objects),
            ("sealed_bytes", self.sealed_bytes),
        ]
    }

    /// From the values that [`Counters::by_name`] gives, in its order.
    pub(crate) fn from_values(values: [u64; 12]) -> Self {
        let [frames, wakeups, runs, tasks, inline, sealed, pickles, recalls, moved, reruns, objects, sealed_bytes] =
            values;
        Self { frames, wakeups, runs, tasks, inline, sealed, pickles, recalls, moved, reruns, objects, sealed_bytes }
    }
}

/// What a user may see of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number.
    pub id: u32,
    /// Its process; 0 while it is being forked.
    pub pid: u32,
    /// Whether it has said hello.
    pub up: bool,
    /// Whether it has a run.
    pub busy: bool,
    /// Runs it has ended.
    pub runs: u64,
    /// Tasks it has ended.
    pub tasks: u64,
    /// Whether its process still exists.
    pub alive: bool,
}

/// For the session's loop.
#[derive(Debug)]
pub(crate) enum Input {
    Command(Command),
    /// A new segment of the driver's own.
    Segment {
        id: u64,
        size: u64,
        fd: OwnedFd,
    },
    /// There are calls in [`Shared::calls`].
    Calls,
    /// The driver has stopped reading some blocks.
    Unpinned,
    /// Workers shall be new for what comes next.
    Renew,
    /// Somebody wants to see how things stand.
    Inspect(Look, SyncSender<Snapshot>),
    /// Somebody wants to see what ran when.
    Timeline(SyncSender<Option<Timeline>>),
    Stop,
    /// A fault of the loop's.
    #[cfg(test)]
    Panic,
}

impl Input {
    /// Whether nothing follows from it but that something is known or freed: it can be taken in with what comes next.
    pub(crate) fn can_wait(&self) -> bool {
        match self {
            Self::Command(command) => matches!(command, Command::Put(..) | Command::Hold(_) | Command::Release(_)),
            Self::Segment { .. } | Self::Unpinned => true,
            _ => false,
        }
    }
}

/// The session has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It was stopped, or never started.
    #[error("the session has ended")]
    Ended,
    /// The head refused what this driver sent; that is a fault of eagleray.
    #[error("the session refused a message of this driver: {0}")]
    Refused(Arc<str>),
    /// The system did not let it start.
    #[error("the session cannot start: {0}")]
    Start(Arc<str>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Who runs the loop, what is said to it, and what it answers.
    pub(crate) seat: Seat,
    pub(crate) arena: Arena,
    /// Calls that were not taken yet. Whoever sends commands holds this lock, and sends these before.
    pub(crate) calls: Mutex<Option<Batch>>,
    /// Held from sealing to announcing: no location may be told before its segment.
    pub(crate) announcing: Mutex<()>,
    pub(crate) counters: Mutex<Counters>,
    pub(crate) workers: Mutex<Vec<WorkerInfo>>,
}

impl Shared {
    pub(crate) fn new(seat: Seat, arena: Arena) -> Self {
        Self {
            seat,
            arena,
            calls: Mutex::default(),
            announcing: Mutex::default(),
            counters: Mutex::default(),
            workers: Mutex::default(),
        }
    }
}
