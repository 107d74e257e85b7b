//! The vocabulary between driver, head and node.
//!
//! These types are not what goes over a wire: `eagleray-runtime` has twins of its own for that, so that a change of the
//! wire format is no change of the scheduler, and the simulator needs no encoding. Values and programs are not here
//! either: the head speaks of objects and tasks by number, the runtime attaches bytes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::graph::Csr;
use crate::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};

/// Bytes that nobody in this crate looks into.
pub type Opaque = Arc<[u8]>;

/// Tasks of equal needs and of probably equal duration: one (key prefix, function, inner functions, annotations).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// The same for the same class in every graph of the session. What was measured is remembered under it.
    pub fingerprint: u64,
    /// How often a task is run again when its worker died. [`u8::MAX`] is for ever.
    pub max_retries: u8,
    /// How often a task is run again when it raised. [`u16::MAX`] is for ever.
    pub retries: u16,
    /// What a task occupies while it runs: 0 for one CPU and nothing else, `n` for `demands[n - 1]` of its graph.
    pub demand: u32,
    /// A task takes a part of the one result that it reads, which is not for anybody else. It is run with the task that makes
    /// that, whatever it demands, and what they make is there together or not at all.
    pub part: bool,
}

/// One whole unit of a resource: amounts are counted in ten-thousandths, so that fractions add up exactly.
pub const WHOLE: u64 = 10_000;

/// The resource of which a run can be given numbered devices.
pub const GPU: &str = "GPU";

/// What a task occupies while it runs, in units of 1 / [`WHOLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Of a slot. A task that waits for a computation of its own gives this back meanwhile, and nothing else.
    pub cpu: u64,
    /// Of other resources, by name, each once. Their names are the strings the user knows them by.
    pub others: Vec<(Arc<str>, u64)>,
}

/// A graph as the head needs it.
#[derive(Clone, Debug)]
pub struct GraphSpec {
    /// Its id, chosen by the peer that submits it.
    pub id: GraphId,
    /// Row `i`: the inputs of task `i`, without duplicates. A number `n < len` is task `n`; `len + k` is
    /// `externals[k]`.
    pub inputs: Csr,
    /// Objects from outside this graph.
    pub externals: Vec<ObjectId>,
    /// Row-wise: the position of each task in the order. A permutation, and a topological order.
    pub position: Vec<u32>,
    /// The class of each task, as an index into `classes`.
    pub class: Vec<u32>,
    /// The classes.
    pub classes: Vec<ClassSpec>,
    /// What classes demand that need not just one CPU.
    pub demands: Vec<Demand>,
    /// Graphs of higher priority are served first. What a task submits has its graph's priority instead.
    pub priority: i32,
    /// The tasks whose objects the submitting peer holds from the beginning (as if [`ToHead::Hold`] named them).
    pub outputs: Vec<u32>,
    /// What its tasks are to each other.
    pub kind: GraphKind,
    /// Objects that are named inside its constants and functions: held until the graph is over.
    pub contained: Vec<ObjectId>,
}

/// What the tasks of a graph are to each other. See [`GraphSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphKind {
    /// Parts of one computation: the first failure ends it, and so does the release of all its results.
    Computation,
    /// Each stands for itself: a failure takes only those along that read the result, and a task runs though nobody
    /// holds what it makes.
    Independent,
    /// The only task makes an actor: its worker is the actor's from then on, as long as the task's object is held.
    Actor(Box<ActorSpec>),
    /// Calls of the actor whose object is the first external, and the first input of each. Those of one peer run in
    /// the order in which they were submitted. They stand for themselves.
    Calls,
}

/// The name of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorName {
    /// Names in different namespaces have nothing to do with each other.
    pub namespace: Arc<str>,
    /// What it is called there.
    pub name: Arc<str>,
}

/// An actor as the head needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorSpec {
    /// How others find it.
    pub name: Option<ActorName>,
    /// It lives until it is killed, though nobody holds it.
    pub detached: bool,
    /// How often it is made again when its worker has died. [`u32::MAX`] is for ever.
    pub max_restarts: u32,
    /// What it has of a slot while it lives, in units of 1 / [`WHOLE`]. While it is being made it has what its class
    /// demands, and of other resources it keeps that.
    pub cpu: u64,
}

/// Where the bytes of a published object are. The runtime's table has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In messages and the node's table.
    Inline {
        /// Pickled size in bytes.
        len: u64,
    },
    /// In a shared segment.
    Sealed {
        /// Size of its block in bytes.
        len: u64,
    },
}

