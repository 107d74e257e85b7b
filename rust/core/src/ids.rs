//! Ids. Dense numbers, never strings: the user's keys stay with the driver.

/// A process that plays the driver's role: the user's program, or a worker that computes from inside a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The user's program.
    pub const USER: Self = Self(0);

    /// The driver role inside a worker.
    pub const fn of_worker(worker: WorkerId) -> Self {
        Self(worker.0 + 1)
    }

    /// The worker behind this peer, if it is one.
    pub const fn worker(self) -> Option<WorkerId> {
        match self.0 {
            0 => None,
            n => Some(WorkerId(n - 1)),
        }
    }
}

/// A worker process. Numbers are not used again within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// A submitted graph. The submitting peer numbers its own, so that submitting needs no round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GraphId {
    /// Who submitted it.
    pub peer: PeerId,
    /// Its number there, from 1 on. Number 0 is not a graph: it is the namespace of the objects this peer put.
    pub seq: u32,
}

impl GraphId {
    /// The namespace of the objects that a peer put.
    pub const fn puts(peer: PeerId) -> Self {
        Self { peer, seq: 0 }
    }

    /// As one number, for the wire.
    pub const fn to_u64(self) -> u64 {
        ((self.peer.0 as u64) << 32) | self.seq as u64
    }

    /// From [`GraphId::to_u64`].
    pub const fn from_u64(n: u64) -> Self {
        Self { peer: PeerId((n >> 32) as u32), seq: n as u32 }
    }
}

/// An object: the output of task `index` of a graph, or the `index`-th object that a peer put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// The graph whose task makes it.
    pub graph: GraphId,
    /// The task's index in that graph.
    pub index: u32,
}

impl ObjectId {
    /// Among the objects that a peer put, those from here on were put for a graph: constants that are too large for it.
    pub const LITERALS: u32 = 1 << 31;

    /// Whether it was put for a graph.
    pub const fn is_literal(self) -> bool {
        self.graph.seq == 0 && self.index >= Self::LITERALS
    }
}

/// A run, by its worker and its number there. Numbers of one worker grow by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// The worker it is assigned to.
    pub worker: WorkerId,
    /// Its number on that worker, from 0 on.
    pub seq: u32,
}
