//! The world: channels, workers that come and go, and what must be true at all times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{End, FromDriver, FromNode, GraphKind, Run, ToDriver, ToHead, ToNode};

use crate::program::User;
use crate::rng::Rng;
use crate::work::Worker;

/// What may go wrong in a simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Of a hundred tasks, so many raise.
    pub(crate) raise: u64,
    /// Workers die.
    pub(crate) deaths: bool,
    /// The program cancels tasks and kills actors.
    pub(crate) cancels: bool,
}

impl Faults {
    fn calm(self) -> bool {
        self.raise == 0 && !self.deaths && !self.cancels
    }
}

/// A graph that was submitted.
pub(crate) struct Submitted {
    pub(crate) kind: GraphKind,
    pub(crate) inputs: Vec<Vec<ObjectId>>,
    /// How deep its tasks may nest.
    pub(crate) levels: u32,
    /// Its tasks call only actors of a lower number, so that none waits for itself.
    pub(crate) below: usize,
}

pub(crate) enum Said {
    /// With what values it publishes name.
    Node(FromNode, Vec<(ObjectId, Vec<ObjectId>)>),
    Driver(ToHead),
    Down(Option<(u32, u32)>),
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) head: Head,
    pub(crate) now: u64,
    pub(crate) faults: Faults,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// What each worker and its node have said and the head has not heard.
    pub(crate) said: BTreeMap<WorkerId, VecDeque<Said>>,
    next_worker: u32,
    wanted: u32,
    pub(crate) user: User,
    pub(crate) graphs: BTreeMap<GraphId, Submitted>,
    /// Actors, in the order of their creation.
    pub(crate) actors: Vec<ObjectId>,
    /// What published values name.
    pub(crate) contents: BTreeMap<ObjectId, Vec<ObjectId>>,
    /// How often each task began, and was interrupted by a death or raised.
    pub(crate) begun: BTreeMap<ObjectId, u32>,
    pub(crate) again: BTreeMap<ObjectId, u32>,
    /// The last call of each caller to each actor that began for the first time.
    pub(crate) last: BTreeMap<(PeerId, ObjectId), ObjectId>,
    /// Graphs of which something came to be held that may have been gone.
    pub(crate) late: BTreeSet<GraphId>,
    /// Tasks that have failed, or may have.
    pub(crate) doomed: BTreeSet<ObjectId>,
    scheduled: bool,
    /// How often nothing but time has passed: a worker too many is looked at again and again while it is in use.
    ticks: u32,
    counts: [u32; 6],
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let faults = match rng.below(3) {
            0 => Faults { raise: 0, deaths: false, cancels: false },
            _ => Faults { raise: rng.below(2) * 10, deaths: rng.percent(50), cancels: rng.percent(60) },
        };
        let config = HeadConfig { max_workers: 128, ..HeadConfig::new(1 + rng.below(3) as u32) };
        let mut world = Self {
            head: Head::new(config),
            now: 1,
            faults,
            workers: BTreeMap::new(),
            said: BTreeMap::new(),
            next_worker: 0,
            wanted: 0,
            user: User::new(&mut rng),
            graphs: BTreeMap::new(),
            actors: Vec::new(),
            contents: BTreeMap::new(),
            begun: BTreeMap::new(),
            again: BTreeMap::new(),
            last: BTreeMap::new(),
            late: BTreeSet::new(),
            doomed: BTreeSet::new(),
            scheduled: true,
            ticks: 0,
            counts: [0; 6],
            trace: Vec::new(),
            rng,
        };
        world.effects();
        world
    }

    pub(crate) fn counts(&self) -> [u32; 6] {
        self.counts
    }

    pub(crate) fn count(&mut self, what: usize) {
        self.counts[what] += 1;
    }

    /// Lets somebody do something. False if nobody can any more.
    pub(crate) fn step(&mut self) -> bool {
        self.now += self.rng.delay();
        let listens = self.rng.percent(50);
        let mut can: Vec<Option<WorkerId>> = Vec::new();
        can.extend(self.workers.iter().filter(|(_, worker)| worker.can_go_on()).map(|(&id, _)| Some(id)));
        let talking: Vec<WorkerId> = self.said.iter().filter(|(_, said)| !said.is_empty()).map(|(&id, _)| id).collect();
        if !self.scheduled && self.rng.percent(50) {
            self.scheduled = true;
            self.head.schedule(self.now);
            self.after_head();
        } else if self.user.steps > 0 && self.rng.percent(30) {
            self.user_step();
        } else if self.faults.deaths && self.rng.percent(1) && !self.workers.is_empty() {
            let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
            let id = *self.rng.pick(&ids).expect("there is one");
            self.kill(id);
        } else if let Some(&id) = self.rng.pick(&talking).filter(|_| can.is_empty() || listens) {
            self.hear(id);
        } else if let Some(&Some(id)) = self.rng.pick(&can) {
            self.work(id);
        } else if let Some(&id) = talking.first() {
            self.hear(id);
        } else if !self.scheduled {
            self.scheduled = true;
            self.head.schedule(self.now);
            self.after_head();
        } else if self.user.steps > 0 {
            self.user_step();
        } else if let Some(at) = self.head.next_deadline().filter(|_| self.ticks < 40) {
            self.ticks += 1;
            self.now = self.now.max(at);
            self.tell(HeadEvent::Tick);
        } else {
            self.ticks = 0;
            return self.user_ends();
        }
        true
    }

    fn hear(&mut self, id: WorkerId) {
        self.ticks = 0;
        let said = self.said.get_mut(&id).and_then(VecDeque::pop_front).expect("it has said something");
        match said {
            Said::Node(message, named) => {
                self.contents.extend(named);
                self.tell(HeadEvent::Node(message));
            }
            Said::Driver(message) => {
                let peer = PeerId::of_worker(id);
                self.tell(HeadEvent::Driver(FromDriver { peer, message }));
            }
            Said::Down(running) => {
                self.said.remove(&id);
                let death = End::Signalled(9).into();
                self.tell(HeadEvent::Node(FromNode::WorkerDown { worker: id, death, running }));
                self.start_workers();
            }
        }
    }

    pub(crate) fn tell(&mut self, event: HeadEvent) {
        self.trace.push(format!("{event:?}"));
        self.head.handle(self.now, event);
        self.scheduled = false;
        self.after_head();
    }

    fn after_head(&mut self) {
        if let Err(violation) = self.head.check() {
            panic!("{violation}");
        }
        self.effects();
    }

    fn effects(&mut self) {
        let effects: Vec<Effect> = self.head.drain().collect();
        for effect in effects {
            self.trace.push(format!("  {effect:?}"));
            match effect {
                Effect::ToNode(message) => self.to_node(message),
                Effect::ToDriver { peer, message } => self.to_driver(peer, message),
            }
        }
    }

    fn to_driver(&mut self, peer: PeerId, message: ToDriver) {
        match (peer.worker(), message) {
            (_, ToDriver::Refused(refusal)) => panic!("{peer:?} was refused: {refusal}"),
            (_, ToDriver::Found { .. }) => panic!("nobody looks for anything"),
            (worker, ToDriver::Awaited { token, ended }) => {
                for (object, result) in &ended {
                    if let Err(failure) = result {
                        // What it has let go meanwhile is lost to it.
                        let held = peer.worker().is_some() || self.user.holds.contains_key(object);
                        assert!(!self.faults.calm() || !held, "{object:?} failed: {failure:?}");
                        self.counts[5] += 1;
                    }
                }
                match worker {
                    None => assert!(self.user.questions.remove(&token), "question {token} is answered once"),
                    Some(id) => {
                        if let Some(worker) = self.workers.get_mut(&id) {
                            worker.answered(token);
                        }
                    }
                }
            }
        }
    }

    fn to_node(&mut self, message: ToNode) {
        match message {
            ToNode::Assign(run) => self.assign(run),
            ToNode::Recall { run, from } => {
                let limit = self.workers.get_mut(&run.worker).and_then(|worker| worker.recall(run.seq, from));
                if let Some(limit) = limit {
                    self.node_says(run.worker, FromNode::Recalled { run, limit });
                }
            }
            ToNode::Publish { worker, objects, .. } => self.publish(worker, objects),
            ToNode::Drop { worker, objects } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.kept.retain(|kept| !objects.contains(kept));
                }
            }
            ToNode::Free(objects) => self.freed(&objects),
            ToNode::Forget(id) => assert!(self.graphs.contains_key(&id), "an unknown graph is forgotten"),
            ToNode::Want(wanted) => {
                self.wanted = wanted;
                self.start_workers();
            }
            ToNode::Stop(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.stopped = true;
                }
            }
            ToNode::Kill(id) => self.kill(id),
            ToNode::Sample(_) => {}
            ToNode::Interrupt { run, index } => {
                self.counts[4] += 1;
                let worker = self.workers.get_mut(&run.worker);
                if let Some(token) = worker.and_then(|worker| worker.interrupt(run.seq, index)) {
                    self.worker_says(run.worker, ToHead::Forget { token });
                }
            }
            ToNode::CancelDeferred { worker, object } => {
                // It may have ended meanwhile.
                let deferred = self.workers.get_mut(&worker).and_then(|worker| worker.deferred.get_mut(&object));
                if let Some(cancelled) = deferred {
                    *cancelled = true;
                }
            }
        }
    }

    fn assign(&mut self, run: Run) {
        // One that is gone is known to be so later.
        let Some(worker) = self.workers.get_mut(&run.id.worker) else { return };
        assert!(!worker.stopped, "a worker that was stopped gets a run");
        worker.page().open(run.id.seq, run.tasks.len() as u32);
        worker.runs.push_back((run, 0));
    }

    pub(crate) fn node_says(&mut self, id: WorkerId, message: FromNode) {
        self.said.entry(id).or_default().push_back(Said::Node(message, Vec::new()));
    }

    /// A worker's process ends.
    pub(crate) fn kill(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.counts[3] += 1;
        let running = worker.page().running().map(|running| (running.seq, running.index));
        for (run, _) in &worker.runs {
            for &index in &run.tasks {
                *self.again.entry(ObjectId { graph: run.graph, index }).or_insert(0) += 1;
            }
        }
        for &object in worker.deferred.keys() {
            *self.again.entry(object).or_insert(0) += 1;
        }
        self.doomed.extend(&worker.kept);
        self.late.extend(worker.kept.iter().map(|object| object.graph));
        self.said.entry(id).or_default().push_back(Said::Down(running));
    }

    /// Ends a worker that was asked to and has nothing to do.
    pub(crate) fn leave(&mut self, id: WorkerId) {
        self.workers.remove(&id);
        self.said.entry(id).or_default().push_back(Said::Down(None));
    }

    fn start_workers(&mut self) {
        let there = self.workers.values().filter(|worker| !worker.stopped).count() as u32;
        for _ in there..self.wanted {
            let id = WorkerId(self.next_worker);
            self.next_worker += 1;
            self.workers.insert(id, Worker::new());
            self.node_says(id, FromNode::WorkerUp(id));
        }
    }

    /// The head lets go of published values: neither the program nor a value that it holds may need them.
    fn freed(&mut self, objects: &[ObjectId]) {
        let mut needed: BTreeSet<ObjectId> = BTreeSet::new();
        let mut open: Vec<ObjectId> = self.user.holds.keys().copied().collect();
        while let Some(object) = open.pop() {
            if needed.insert(object) {
                open.extend(self.contents.get(&object).into_iter().flatten().copied());
            }
        }
        for object in objects {
            self.contents.remove(object);
            let actor = self.graphs.get(&object.graph).is_some_and(|graph| matches!(graph.kind, GraphKind::Actor(_)));
            let excused = actor || self.doomed.contains(object) || self.again.contains_key(object);
            assert!(excused || !needed.contains(object), "{object:?} is held and let go");
        }
    }

    /// All was released, and nobody can do anything more.
    pub(crate) fn check_end(&self) {
        assert!(self.user.questions.is_empty(), "the program waits for {:?}", self.user.questions);
        assert!(self.workers.values().all(|worker| worker.runs.is_empty()), "a worker has runs");
        assert!(self.head.is_idle(), "the head keeps something");
        assert!(self.contents.is_empty(), "values are left: {:?}", self.contents);
    }
}
