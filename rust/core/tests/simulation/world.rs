//! The cluster as a model: channels with delays, a node with its workers, faults. The head in it is the real one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent, ResultsMode};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{
    Death, End, Failure, FailureKind, FromDriver, FromNode, GPU, Report, Run, ToDriver, ToHead, ToNode, WHOLE,
};

use eagleray_core::page::RING;

use crate::plan::{Offer, Plan};
use crate::rng::Rng;
use crate::user::User;
use crate::worker::{Executing, Frame, Worker};

/// What goes wrong in a simulation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// How many workers crash.
    pub(crate) crashes: u32,
    /// How many published values vanish.
    pub(crate) losses: u32,
    /// Of a hundred publish requests, so many are refused: the value is gone.
    pub(crate) refuse_percent: u64,
    /// Of a hundred tasks, so many raise.
    pub(crate) raise_percent: u64,
    /// Of a hundred tasks that may be run again, so many raise at first.
    pub(crate) flaky_percent: u64,
    /// The user cancels.
    pub(crate) cancels: bool,
    /// The user holds what was never meant to leave a run.
    pub(crate) late_holds: bool,
    /// Deaths a task may see.
    pub(crate) max_retries: u8,
}

impl Faults {
    /// Nothing that could make a task run twice.
    pub(crate) fn calm(self) -> bool {
        let Self { crashes, losses, refuse_percent, raise_percent, flaky_percent, cancels, late_holds, .. } = self;
        let counts = [u64::from(crashes), u64::from(losses), refuse_percent, raise_percent, flaky_percent];
        counts == [0; 5] && !cancels && !late_holds
    }
}

/// A graph that was submitted.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) plan: Plan,
    pub(crate) externals: Vec<ObjectId>,
    /// The user let go of all its outputs: what of it nobody reads is given up.
    pub(crate) given_up: bool,
    /// Its tasks may fail though the plan says they do not: it was cancelled, or reads from what may fail.
    pub(crate) may_fail: bool,
    pub(crate) forgotten: bool,
    /// The head let go of a value that the user supplied: what was made of it cannot be made again.
    pub(crate) beginnings_gone: bool,
    /// The graph one of whose tasks submitted it.
    pub(crate) parent: Option<GraphId>,
}

#[derive(Debug)]
pub(crate) enum Event {
    ToHead(HeadEvent),
    Schedule,
    Tick,
    ToNode(ToNode),
    ToDriver(PeerId, ToDriver),
    Started(WorkerId),
    Frame(WorkerId, Frame),
    Step(WorkerId, u64),
    FromWorker(FromWorker),
    Gone(WorkerId, Death, Option<(u32, u32)>),
    Crash,
    Lose,
    User,
}

/// What a worker says to its node.
#[derive(Debug)]
pub(crate) enum FromWorker {
    Report(Report, Vec<(ObjectId, u64)>),
    Published(WorkerId, ObjectId, Option<u64>),
    Driver(PeerId, ToHead),
}

