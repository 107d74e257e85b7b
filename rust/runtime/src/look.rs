//! What a user may see of a session, as plain data.

use std::sync::Arc;

use eagleray_core::head::{ActorInfo, Amounts, ObjectInfo, TaskStanding};
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ActorName, Death, Failure};

use crate::shared::{Counters, WorkerInfo};

/// What somebody wants to see beside resources and actors. What is not asked for costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// At most so many tasks.
    pub tasks: u32,
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
    /// How many such tasks there are,
    pub tasks_total: u64,
    /// and how many there were of which nothing is known any more.
    pub tasks_forgotten: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
