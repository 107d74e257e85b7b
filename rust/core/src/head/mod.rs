//! The head: which task runs where.
//!
//! A pure state machine. Events go in through [`Head::handle`], [`Head::schedule`] is called once after what was queued
//! has been handled, and effects are drained from the outbox. Messages that do not fit are answered with a refusal and
//! never believed; the head's own invariants are asserted (see [`Head::check`]).
//!
//! What is where: `graph` has the tables of one graph, `assign` cuts runs from the `ready` frontier, `report` takes in
//! what workers did, `hold` knows who needs which object and `wait` who waits for it, `balance` moves work from busy
//! workers to idle ones and serves tasks that block, `recover` handles failures. `special` are the tasks that demand more
//! than a CPU, `resources` what they demand, and `stuck` those of them that will never get it. `stall` sees to it that
//! blocked tasks keep nobody from starting for whom they may wait. `independent` are tasks that stand for themselves,
//! `actors` the objects that have a worker to themselves, `calls` what is asked of them, and `streams` what tasks make
//! bit by bit. `look` is what a user may see.

mod actors;
mod assign;
mod balance;
mod calls;
mod check;
mod estimate;
mod graph;
mod hold;
mod independent;
mod look;
mod positions;
mod ready;
mod recover;
mod report;
mod resources;
mod special;
mod stall;
mod streams;
mod stuck;
mod wait;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use self::actors::Actor;
use self::estimate::Estimates;
use self::graph::Graph;
use self::ready::Ready;
use self::resources::{Holding, Resources};
use self::streams::Stream;
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{ActorName, Failure, FromDriver, FromNode, Place, Refusal, Run, ToDriver, ToNode, WHOLE};

pub use self::actors::ActorInfo;
pub use self::check::Violation;
pub use self::look::{Edges, EndedGraph, GraphView, ObjectInfo, TaskStanding, TaskView, Whereabouts, WorkerView};

/// Amounts of resources by name, in units of 1 / [`WHOLE`].
pub type Amounts = Vec<(Arc<str>, u64)>;

type FxMap<K, V> = HashMap<K, V, FxBuildHasher>;

/// How results are kept between runs. The forced modes exist for tests: all three give the same answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultsMode {
    /// Published if somebody outside the run needs them.
    #[default]
    Auto,
    /// Kept in the worker until another process asks.
    Resident,
    /// Sealed in shared memory, all of them.
    Sealed,
}

/// Settings of a head.
#[derive(Clone, Debug)]
pub struct HeadConfig {
    /// How many tasks run at a time.
    pub slots: u32,
    /// How results are kept.
    pub results: ResultsMode,
    /// The longest run, in tasks.
    pub max_run: u32,
    /// What a run should last, in ns.
    pub run_ns: u64,
    /// Work worth less than this, in ns, is not spread to a second worker.
    pub spread_ns: u64,
    /// How long a cancelled task may go on before its worker is killed, in ns.
    pub grace_ns: u64,
    /// How long a worker beyond the slots may idle before it is stopped, in ns.
    pub idle_ns: u64,
    /// Workers there may ever be at once, those of actors not counted. A graph nested so deep that there might be none for it
    /// fails: three quarters of them serve depths with as many as there are slots each, the others a depth each.
    pub max_workers: u32,
    /// What the node offers beside its slots, by name, in units of 1 / [`WHOLE`]. Of what is not named there is none.
    pub offers: Vec<(Arc<str>, u64)>,
    /// A task that finds too little of a resource is passed by others for so long, in ns; then they make room for it.
    pub patience_ns: u64,
    /// Keep graphs that are over for [`Head::take_ended`].
    pub keeps_ended: bool,
}

impl HeadConfig {
    /// The defaults for a number of slots.
    pub const fn new(slots: u32) -> Self {
        Self {
            slots,
            results: ResultsMode::Auto,
            max_run: 65_536,
            run_ns: 5_000_000,
            spread_ns: 200_000,
            grace_ns: 1_000_000_000,
            idle_ns: 2_000_000_000,
            max_workers: if slots < 64 { 256 } else { slots * 4 },
            offers: Vec::new(),
            patience_ns: 100_000_000,
            keeps_ended: false,
        }
    }
}

/// What the head is told.
#[derive(Clone, Debug)]
pub enum HeadEvent {
    /// A driver's message.
    Driver(FromDriver),
    /// The node's message.
    Node(FromNode),
    /// The time of [`Head::next_deadline`] has come.
    Tick,
}

/// What the head wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// For the node.
    ToNode(ToNode),
    /// For a driver.
    ToDriver {
        /// Which.
        peer: PeerId,
        /// What.
        message: ToDriver,
    },
}