/// Messages of one channel arrive in the order in which they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    UserToHead,
    NodeToHead,
    HeadToNode,
    HeadToDriver(PeerId),
    FromWorker(WorkerId),
    ToWorker(WorkerId),
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) head: Head,
    pub(crate) faults: Faults,
    pub(crate) config: HeadConfig,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    queued: BTreeMap<u64, Event>,
    next_event: u64,
    channels: BTreeMap<Channel, u64>,
    scheduling: bool,
    tick_at: Option<u64>,
    /// Published bytes, where every process finds them.
    pub(crate) table: BTreeMap<ObjectId, u64>,
    /// Objects that a fault took away at least once: what happens to them is not held against the head.
    pub(crate) lost: BTreeSet<ObjectId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    starting: u32,
    /// Workers that the head has named to be stopped.
    stopped: BTreeSet<WorkerId>,
    next_worker: u32,
    wanted: u32,
    pub(crate) graphs: BTreeMap<GraphId, Submitted>,
    pub(crate) user: User,
    pub(crate) not_here: u32,
    /// Runs of special demand.
    pub(crate) special_runs: u32,
    /// Attempts that raised what their task is run again for.
    pub(crate) raised_again: u32,
    /// A task raised.
    pub(crate) raised: bool,
    /// Answers that say of a demand that it can never be met because of who waits for it.
    pub(crate) stuck: u32,
    /// How deep graphs were nested so far.
    pub(crate) deepest: u32,
    /// How often a task waited for a graph that it did not submit, which moves that graph deeper.
    pub(crate) deepened: u32,
    /// How often flaky tasks were tried.
    pub(crate) attempts: BTreeMap<ObjectId, u32>,
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut config = HeadConfig::new(1 + rng.below(4) as u32);
        config.results = match rng.below(5) {
            0 => ResultsMode::Resident,
            1 => ResultsMode::Sealed,
            _ => ResultsMode::Auto,
        };
        if rng.percent(30) {
            config.max_run = 1 + rng.below(6) as u32;
        }
        config.max_workers = 64;
        let faults = match rng.below(4) {
            0 => Faults { max_retries: 255, ..Faults::default() },
            kind => Faults {
                crashes: if rng.percent(60) { rng.below(8) as u32 } else { 0 },
                losses: if rng.percent(40) { rng.below(6) as u32 } else { 0 },
                refuse_percent: if rng.percent(30) { 10 } else { 0 },
                raise_percent: if kind == 1 { 2 } else { 0 },
                flaky_percent: if rng.percent(40) { 20 } else { 0 },
                cancels: rng.percent(40),
                late_holds: rng.percent(30),
                max_retries: if rng.percent(80) { 255 } else { rng.below(3) as u8 },
            },
        };
        let offer = Offer { slots: config.slots, license: 1 + rng.below(3) * WHOLE, gpus: rng.below(3) as u32 };
        config.offers = offer.others();
        config.patience_ns = [0, 1_000_000, 100_000_000][rng.index(3)];
        let user = User::new(&mut rng, offer);
        let mut world = Self {
            now: 1,
            head: Head::new(config.clone()),
            faults,
            config,
            events: BinaryHeap::new(),
            queued: BTreeMap::new(),
            next_event: 0,
            channels: BTreeMap::new(),
            scheduling: false,
            tick_at: None,
            table: BTreeMap::new(),
            lost: BTreeSet::new(),
            workers: BTreeMap::new(),
            starting: 0,
            stopped: BTreeSet::new(),
            next_worker: 0,
            wanted: 0,
            graphs: BTreeMap::new(),
            user,
            not_here: 0,
            special_runs: 0,
            raised_again: 0,
            raised: false,
            stuck: 0,
            deepest: 0,
            deepened: 0,
            attempts: BTreeMap::new(),
            trace: trace.then(Vec::new),
            rng,
        };
        for _ in 0..faults.crashes {
            let at = world.rng.below(30_000_000);
            world.at(at, Event::Crash);
        }
        for _ in 0..faults.losses {
            let at = world.rng.below(30_000_000);
            world.at(at, Event::Lose);
        }
        world.at(1, Event::User);
        world.effects();
        world
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((time.max(self.now), self.next_event)));
        self.queued.insert(self.next_event, event);
        self.next_event += 1;
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn send(&mut self, channel: Channel, event: Event) {
        let delay = self.rng.delay();
        let last = self.channels.entry(channel).or_insert(0);
        *last = (*last).max(self.now + delay);
        let time = *last;
        self.at(time, event);
    }

    pub(crate) fn user_says(&mut self, message: ToHead) {
        let event = HeadEvent::Driver(FromDriver { peer: PeerId::USER, message });
        self.send(Channel::UserToHead, Event::ToHead(event));
    }

    pub(crate) fn worker_says(&mut self, worker: WorkerId, message: FromWorker) {
        self.send(Channel::FromWorker(worker), Event::FromWorker(message));
    }

    /// Carries out the next event. False if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some(Reverse((time, number))) = self.events.pop() else { return false };
        let event = self.queued.remove(&number).expect("every time has its event");
        self.now = time;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{time:>12} {event:?}"));
        }
        match event {
            Event::ToHead(event) => {
                self.head.handle(time, event);
                self.after_head();
                if !self.scheduling {
                    self.scheduling = true;
                    let delay = if self.rng.percent(80) { 0 } else { self.rng.below(30_000) };
                    self.after(delay, Event::Schedule);
                }
            }
            Event::Schedule => {
                self.scheduling = false;
                self.head.schedule(time);
                self.after_head();
            }
            Event::Tick => {
                if self.tick_at == Some(time) {
                    self.tick_at = None;
                    self.head.handle(time, HeadEvent::Tick);
                    self.head.schedule(time);
                    self.after_head();
                }
            }
            Event::ToNode(message) => self.to_node(message),
            Event::ToDriver(peer, message) => self.to_driver(peer, message),
            Event::Started(worker) => {
                self.starting -= 1;
                self.workers.insert(worker, Worker::new(worker));
                self.to_head(FromNode::WorkerUp(worker));
            }
            Event::Frame(worker, frame) => self.frame(worker, frame),
            Event::Step(worker, step) => self.worker_step(worker, step),
            Event::FromWorker(message) => self.from_worker(message),
            Event::Gone(worker, death, running) => {
                self.to_head(FromNode::WorkerDown { worker, death, running });
                self.start_workers();
            }
            Event::Crash => {
                let alive: Vec<WorkerId> = self.workers.keys().copied().collect();
                if let Some(&worker) = self.rng.pick(&alive) {
                    self.kill(worker);
                }
            }
            Event::Lose => {
                let published: Vec<ObjectId> = self.table.keys().copied().filter(|&o| self.can_be_remade(o)).collect();
                if let Some(&object) = self.rng.pick(&published) {
                    self.table.remove(&object);
                    self.lose(object);
                }
            }
            Event::User => self.user_step(),
        }
        true
    }

    /// Whether losing an object costs nothing but time.
    fn can_be_remade(&self, object: ObjectId) -> bool {
        object.graph.seq != 0 && !self.user.supplied.contains(&object)
    }

    /// A fault takes an object away.
    pub(crate) fn lose(&mut self, object: ObjectId) {
        self.lost.insert(object);
        if self.graphs.get(&object.graph).is_some_and(|graph| graph.beginnings_gone) {
            self.mark_may_fail(object.graph);
        }
    }

    /// The head lets go of what the user supplied. That may be needed to make again what is not published.
    fn let_go_of_supplied(&mut self, objects: &[ObjectId]) {
        for &object in objects {
            if !self.user.supplied.contains(&object) {
                continue;
            }
            let id = object.graph;
            let unpublished = self.user.firmly_held_of(id).find(|held| !self.table.contains_key(held));
            if let Some(held) = unpublished {
                let excused = self.lost.contains(&held) || self.may_fail(held);
                assert!(excused, "{object:?} is let go, of which {held:?} may have to be made again");
            }
            self.graphs.get_mut(&id).expect("it was submitted").beginnings_gone = true;
            if self.lost.iter().any(|lost| lost.graph == id) {
                self.mark_may_fail(id);
            }
        }
    }

    fn after_head(&mut self) {
        if let Err(violation) = self.head.check() {
            panic!("{violation}");
        }
        self.effects();
        if let Some(deadline) = self.head.next_deadline() {
            let deadline = deadline.max(self.now + 1);
            if self.tick_at.is_none_or(|at| at > deadline || at <= self.now) {
                self.tick_at = Some(deadline);
                self.at(deadline, Event::Tick);
            }
        }
    }

    fn effects(&mut self) {
        let effects: Vec<Effect> = self.head.drain().collect();
        for effect in effects {
            if let Effect::ToNode(ToNode::Free(objects)) = &effect {
                self.let_go_of_supplied(objects);
            }
            match effect {
                Effect::ToNode(message) => self.send(Channel::HeadToNode, Event::ToNode(message)),
                Effect::ToDriver { peer, message } => {
                    self.send(Channel::HeadToDriver(peer), Event::ToDriver(peer, message));
                }
            }
        }
    }

    fn to_head(&mut self, message: FromNode) {
        self.send(Channel::NodeToHead, Event::ToHead(HeadEvent::Node(message)));
    }

    fn to_driver(&mut self, peer: PeerId, message: ToDriver) {
        if let ToDriver::Awaited { ended, .. } = &message {
            let stuck = |failure: &Failure| matches!(&failure.kind, FailureKind::Infeasible(short) if short.held > 0);
            self.stuck += u32::from(ended.iter().any(|(_, result)| result.as_ref().is_err_and(stuck)));
        }
        match (peer.worker(), message) {
            (_, ToDriver::Refused(refusal)) => panic!("{peer:?} was refused: {refusal}"),
            (None, ToDriver::Awaited { token, ended }) => self.user_answer(token, &ended),
            (_, ToDriver::Found { .. }) => panic!("nobody looks for an actor"),
            (Some(worker), ToDriver::Awaited { token, ended }) => self.worker_answer(worker, token, &ended),
        }
    }

    fn to_node(&mut self, message: ToNode) {
        match message {
            ToNode::Assign(run) => {
                let worker_id = run.id.worker;
                assert!(!self.stopped.contains(&worker_id), "{worker_id:?} was stopped and gets a run");
                let Some(worker) = self.workers.get_mut(&worker_id) else { return };
                worker.opened.push_back(run.id.seq);
                if worker.opened.len() > RING as usize {
                    worker.opened.pop_front();
                }
                worker.page().open(run.id.seq, run.tasks.len() as u32);
                worker.assigned.insert(run.id.seq, run.clone());
                let plan = &self.graphs[&run.graph].plan;
                self.special_runs += u32::from(plan.needs[plan.tasks[run.tasks[0] as usize].class as usize].1 > 0);
                self.check_demands();
                self.send(Channel::ToWorker(worker_id), Event::Frame(worker_id, Frame::Run(run)));
            }
            ToNode::Recall { run, from } => {
                let limit = self.workers.get(&run.worker).and_then(|worker| worker.page().recall(run.seq, from, &[]));
                if let Some(limit) = limit {
                    self.to_head(FromNode::Recalled { run, limit });
                }
            }
            ToNode::Publish { worker, objects, .. } => {
                self.send(Channel::ToWorker(worker), Event::Frame(worker, Frame::Publish(objects)));
            }
            ToNode::Drop { worker, objects } => {
                for &object in &objects {
                    self.let_go(object, false);
                }
                self.send(Channel::ToWorker(worker), Event::Frame(worker, Frame::Drop(objects)));
            }
            ToNode::Free(objects) => {
                for object in objects {
                    self.let_go(object, true);
                    self.table.remove(&object);
                }
            }
            ToNode::Forget(graph) => {
                let graph = self.graphs.get_mut(&graph).expect("a graph that was submitted");
                assert!(!graph.forgotten, "a graph is forgotten twice");
                graph.forgotten = true;
            }
            ToNode::Interrupt { .. } | ToNode::CancelDeferred { .. } => panic!("no single task is cancelled"),
            ToNode::Want(wanted) => {
                self.wanted = wanted;
                let depth = self.deepest + self.deepened;
                // Of tasks that ask for less than a CPU more than a slot's worth may run.
                let lean = |graph: &Submitted| graph.plan.demands.iter().any(|demand| demand.cpu < WHOLE);
                // Who is blocked may be set aside, if nothing goes on.
                let blocked = self.workers.values().filter(|worker| worker.nested.is_some()).count() as u32;
                let most =
                    if self.graphs.values().any(lean) { u32::MAX } else { self.config.slots * (depth + 1) + blocked };
                let most = most.min(self.config.max_workers);
                assert!(wanted <= most, "{wanted} workers are wanted, at depth {depth}");
                self.start_workers();
            }
            ToNode::Stop(worker) => {
                self.stopped.insert(worker);
                if let Some(gone) = self.workers.get(&worker) {
                    assert!(gone.queue.is_empty(), "a worker with work is stopped");
                    assert!(gone.values.is_empty(), "a worker that keeps values is stopped");
                    self.end_worker(worker, End::Exited(0).into());
                }
            }
            ToNode::Kill(worker) => {
                if self.workers.contains_key(&worker) {
                    self.kill(worker);
                }
            }
            ToNode::Sample(worker) => {
                let Some(found) = self.workers.get(&worker) else { return };
                let page = found.page();
                let claimed = found.opened.iter().filter_map(|&seq| page.progress(seq).map(|(next, _)| (seq, next)));
                let claimed = claimed.collect();
                let running_ns = page.running().map(|running| self.now - running.started_ns);
                self.to_head(FromNode::Sampled { worker, claimed, running_ns });
            }
        }
    }

    /// What all runs demand that have not ended is no more than there is.
    fn check_demands(&self) {
        let mut free: BTreeMap<&str, u64> =
            self.config.offers.iter().map(|(name, offered)| (&**name, *offered)).collect();
        let mut devices: BTreeMap<u32, u64> = BTreeMap::new();
        for run in self.workers.values().flat_map(|worker| worker.assigned.values()) {
            let plan = &self.graphs[&run.graph].plan;
            let demand = |task: &u32| plan.needs[plan.tasks[*task as usize].class as usize].1;
            let number = demand(&run.tasks[0]);
            assert!(run.tasks.iter().all(|task| demand(task) == number), "a run is of two demands");
            let Some(demand) = number.checked_sub(1).map(|place| &plan.demands[place as usize]) else { continue };
            for (name, amount) in &demand.others {
                let left = free.get_mut(&**name).and_then(|free| free.checked_sub(*amount));
                *free.get_mut(&**name).expect("it is offered") = left.expect("more is held than there is");
                if **name == *GPU {
                    assert_eq!(run.gpus.len() as u64, amount.div_ceil(WHOLE), "a run has the GPUs that it demands");
                    for &device in &run.gpus {
                        *devices.entry(device).or_insert(0) += amount.min(&WHOLE);
                    }
                }
            }
        }
        assert!(devices.values().all(|used| *used <= WHOLE), "a GPU has too much to do: {devices:?}");
    }

    /// The head gives up an object: nobody may need it.
    fn let_go(&self, object: ObjectId, published: bool) {
        let excused = self.lost.contains(&object) || self.may_fail(object);
        assert!(excused || !self.user.holds_firmly(object), "{object:?} is held and let go, published: {published}");
    }

    fn kill(&mut self, worker: WorkerId) {
        self.end_worker(worker, End::Signalled(9).into());
    }

    fn end_worker(&mut self, id: WorkerId, death: Death) {
        let worker = self.workers.remove(&id).expect("only living workers die");
        let running = worker.page().running().map(|running| (running.seq, running.index));
        worker.values.keys().for_each(|&object| self.lose(object));
        if self.faults.max_retries < 255 {
            for executing in &worker.queue {
                self.mark_may_fail(executing.run.graph);
            }
        }
        // Its nested graph is cancelled, which nobody is there to notice.
        if let Some(nested) = worker.nested.and_then(|graph| self.graphs.get_mut(&graph)) {
            nested.may_fail = true;
        }
        self.send(Channel::FromWorker(id), Event::Gone(id, death, running));
    }

    fn start_workers(&mut self) {
        while self.workers.len() as u32 + self.starting < self.wanted {
            self.starting += 1;
            let id = WorkerId(self.next_worker);
            self.next_worker += 1;
            let delay = 1_000 + self.rng.below(4_000_000);
            self.after(delay, Event::Started(id));
        }
    }

    fn from_worker(&mut self, message: FromWorker) {
        match message {
            FromWorker::Report(report, values) => {
                self.table.extend(values);
                self.to_head(FromNode::Report(report));
            }
            FromWorker::Published(worker, object, value) => {
                let place = value.map(|value| {
                    self.table.insert(object, value);
                    eagleray_core::message::Place::Inline { len: 8 }
                });
                self.to_head(FromNode::Published { worker, object, place, contained: Vec::new() });
            }
            FromWorker::Driver(peer, message) => {
                let event = HeadEvent::Driver(FromDriver { peer, message });
                self.send(Channel::NodeToHead, Event::ToHead(event));
            }
        }
    }

    /// The objects that a task reads.
    pub(crate) fn inputs(&self, graph: GraphId, task: u32) -> Vec<ObjectId> {
        let submitted = &self.graphs[&graph];
        let len = submitted.plan.len();
        let object = |&input: &u32| {
            if input < len { ObjectId { graph, index: input } } else { submitted.externals[(input - len) as usize] }
        };
        submitted.plan.tasks[task as usize].inputs.iter().map(object).collect()
    }

    pub(crate) fn executing(&self, run: Run) -> Executing {
        let graph = run.graph;
        Executing::new(run, |task| self.inputs(graph, task))
    }

    /// Once everything was released, nothing may be left anywhere.
    pub(crate) fn check_empty(&self) {
        assert!(self.head.is_idle(), "the head keeps something");
        assert!(self.table.is_empty(), "published values are left: {:?}", self.table.keys());
        for (id, graph) in &self.graphs {
            assert!(graph.forgotten, "{id:?} was never forgotten");
        }
        for worker in self.workers.values() {
            assert!(worker.queue.is_empty(), "{:?} has runs", worker.id);
            assert!(worker.values.is_empty(), "{:?} keeps {:?}", worker.id, worker.values.keys());
        }
        if self.faults.calm() {
            assert_eq!(self.not_here, 0, "inputs were not there, though nothing was lost");
            // A task that holds what is freed meanwhile has it made again.
            let holds = self.graphs.values().any(|graph| !graph.plan.waits().is_empty());
            // The graph of a task that raises because of what it computes ends with the report that takes in what is lost.
            let reruns = self.head.counters().reruns;
            assert!(holds || self.raised || reruns == 0, "tasks ran twice, though nothing was lost");
        }
    }
}
