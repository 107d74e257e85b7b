//! What the driver role asks for, with the bytes attached that the head does not see; and what it is answered.

use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{Failure, GraphSpec};

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
    /// The value of a task that is not to be run.
    Supply(ObjectId, Value),
    /// An object put.
    Put(ObjectId, Value),
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