/// Counts of what the head did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadCounters {
    /// Runs assigned.
    pub runs: u64,
    /// Tasks done in workers.
    pub tasks: u64,
    /// Recalls that brought tasks back.
    pub recalls: u64,
    /// Tasks that balancing took from one worker to give them to another.
    pub moved: u64,
    /// Tasks run again because they raised and are retried, or because a worker or a result was lost.
    pub reruns: u64,
    /// Graphs looked at for something to assign, or for how many workers they need.
    pub looks: u64,
}

/// A run in flight.
#[derive(Debug)]
struct Flight {
    seq: u32,
    graph: GraphId,
    /// Of all its tasks.
    demand: u32,
    /// Nesting of the graph when the run was cut.
    depth: u32,
    cut: u32,
    tasks: Vec<u32>,
    outputs: Vec<u8>,
    /// Tasks from here on were recalled.
    limit: u32,
    /// Tasks before are reported.
    upto: u32,
    /// Results of this run that the worker keeps because a consumer was taken back.
    kept: Vec<u32>,
    /// Results of this run that the worker has dropped because a task that read them will run again.
    spoilt: Vec<u32>,
    /// Tasks of this run of which the worker still keeps a result of an earlier one, which nobody is to read.
    stale: Vec<u32>,
    /// Places of tasks that did not end well, ascending.
    troubled: Vec<u32>,
    /// Tasks of unknown duration in it, of which nothing is reported yet.
    unknown: bool,
    /// A recall for balancing is under way.
    moving: bool,
    /// Calls of an actor were recalled: until it is known what came back, the actor is given no others.
    recalled: bool,
}

#[derive(Debug, Default)]
struct Worker {
    next_seq: u32,
    flights: VecDeque<Flight>,
    /// Questions of its driver role that are not answered. Its task is blocked while there are any.
    waits: u32,
    /// How many of them are of who makes parts, and is ahead.
    ahead: u32,
    /// It does not count in its depth as long as its task is blocked: see `stall`.
    aside: bool,
    /// Results it keeps beyond their run.
    kept: BTreeSet<ObjectId>,
    /// When to ask how far it is.
    sample_at: Option<u64>,
    /// The pause before the next sample.
    sample_every: u64,
    /// A cancelled task has until then.
    kill_at: Option<u64>,
    /// What its run has, if that demands more or less than a CPU: then it is its only run. An actor has it for life.
    holding: Option<Holding>,
    stopping: bool,
    /// It is an actor that somebody has killed so that it is made again.
    killed: bool,
    role: Role,
    /// Tasks whose runs are over and that go on all the same.
    deferred: BTreeSet<ObjectId>,
}

/// What a worker is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    /// Any task.
    #[default]
    Pool,
    /// It makes an actor.
    Making(ObjectId),
    /// It is an actor's, and runs its calls.
    Actor(ObjectId),
}

impl Worker {
    /// What it occupies of the slots.
    fn cpu(&self) -> u64 {
        if self.blocked() {
            return 0;
        }
        let plain = if self.busy() && self.of_pool() { WHOLE } else { 0 };
        self.holding.as_ref().map_or(plain, |holding| holding.need.cpu)
    }

    /// For how much of a worker of its depth it counts: a task that asks for several CPUs still occupies one.
    fn weight(&self) -> u64 {
        self.holding.as_ref().map_or(WHOLE, |holding| holding.need.cpu.min(WHOLE))
    }

    /// Whether any task may run there.
    fn of_pool(&self) -> bool {
        self.role == Role::Pool
    }

    fn busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Nesting of what it runs, if it runs something.
    fn depth(&self) -> Option<u32> {
        self.flights.front().map(|flight| flight.depth)
    }

    fn blocked(&self) -> bool {
        self.waits > 0
    }

    /// Whether it waits for nothing but that what it has made is taken. Who is to take it may be of the same depth, so it
    /// occupies nothing of that.
    fn is_ahead(&self) -> bool {
        self.ahead > 0 && self.ahead == self.waits
    }

    /// Whether it waits and occupies nothing of its depth.
    fn makes_room(&self) -> bool {
        self.is_ahead() || (self.aside && self.blocked())
    }

    /// One of its questions is answered or withdrawn.
    fn answered(&mut self) {
        self.waits -= 1;
        self.aside &= self.blocked();
    }

    fn idle(&self) -> bool {
        self.flights.is_empty() && self.waits == 0 && !self.stopping && self.of_pool()
    }
}

#[derive(Debug)]
struct PutObject {
    place: Place,
    holders: u32,
}

/// Who wants to know when an object is published or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Wait(u64),
    Graph(GraphId, u32),
}