impl Place {
    /// Bytes it takes.
    pub const fn len(self) -> u64 {
        match self {
            Self::Inline { len } | Self::Sealed { len } => len,
        }
    }

    /// Whether it takes none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The end of a worker's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// How it ended.
    pub end: End,
    /// The process; 0 if there was none.
    pub pid: u32,
    /// The most memory it had, in bytes; 0 if that is not known.
    pub peak_bytes: u64,
}

impl From<End> for Death {
    /// Of a process of which nothing else is known.
    fn from(end: End) -> Self {
        Self { end, pid: 0, peak_bytes: 0 }
    }
}

/// How a process ended. See [`Death`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It sent what does not fit and was stopped.
    Protocol(Arc<str>),
    /// It never came up.
    NeverStarted(Arc<str>),
}

/// Why an object will not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The object whose task failed; others fail because of it.
    pub origin: ObjectId,
    /// What happened.
    pub kind: FailureKind,
}

/// See [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The task raised, as often as it may.
    Raised {
        /// What the worker reported of the last exception.
        error: Opaque,
        /// How many attempts there were.
        attempts: u32,
    },
    /// Its worker died under it, more often than it may be retried.
    WorkerDied {
        /// The last death.
        death: Death,
        /// How many attempts there were.
        attempts: u32,
    },
    /// The graph was cancelled.
    Cancelled,
    /// The object was released, or its only copy is lost and nothing can make it again.
    Lost,
    /// No worker can be started.
    NoWorkers(Death),
    /// Computing inside tasks inside tasks: so deep that there could not be a worker for it.
    TooDeep {
        /// How deep: 0 is the user's program.
        depth: u32,
        /// The first depth that is too deep.
        most: u32,
    },
    /// The task asks for more of a resource than it can ever get.
    Infeasible(Box<Shortage>),
    /// The actor is dead, and what it was to do is not done.
    ActorDied(Box<ActorDeath>),
}

/// Why there is no actor any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorDeath {
    /// How it ended.
    pub end: ActorEnd,
    /// How often it had been made again.
    pub restarts: u32,
}

/// See [`ActorDeath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorEnd {
    /// Its making raised.
    Init {
        /// What the worker reported of the exception.
        error: Opaque,
    },
    /// Its worker's process ended.
    Died(Death),
    /// Somebody killed it.
    Killed,
    /// It has ended itself.
    Exited,
    /// Nobody held it any more.
    Released,
    /// It was never made: another actor has its name.
    NameTaken,
}

/// What there is too little of. Amounts are in units of 1 / [`WHOLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The resource.
    pub resource: Arc<str>,
    /// What the task asks for.
    pub asked: u64,
    /// What the node offers.
    pub offered: u64,
    /// Of that, what tasks have that cannot go on before this one has run.
    pub held: u64,
}

/// From a driver to the head.
#[derive(Clone, Debug)]
pub enum ToHead {
    /// A new graph. None of its tasks may be assigned before [`ToHead::Admit`].
    Submit(Box<GraphSpec>),
    /// Tasks at positions below `upto` may be assigned: what they need has been sent.
    Admit {
        /// The graph.
        graph: GraphId,
        /// The first position that may not.
        upto: u32,
    },
    /// The driver supplies the value of an unadmitted task itself; it is not run.
    Supply {
        /// The task's object.
        object: ObjectId,
        /// Where its bytes are.
        place: Place,
        /// Objects that the value names: held as long as it exists.
        contained: Vec<ObjectId>,
    },
    /// The driver put an object, and holds it.
    Put {
        /// Its id, in [`GraphId::puts`].
        object: ObjectId,
        /// Where its bytes are.
        place: Place,
        /// Objects that the value names: held as long as it exists.
        contained: Vec<ObjectId>,
    },
    /// First uses: this peer now holds these objects.
    Hold(Vec<ObjectId>),
    /// Last uses: it holds them no more.
    Release(Vec<ObjectId>),
    /// Asks for an [`ToDriver::Awaited`] once `need` of the objects are ready, or one has failed.
    Await {
        /// Names the question in the answer.
        token: u64,
        /// The objects, without duplicates.
        objects: Vec<ObjectId>,
        /// How many are enough.
        need: u32,
        /// Answer also when the first has failed, though fewer than `need` are ready.
        fail_fast: bool,
    },
    /// Withdraws a question. It is answered at once with what is ready.
    Forget {
        /// Its token.
        token: u64,
    },
    /// Stops a graph: what has not started never will.
    Cancel {
        /// The graph.
        graph: GraphId,
    },
    /// Stops one task, of whatever peer. Of a task of a [`GraphKind::Computation`] the whole graph is stopped.
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
    /// Asks for a [`ToDriver::Found`]. An actor that is found is held once more by the peer.
    FindActor {
        /// Names the question in the answer.
        token: u64,
        /// Whom it looks for.
        name: ActorName,
    },
    /// A task that runs in the peer has made the next part of what it makes bit by bit. It is held until the task's object is
    /// let go.
    Yield {
        /// The task's object.
        stream: ObjectId,
        /// How many parts came before. One that is there already, from an earlier attempt, stays.
        index: u32,
        /// The part.
        part: ObjectId,
    },
    /// Asks for a [`ToDriver::Found`] with a part of what a task makes bit by bit, once there is one, or with none, once the
    /// task has ended without. The peer holds the part once more.
    Next {
        /// Names the question in the answer.
        token: u64,
        /// The task's object.
        stream: ObjectId,
        /// How many parts come before. Those are let go of: had, or not wanted.
        index: u32,
    },
    /// Asks for a [`ToDriver::Found`] with none, once so many parts were given to who asked for them, or nobody can ask any
    /// more: who makes them waits for this so as not to be too far ahead.
    Ahead {
        /// Names the question in the answer.
        token: u64,
        /// The task's object.
        stream: ObjectId,
        /// How many parts.
        taken: u32,
    },
    /// The peer is gone: its graphs are cancelled, what it holds is released.
    Bye,
}

