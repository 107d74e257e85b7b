//! What the driver role asks for, with the bytes attached that the head does not see; and what it is answered.

use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{ActorName, Failure, GraphSpec};

use crate::look::Look;
use crate::program::{Part, Program, Value};

/// From a driver role, in order.
#[derive(Debug)]
pub enum Command {
    /// A new graph.
    Submit(Box<GraphSpec>, Box<Program>),
    /// More of its program; then tasks at positions below `admit_upto` may run.
    Extend {
        /// The graph.
        graph: GraphId,
        /// What those tasks need.
        part: Part,
        /// The first position that may not run.
        admit_upto: u32,
    },
    /// The value of a task that is not to be run, and the objects that it names.
    Supply(ObjectId, Value, Vec<ObjectId>),
    /// An object put, and the objects that it names.
    Put(ObjectId, Value, Vec<ObjectId>),
    /// First uses.
    Hold(Vec<ObjectId>),
    /// Last uses.
    Release(Vec<ObjectId>),
    /// A question, answered by an [`Answer`].
    Await {
        /// Names it in the answer.
        token: u64,
        /// The objects, without duplicates.
        objects: Vec<ObjectId>,
        /// How many are enough.
        need: u32,
        /// Answer also at the first failure.
        fail_fast: bool,
    },
    /// Withdraws a question; it is answered at once with what is there.
    Forget(u64),
    /// Stops a graph.
    Cancel(GraphId),
    /// Stops one task.
    CancelTask {
        /// The task's object.
        object: ObjectId,
        /// End its worker, should it run.
        force: bool,
        /// Stop what it has submitted, too.
        recursive: bool,
    },
    /// Ends an actor.
    KillActor {
        /// Its object.
        actor: ObjectId,
        /// It may be made again, if it has restarts left.
        restart: bool,
    },
    /// Looks for an actor. Answered by an [`Answer`] without objects, or with the actor's object, which the peer holds
    /// once more, and as its value what the [`Program`] that made it says of it.
    FindActor {
        /// Names the question in the answer.
        token: u64,
        /// Whom it looks for.
        name: ActorName,
    },
    /// The next part of what a task makes bit by bit that runs in this worker.
    Yield {
        /// The task's object.
        stream: ObjectId,
        /// How many parts came before.
        index: u32,
        /// The part.
        part: ObjectId,
    },
    /// Asks for such a part. Answered by an [`Answer`] with it, which the peer holds once more, or without, when there are
    /// no more.
    Next {
        /// Names the question in the answer.
        token: u64,
        /// The task's object.
        stream: ObjectId,
        /// How many parts come before. Those are let go of.
        index: u32,
        /// Whether the part counts as taken, not only looked for.
        take: bool,
    },
    /// Asks for an empty [`Answer`], once so many parts of what a task makes bit by bit were given to who asked for them, or
    /// nobody can ask any more.
    Ahead {
        /// Names the question in the answer.
        token: u64,
        /// The task's object.
        stream: ObjectId,
        /// How many parts.
        taken: u32,
    },
    /// Asks how things stand. Answered by an [`Answer`] with one value, for [`Client::inspect`] to read.
    ///
    /// [`Client::inspect`]: crate::client::Client::inspect
    Inspect {
        /// Names the question in the answer.
        token: u64,
        /// What is asked for.
        look: Look,
    },
}

/// The answer to [`Command::Await`]: each object that is there or has failed, in the order of the question.
pub type Ended = Vec<(ObjectId, Result<Value, Failure>)>;

/// An answer and its question.
#[derive(Debug)]
pub struct Answer {
    /// The question's token.
    pub token: u64,
    /// What is there.
    pub ended: Ended,
}