#[derive(Debug)]
struct Wait {
    peer: PeerId,
    token: u64,
    objects: Vec<ObjectId>,
    need: u32,
    /// How many of them are published or have failed.
    ended: u32,
    fail_fast: bool,
}

#[derive(Debug, Default)]
struct Peer {
    holds: FxMap<ObjectId, u32>,
    graphs: BTreeSet<GraphId>,
}

/// The order in which graphs are served: user priority, submission of the outermost graph, then the innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: Reverse<i32>,
    /// When the graph was submitted of which a task submitted this one.
    root: u64,
    depth: Reverse<u32>,
    submitted: u64,
}

/// What kind of demands a graph has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asks {
    /// Some beside a CPU.
    special: bool,
    /// Less than a CPU in one of them.
    light: bool,
}

/// The head. See the module.
#[derive(Debug)]
pub struct Head {
    config: HeadConfig,
    graphs: BTreeMap<GraphId, Graph>,
    /// Running graphs in the order in which they are served.
    queue: BTreeMap<Rank, GraphId>,
    /// Of those, all that have tasks to assign.
    ready: Ready,
    /// When to look whether a graph is worth spreading.
    spreads: BTreeSet<(u64, GraphId)>,
    puts: FxMap<ObjectId, PutObject>,
    workers: BTreeMap<WorkerId, Worker>,
    peers: BTreeMap<PeerId, Peer>,
    waits: BTreeMap<u64, Wait>,
    next_wait: u64,
    watchers: FxMap<ObjectId, Vec<Watcher>>,
    estimates: Estimates,
    resources: Resources,
    actors: BTreeMap<ObjectId, Actor>,
    names: BTreeMap<ActorName, ObjectId>,
    /// Actors of which a call may be able to start since it was last looked.
    stirred: BTreeSet<ObjectId>,
    /// Actors that were being made when their last holder let go, since it was last looked.
    unheld: Vec<ObjectId>,
    /// What published values name, each held by its value.
    contents: FxMap<ObjectId, Vec<ObjectId>>,
    /// What values named, or graphs read or named, that are gone: not let go yet.
    loose: Vec<ObjectId>,
    /// Inputs of graphs that will never be there, by number. The graphs have not heard it yet.
    broken: Vec<(GraphId, u32, Failure)>,
    /// By the object of the task that makes them.
    streams: FxMap<ObjectId, Stream>,
    /// Graphs that are over and were not taken.
    ended: look::Ended,
    submitted: u64,
    /// Tasks that lack nothing but a worker, because those that run ask for less than a CPU each.
    short: u32,
    wanted: u32,
    retire_at: Option<u64>,
    /// When a blocked task is set aside, if nothing goes on until then.
    stall_at: Option<u64>,
    counters: HeadCounters,
    out: Vec<Effect>,
}

impl Head {
    /// A head without workers. It asks the node for as many as there are slots.
    pub fn new(config: HeadConfig) -> Self {
        let wanted = config.slots;
        Self {
            resources: Resources::new(&config.offers),
            config,
            graphs: BTreeMap::new(),
            queue: BTreeMap::new(),
            ready: Ready::default(),
            spreads: BTreeSet::new(),
            puts: FxMap::default(),
            workers: BTreeMap::new(),
            peers: BTreeMap::new(),
            waits: BTreeMap::new(),
            next_wait: 0,
            watchers: FxMap::default(),
            estimates: Estimates::default(),
            actors: BTreeMap::new(),
            names: BTreeMap::new(),
            stirred: BTreeSet::new(),
            unheld: Vec::new(),
            contents: FxMap::default(),
            loose: Vec::new(),
            broken: Vec::new(),
            streams: FxMap::default(),
            ended: look::Ended::default(),
            submitted: 0,
            short: 0,
            wanted,
            retire_at: None,
            stall_at: None,
            counters: HeadCounters::default(),
            out: Vec::from([Effect::ToNode(ToNode::Want(wanted))]),
        }
    }

    /// Takes one event in. Effects are in the outbox afterwards; nothing is assigned before [`Head::schedule`].
    pub fn handle(&mut self, now_ns: u64, event: HeadEvent) {
        match event {
            HeadEvent::Driver(FromDriver { peer, message }) => {
                // What a worker still said before its death was let go with it.
                if peer.worker().is_some_and(|worker| !self.workers.contains_key(&worker)) {
                    return;
                }
                if let Err(refusal) = self.on_driver(now_ns, peer, message) {
                    self.to_driver(peer, ToDriver::Refused(refusal));
                }
            }
            HeadEvent::Node(message) => self.on_node(now_ns, message),
            HeadEvent::Tick => self.on_tick(now_ns),
        }
        self.follow_up();
    }