/// From the head to a driver.
#[derive(Clone, Debug)]
pub enum ToDriver {
    /// The answer to [`ToHead::Await`].
    Awaited {
        /// The question's token.
        token: u64,
        /// Each object that is ready or failed, in the order of the question.
        ended: Vec<(ObjectId, Result<Place, Failure>)>,
    },
    /// The answer to [`ToHead::FindActor`], [`ToHead::Next`] and [`ToHead::Ahead`].
    Found {
        /// The question's token.
        token: u64,
        /// The object, which the peer holds once more, if there is one.
        object: Option<ObjectId>,
    },
    /// A message did not fit. The peer is closed.
    Refused(Refusal),
}

/// Why a peer's message does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A graph that contradicts itself.
    #[error("graph is malformed: {0}")]
    MalformedGraph(&'static str),
    /// An id that was never given out, or to another peer.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// A report about a run that the worker does not have.
    #[error("report does not fit its run: {0}")]
    Report(&'static str),
}

/// What a worker does with a task's result. Bits of a byte.
pub mod output {
    /// It stays in the worker until the head says drop.
    pub const KEEP: u8 = 1;
    /// It is encoded before the next task starts, and reported.
    pub const PUBLISH: u8 = 2;
    /// Publishing seals it, however small it is.
    pub const SEAL: u8 = 4;
    /// Its task comes back only with the one before it in the run, and is reported with that.
    pub const WITH_LAST: u8 = 8;
    /// It is reported before a task begins that is not [with](WITH_LAST) it: its task is not to run twice.
    pub const ONCE: u8 = 16;

    /// The first place from this one on where a run may be divided, given the outputs of its tasks.
    pub fn divide(outputs: &[u8], from: u32) -> u32 {
        let joined =
            outputs.get(from as usize..).unwrap_or_default().iter().take_while(|flags| *flags & WITH_LAST != 0);
        from + joined.count() as u32
    }

    /// The task with which one comes that comes with others.
    pub fn begin(outputs: &[u8], index: u32) -> u32 {
        let before = outputs.get(..=index as usize).unwrap_or_default().iter().rev();
        index - (before.take_while(|flags| *flags & WITH_LAST != 0).count() as u32).min(index)
    }
}

/// A run to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its worker and number.
    pub id: RunId,
    /// The graph all its tasks are of.
    pub graph: GraphId,
    /// The tasks, in the order of execution.
    pub tasks: Vec<u32>,
    /// For each, bits of [`output`].
    pub outputs: Vec<u8>,
    /// Published objects that the run reads and the worker does not keep.
    pub inputs: Vec<ObjectId>,
    /// The GPUs that it has to itself, or its share of one.
    pub gpus: Vec<u32>,
}

