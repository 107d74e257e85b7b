//! What a user may see of a session, as plain data.

use std::sync::Arc;

use eagleray_core::head::{ActorInfo, Amounts, ObjectInfo, TaskStanding};
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ActorName, Death, Failure};

use crate::shared::{Counters, WorkerInfo};

/// What somebody wants to see beside resources and actors. What is not asked for costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// At most so many tasks,
    pub tasks: u32,
    /// in these phases: a bit of each, or nothing for all.
    pub phases: u32,
    /// How many tasks there are of each name in each phase.
    pub counts: bool,
    /// At most so many tasks that make actors, or made some that have ended.
    pub makers: u32,
    /// At most so many objects.
    pub objects: u32,
    /// The workers, and what was counted.
    pub workers: bool,
}

/// How things stand at one moment. Amounts are in units of 1 / [`WHOLE`](eagleray_core::message::WHOLE).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What the node offers, by name; its slots are "CPU".
    pub offered: Amounts,
    /// What of that nothing occupies.
    pub free: Amounts,
    /// The actors that can still do something.
    pub actors: Vec<ActorInfo>,
    /// Tasks that have not ended, and those of the last ones that have of which something is known: the graphs that are
    /// known in the order of their ids, then those that are over, the last first.
    pub tasks: Vec<TaskState>,
    /// How many such tasks there are in the phases asked for,
    pub tasks_total: u64,
    /// and how many there were of which nothing is known any more.
    pub tasks_forgotten: u64,
    /// How many tasks there are, in any phase.
    pub counts: Vec<TaskCount>,
    /// Tasks that make actors.
    pub makers: Vec<TaskState>,
    /// How many of these there are,
    pub makers_total: u64,
    /// and were.
    pub makers_forgotten: u64,
    /// Objects that are made, or held.
    pub objects: Vec<ObjectState>,
    /// How many there are.
    pub objects_total: u64,
    /// The workers there are, and the last of those there were.
    pub workers: Vec<WorkerState>,
    /// Bytes of segments that each process may own.
    pub store_bytes: u64,
    /// What was counted since the session began, if workers are asked for.
    pub counters: Counters,
}

/// What the tasks of a graph are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    /// Parts of one computation.
    Computation,
    /// It stands for itself.
    Independent,
    /// It makes an actor.
    Actor,
    /// An actor's worker runs it.
    Call,
}

/// How far a task is, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What it reads is not made, or it is not admitted.
    Waits,
    /// It could run.
    Ready,
    /// A worker has it and has not begun.
    Assigned,
    /// It runs.
    Running,
    /// It runs, and waits for a computation of its own.
    Blocked,
    /// It is done.
    Done,
    /// It will not run any more.
    Failed,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Self; 7] =
        [Self::Waits, Self::Ready, Self::Assigned, Self::Running, Self::Blocked, Self::Done, Self::Failed];

    /// Of a task that stands so, and of which its worker's page may say that it runs.
    pub const fn of(standing: TaskStanding, running: bool, blocked: bool) -> Self {
        match standing {
            TaskStanding::Assigned(_) | TaskStanding::Follows(_) if running && blocked => Self::Blocked,
            TaskStanding::Assigned(_) | TaskStanding::Follows(_) if running => Self::Running,
            TaskStanding::Waits | TaskStanding::Follows(_) => Self::Waits,
            TaskStanding::Ready => Self::Ready,
            TaskStanding::Assigned(_) => Self::Assigned,
            TaskStanding::Deferred(_) => Self::Running,
            TaskStanding::Done => Self::Done,
            TaskStanding::Failed => Self::Failed,
        }
    }

    /// Its bit in [`Look::phases`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// How many tasks of a name and a kind are in a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCount {
    /// What they are called.
    pub name: Arc<str>,
    /// What they are to others of their graph.
    pub kind: TaskKind,
    /// How far they are.
    pub phase: Phase,
    /// How many.
    pub count: u64,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// What it makes.
    pub object: ObjectId,
    /// What tasks of its class are called; empty if that is not known.
    pub name: Arc<str>,
    /// What it is to others of its graph.
    pub kind: TaskKind,
    /// The actor that it calls or makes.
    pub actor: Option<ObjectId>,
    /// The name of the actor that it makes.
    pub actor_name: Option<ActorName>,
    /// The actor that it makes lives until it is killed.
    pub detached: bool,
    /// How it stands.
    pub standing: TaskStanding,
    /// Since when it runs, in ns of the monotonic clock, if its worker says that it does.
    pub running_since: Option<u64>,
    /// It runs, and waits for a computation of its own.
    pub blocked: bool,
    /// How often it was begun.
    pub attempts: u32,
    /// Why it has failed.
    pub failure: Option<Failure>,
    /// What it occupies while it runs.
    pub demand: Amounts,
}

impl TaskState {
    /// How far it is.
    pub fn phase(&self) -> Phase {
        Phase::of(self.standing, self.running_since.is_some(), self.blocked)
    }
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// What the head knows.
    pub info: ObjectInfo,
    /// What tasks of the class that makes it are called; empty if no task does, or that is not known.
    pub name: Arc<str>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// What is counted of it.
    pub info: WorkerInfo,
    /// The actor that it makes or is.
    pub actor: Option<ObjectId>,
    /// What it runs, and since when, in ns of the monotonic clock.
    pub running: Option<(ObjectId, u64)>,
    /// Its task waits for a computation of its own.
    pub blocked: bool,
    /// How many results it keeps as Python objects.
    pub kept: u32,
    /// How its process has ended, if it has.
    pub death: Option<Death>,
}