    /// Carries on what goes from graph to graph: failures to who reads what has failed, and the end to what a graph or a
    /// value alone held. Chains of them are long, so it is done here one after the other, at the end of an event.
    fn follow_up(&mut self) {
        loop {
            for (id, k, failure) in core::mem::take(&mut self.broken) {
                self.external_failed(id, k, &failure);
            }
            if self.broken.is_empty() {
                if self.loose.is_empty() {
                    return;
                }
                let mut objects = core::mem::take(&mut self.loose);
                objects.sort_unstable();
                self.drop_holders(&objects);
            }
        }
    }

    fn on_node(&mut self, now: u64, message: FromNode) {
        match message {
            FromNode::WorkerUp(worker) => {
                self.workers.entry(worker).or_default();
            }
            FromNode::WorkerDown { worker, death, running } => self.on_worker_down(now, worker, &death, running),
            FromNode::Report(report) => self.on_report(report),
            FromNode::Recalled { run, limit } => self.on_recalled(now, run, limit),
            FromNode::Published { worker, object, place, contained } => {
                self.on_published(worker, object, place);
                self.hold_contents(object, contained);
            }
            FromNode::Completed { worker, object, outcome } => self.on_completed(worker, object, outcome),
            FromNode::Sampled { worker, claimed, running_ns } => self.on_sampled(worker, &claimed, running_ns),
            FromNode::CannotStart(death) => self.on_cannot_start(&death),
        }
    }

    /// Takes the effects out.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.out.drain(..)
    }

    /// Whether there is nothing to do and nothing to keep: no graph, no object that was put, no question.
    pub fn is_idle(&self) -> bool {
        let unused = |w: &Worker| w.flights.is_empty() && w.kept.is_empty() && w.waits == 0;
        self.graphs.is_empty()
            && self.queue.is_empty()
            && self.puts.is_empty()
            && self.waits.is_empty()
            && self.watchers.is_empty()
            && self.actors.is_empty()
            && self.contents.is_empty()
            && self.streams.is_empty()
            && self.peers.values().all(|peer| peer.holds.is_empty())
            && self.workers.values().all(unused)
    }

    /// Whether a worker is up. What it says in the driver's role before that is not listened to.
    pub fn has_worker(&self, id: WorkerId) -> bool {
        self.workers.contains_key(&id)
    }

    /// Whether a worker has deferred a task, which it may complete.
    pub fn is_deferred(&self, worker: WorkerId, object: ObjectId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.deferred.contains(&object))
    }

    /// What the node offers, and what of it is free, by name, in units of 1 / [`WHOLE`].
    pub fn resources(&self) -> (Amounts, Amounts) {
        let cpu: Arc<str> = "CPU".into();
        let (mut offered, mut free) = self.resources.amounts();
        offered.push((cpu.clone(), u64::from(self.config.slots) * WHOLE));
        free.push((cpu, self.free_cpu()));
        (offered, free)
    }

    /// Whether a graph is known: submitted, accepted, and not over.
    pub fn has_graph(&self, id: GraphId) -> bool {
        self.graphs.contains_key(&id)
    }

    /// What it did so far.
    pub fn counters(&self) -> HeadCounters {
        self.counters
    }

    /// When [`HeadEvent::Tick`] is due, in ns of the clock of `now_ns`.
    pub fn next_deadline(&self) -> Option<u64> {
        let workers = self.workers.values().flat_map(|w| [w.sample_at, w.kill_at]);
        let spread = self.spreads.first().map(|(at, _)| *at);
        workers.chain([spread, self.retire_at, self.stall_at]).flatten().min()
    }

    fn to_node(&mut self, message: ToNode) {
        self.out.push(Effect::ToNode(message));
    }

    fn to_driver(&mut self, peer: PeerId, message: ToDriver) {
        self.out.push(Effect::ToDriver { peer, message });
    }

    /// The greatest nesting among graphs that are not finished.
    fn deepest(&self) -> u32 {
        self.queue.values().map(|id| self.graphs[id].depth).max().unwrap_or(0)
    }

    /// What is left of the slots, in units of 1 / [`WHOLE`].
    fn free_cpu(&self) -> u64 {
        let used: u64 = self.workers.values().map(Worker::cpu).sum();
        (u64::from(self.config.slots) * WHOLE).saturating_sub(used)
    }

    fn assign(&mut self, run: Run) {
        self.counters.runs += 1;
        self.to_node(ToNode::Assign(run));
    }
}

fn unknown(what: &'static str) -> Refusal {
    Refusal::Unknown(what)
}