/// From the head to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToNode {
    /// Execute a run.
    Assign(Run),
    /// Take back the tasks of a run from `from` on that have not started. Answered by [`FromNode::Recalled`].
    Recall {
        /// The run.
        run: RunId,
        /// The first task wanted back.
        from: u32,
    },
    /// The worker shall publish results it keeps. Each is answered by [`FromNode::Published`].
    Publish {
        /// The worker.
        worker: WorkerId,
        /// The results.
        objects: Vec<ObjectId>,
        /// Seal them, however small.
        seal: bool,
    },
    /// The worker may drop results it keeps.
    Drop {
        /// The worker.
        worker: WorkerId,
        /// The results.
        objects: Vec<ObjectId>,
    },
    /// Nobody needs these published objects any more.
    Free(Vec<ObjectId>),
    /// A graph has ended; what was kept for its tasks may go.
    Forget(GraphId),
    /// How many workers there should be. The node starts what is missing; the head names those to stop.
    Want(u32),
    /// Stop an idle worker.
    Stop(WorkerId),
    /// End a worker that does not come back from a cancelled task.
    Kill(WorkerId),
    /// Say how far the worker is. Answered by [`FromNode::Sampled`].
    Sample(WorkerId),
    /// Interrupt a task, if it is the one that runs.
    Interrupt {
        /// The run.
        run: RunId,
        /// Its place there.
        index: u32,
    },
    /// Interrupt a task that the worker has [deferred](Trouble::Deferred).
    CancelDeferred {
        /// The worker.
        worker: WorkerId,
        /// The task's object.
        object: ObjectId,
    },
}

/// What became of a task that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It raised, and the worker encoded the exception.
    Raised(Opaque),
    /// The same, and it shall be run again if its class still may. What it read as a Python object the worker has dropped:
    /// the task may have changed it.
    Retry(Opaque),
    /// An input of it, made in the same run, failed.
    Skipped,
    /// These inputs were not there. The task did not start.
    InputNotHere(Vec<ObjectId>),
    /// It ended well, and its result, which was to be published, cannot be encoded: the worker keeps it for tasks that run
    /// there. The encoded exception is for the case that others need it.
    Unsendable(Opaque),
    /// It has begun something that goes on; its end is told by [`FromNode::Completed`].
    Deferred,
    /// It was interrupted.
    Cancelled,
}

/// Measured: tasks of one class in one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Index into the graph's classes.
    pub class: u32,
    /// How many tasks.
    pub count: u32,
    /// Their time together.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The size of their results together, as far as it is known cheaply.
    pub total_bytes: u64,
}

/// Progress of a run. Reports of one run come in order; those of several runs of a worker too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// Tasks before this place have ended, well unless `troubles` says otherwise. Never falls.
    pub upto: u32,
    /// The worker is done with the run. What it never claimed was recalled.
    pub ended: bool,
    /// Tasks among those newly ended that did not end well, by place.
    pub troubles: Vec<(u32, Trouble)>,
    /// Results newly published, by place.
    pub published: Vec<(u32, Place)>,
    /// Objects that those results name, by place, for those that name any.
    pub contained: Vec<(u32, Vec<ObjectId>)>,
    /// Durations of the tasks newly ended.
    pub timings: Vec<Timing>,
}

/// From a node to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromNode {
    /// A worker is ready.
    WorkerUp(WorkerId),
    /// A worker's process has ended.
    WorkerDown {
        /// The worker.
        worker: WorkerId,
        /// How.
        death: Death,
        /// The task that ran, as its control page says: run number and place.
        running: Option<(u32, u32)>,
    },
    /// A worker's report.
    Report(Report),
    /// The tasks of a run from `limit` on came back.
    Recalled {
        /// The run.
        run: RunId,
        /// The first that came back.
        limit: u32,
    },
    /// The answer to [`ToNode::Publish`] for one object; `None` if the worker does not have it.
    Published {
        /// The worker.
        worker: WorkerId,
        /// The object.
        object: ObjectId,
        /// Where it is now.
        place: Option<Place>,
        /// Objects that it names.
        contained: Vec<ObjectId>,
    },
    /// A task that was [deferred](Trouble::Deferred) has ended.
    Completed {
        /// The worker.
        worker: WorkerId,
        /// The task's object.
        object: ObjectId,
        /// Where the result is and which objects it names, or what went wrong: it raised, or was interrupted.
        outcome: Result<(Place, Vec<ObjectId>), Trouble>,
    },
    /// The answer to [`ToNode::Sample`].
    Sampled {
        /// The worker.
        worker: WorkerId,
        /// How many tasks of each run in flight are claimed, oldest run first.
        claimed: Vec<(u32, u32)>,
        /// For how long the present task has been running.
        running_ns: Option<u64>,
    },
    /// Workers cannot be started, for this reason, repeatedly.
    CannotStart(Death),
}

/// A message of a driver, with its sender.
#[derive(Clone, Debug)]
pub struct FromDriver {
    /// Who sent it.
    pub peer: PeerId,
    /// What it says.
    pub message: ToHead,
}
