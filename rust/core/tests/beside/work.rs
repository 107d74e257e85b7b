//! A worker as a model: it claims tasks, asks for calls and tasks of its own, defers, raises, and reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;

use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{FromNode, GraphKind, Place, Report, Run, ToHead, Trouble, output};
use eagleray_core::page::{Page, WORDS};

use crate::world::{Said, World};

pub(crate) const PLACE: Place = Place::Inline { len: 8 };

/// What a report tells, by place.
#[derive(Default)]
struct Untold {
    troubles: Vec<(u32, Trouble)>,
    published: Vec<(u32, Place)>,
    contained: Vec<(u32, Vec<ObjectId>)>,
}

pub(crate) struct Worker {
    words: [AtomicU64; WORDS],
    /// Runs, and up to where each is reported.
    pub(crate) runs: VecDeque<(Run, u32)>,
    /// The task it runs, by place.
    task: Option<u32>,
    /// It waits for the answer to this.
    waits: Option<u64>,
    /// Questions whose answers it does not wait for any more.
    withdrawn: BTreeSet<u64>,
    /// What the task that runs holds.
    holds: Vec<ObjectId>,
    /// What is done and told only with what comes next: troubles, results, what these name; and what is let go then.
    untold: Untold,
    let_go: Vec<ObjectId>,
    interrupted: bool,
    pub(crate) kept: BTreeSet<ObjectId>,
    /// What it has deferred, and whether that is to be cancelled.
    pub(crate) deferred: BTreeMap<ObjectId, bool>,
    pub(crate) stopped: bool,
    pub(crate) next_graph: u32,
    next_token: u64,
}

impl Worker {
    pub(crate) fn new() -> Self {
        Self {
            words: Default::default(),
            runs: VecDeque::new(),
            task: None,
            waits: None,
            withdrawn: BTreeSet::new(),
            holds: Vec::new(),
            untold: Untold::default(),
            let_go: Vec::new(),
            interrupted: false,
            kept: BTreeSet::new(),
            deferred: BTreeMap::new(),
            stopped: false,
            next_graph: 1,
            next_token: 1,
        }
    }

    pub(crate) fn page(&self) -> Page<'_> {
        Page::new(&self.words).expect("a page has its words")
    }

    pub(crate) fn can_go_on(&self) -> bool {
        (!self.runs.is_empty() && self.waits.is_none()) || !self.deferred.is_empty() || self.stopped
    }

    /// As its node takes tasks back.
    pub(crate) fn recall(&self, seq: u32, from: u32) -> Option<u32> {
        let run = self.runs.iter().find(|(run, _)| run.id.seq == seq);
        self.page().recall(seq, from, run.map_or(&[], |(run, _)| &run.outputs))
    }

    pub(crate) fn answered(&mut self, token: u64) {
        if !self.withdrawn.remove(&token) {
            assert_eq!(self.waits.take(), Some(token), "the answer is to another question");
        }
    }

    /// A signal has come: it means the task that the page names, if that is the one that runs.
    /// Returns the question that it withdraws.
    pub(crate) fn interrupt(&mut self, seq: u32, index: u32) -> Option<u64> {
        let runs = self.runs.front().is_some_and(|(run, _)| run.id.seq == seq);
        if !runs || self.task != Some(index) {
            return None;
        }
        self.interrupted = true;
        let waits = self.waits.take();
        self.withdrawn.extend(waits);
        waits
    }
}

impl World {
    pub(crate) fn worker_says(&mut self, id: WorkerId, message: ToHead) {
        self.said.entry(id).or_default().push_back(Said::Driver(message));
    }

    pub(crate) fn publish(&mut self, id: WorkerId, objects: Vec<ObjectId>) {
        for object in objects {
            let Some(worker) = self.workers.get(&id) else { return };
            let place = worker.kept.contains(&object).then_some(PLACE);
            let contained = Vec::new();
            self.node_says(id, FromNode::Published { worker: id, object, place, contained });
        }
    }

    /// A worker does the next thing.
    pub(crate) fn work(&mut self, id: WorkerId) {
        let worker = &self.workers[&id];
        let waits = worker.waits.is_some() || worker.runs.is_empty();
        if !worker.deferred.is_empty() && (waits || self.rng.percent(30)) {
            return self.complete(id);
        }
        let worker = self.workers.get_mut(&id).expect("it works");
        let Some((run, _)) = worker.runs.front() else {
            return self.leave(id);
        };
        let seq = run.id.seq;
        match worker.task {
            None => match worker.page().claim(seq) {
                Some(index) => self.begin(id, index),
                None => self.report(id, None, true),
            },
            Some(_) => self.end(id),
        }
    }

    fn begin(&mut self, id: WorkerId, index: u32) {
        let now = self.now;
        let worker = self.workers.get_mut(&id).expect("it works");
        let run = worker.runs.front().expect("it claims").0.clone();
        worker.page().start(run.id.seq, index, now);
        worker.task = Some(index);
        worker.interrupted = false;
        let object = ObjectId { graph: run.graph, index: run.tasks[index as usize] };
        let graph = &self.graphs[&run.graph];
        let (calls, makes) = (graph.kind == GraphKind::Calls, matches!(graph.kind, GraphKind::Actor(_)));
        let inputs = graph.inputs[object.index as usize].clone();
        let begun = self.begun.entry(object).or_insert(0);
        *begun += 1;
        let (begun, again) = (*begun, self.again.get(&object).copied().unwrap_or(0));
        // An actor is made again when its worker has died, whatever that did, and what comes to be held late when it is gone.
        let excused = makes || (!calls && self.late.contains(&object.graph));
        assert!(excused || begun <= 1 + again, "{object:?} begins {begun} times, after {again} ends");
        self.count(0);
        if calls {
            let actor = inputs[0];
            self.count(1);
            let caller = object.graph.peer;
            if begun == 1 {
                let last = self.last.insert((caller, actor), object);
                assert!(last.is_none_or(|last| last < object), "{object:?} begins after {last:?}");
            }
        }
        // It finds refs in what it reads.
        let found: Vec<ObjectId> =
            inputs.iter().filter_map(|input| self.contents.get(input)).flatten().copied().collect();
        if !found.is_empty() {
            self.worker_says(id, ToHead::Hold(found.clone()));
            self.workers.get_mut(&id).expect("it works").holds = found;
        }
        let graph = &self.graphs[&run.graph];
        let (levels, below) = (graph.levels, graph.below);
        if levels > 0 && self.rng.percent(30) {
            self.nest(id, levels - 1, below, calls);
        }
    }

    /// A task submits something, and may wait for it.
    fn nest(&mut self, id: WorkerId, levels: u32, below: usize, calls: bool) {
        let peer = PeerId::of_worker(id);
        let worker = self.workers.get_mut(&id).expect("it works");
        let graph = GraphId { peer, seq: worker.next_graph };
        worker.next_graph += 1;
        let held: Vec<ObjectId> = worker.holds.clone();
        let actors: Vec<ObjectId> = self.actors[..below].iter().copied().filter(|actor| held.contains(actor)).collect();
        let actor = self.rng.pick(&actors).copied();
        let below = actor.map_or(below, |actor| self.number_of(actor));
        let kind = if actor.is_some() { GraphKind::Calls } else { GraphKind::Independent };
        let spec = self.make_graph(graph, kind, actor, &held, levels, below);
        // An actor's call must not wait for one that is behind it, and refs to such may come with what it reads.
        let may_wait = !calls || spec.externals.len() == usize::from(actor.is_some());
        let outputs: Vec<ObjectId> = spec.outputs.iter().map(|&index| ObjectId { graph, index }).collect();
        let upto = spec.inputs.len() as u32;
        self.worker_says(id, ToHead::Submit(Box::new(spec)));
        self.worker_says(id, ToHead::Admit { graph, upto });
        let worker = self.workers.get_mut(&id).expect("it works");
        worker.holds.extend(&outputs);
        if may_wait && self.rng.percent(70) {
            let worker = self.workers.get_mut(&id).expect("it works");
            let token = worker.next_token;
            worker.next_token += 1;
            worker.waits = Some(token);
            let (need, fail_fast) = (outputs.len() as u32, self.rng.percent(30));
            self.report(id, None, false);
            self.worker_says(id, ToHead::Await { token, objects: outputs, need, fail_fast });
        }
    }

    /// The task that runs ends, in one way or another.
    fn end(&mut self, id: WorkerId) {
        let worker = &self.workers[&id];
        let (run, _) = worker.runs.front().expect("it runs a task");
        let index = worker.task.expect("it runs a task");
        let object = ObjectId { graph: run.graph, index: run.tasks[index as usize] };
        let graph = &self.graphs[&run.graph];
        let (calls, actor) = (graph.kind == GraphKind::Calls, matches!(graph.kind, GraphKind::Actor(_)));
        let trouble = if worker.interrupted {
            self.doomed.insert(object);
            *self.again.entry(object).or_insert(0) += 1;
            Some(Trouble::Cancelled)
        } else if self.rng.percent(self.faults.raise) {
            let error = b"raised".as_slice().into();
            self.doomed.insert(object);
            if self.rng.percent(50) {
                // What it read is made anew.
                self.late.insert(object.graph);
                *self.again.entry(object).or_insert(0) += 1;
                Some(Trouble::Retry(error))
            } else {
                Some(Trouble::Raised(error))
            }
        } else if calls && self.rng.percent(40) {
            self.count(2);
            Some(Trouble::Deferred)
        } else {
            None
        };
        let worker = self.workers.get_mut(&id).expect("it works");
        if trouble == Some(Trouble::Deferred) {
            worker.deferred.insert(object, false);
        }
        // Uses go before the report, last uses after it.
        let held = std::mem::take(&mut worker.holds);
        worker.let_go.extend(held.iter().copied());
        let named = if trouble.is_none() && !actor { self.name(&held) } else { Vec::new() };
        self.ended(id, index, trouble, named);
        if self.rng.percent(50) {
            self.report(id, None, false);
        }
    }

    /// Refs that a task puts into its result: of those that it has.
    fn name(&mut self, held: &[ObjectId]) -> Vec<ObjectId> {
        let mut known = held.to_vec();
        known.sort_unstable();
        known.dedup();
        known.retain(|_| self.rng.percent(50));
        known
    }

    fn ended(&mut self, id: WorkerId, index: u32, trouble: Option<Trouble>, named: Vec<ObjectId>) {
        let worker = self.workers.get_mut(&id).expect("it works");
        worker.page().rest();
        worker.task = None;
        self.report(id, Some((index, trouble, named)), false);
    }

    /// Reports the task that has ended, or the end of the run.
    fn report(&mut self, id: WorkerId, task: Option<(u32, Option<Trouble>, Vec<ObjectId>)>, ended: bool) {
        let worker = self.workers.get_mut(&id).expect("it works");
        let Some((run, upto)) = worker.runs.front_mut() else { return };
        let Untold { troubles, published, contained } = &mut worker.untold;
        if let Some((index, trouble, named)) = task {
            *upto = index + 1;
            let object = ObjectId { graph: run.graph, index: run.tasks[index as usize] };
            match trouble {
                Some(trouble) => troubles.push((index, trouble)),
                None if run.outputs[index as usize] & output::PUBLISH != 0 => {
                    published.push((index, PLACE));
                    if !named.is_empty() {
                        contained.push((index, named));
                    }
                }
                // It has it for the tasks of its run, and for those that are taken back.
                None => _ = worker.kept.insert(object),
            }
        }
        if !ended && output::begin(&run.outputs, *upto) < *upto {
            return;
        }
        let Untold { troubles, published, contained } = std::mem::take(&mut worker.untold);
        let report = Report { run: run.id, upto: *upto, ended, troubles, published, contained, timings: Vec::new() };
        let of = |place: u32| ObjectId { graph: run.graph, index: run.tasks[place as usize] };
        let named = report.contained.iter().map(|(place, named)| (of(*place), named.clone())).collect();
        if ended {
            worker.runs.pop_front();
        }
        let let_go = std::mem::take(&mut worker.let_go);
        self.said.entry(id).or_default().push_back(Said::Node(FromNode::Report(report), named));
        if !let_go.is_empty() {
            self.worker_says(id, ToHead::Release(let_go));
        }
    }

    /// A deferred task ends.
    fn complete(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).expect("it works");
        let objects: Vec<ObjectId> = worker.deferred.keys().copied().collect();
        let object = *self.rng.pick(&objects).expect("it has deferred something");
        let cancelled = worker.deferred.remove(&object) == Some(true) && self.rng.percent(80);
        let outcome = if cancelled {
            self.doomed.insert(object);
            Err(Trouble::Cancelled)
        } else if self.rng.percent(self.faults.raise) {
            self.doomed.insert(object);
            *self.again.entry(object).or_insert(0) += 1;
            Err(Trouble::Retry(b"raised".as_slice().into()))
        } else {
            Ok((PLACE, Vec::new()))
        };
        let named = outcome.iter().map(|(_, named)| (object, named.clone())).collect();
        let completed = FromNode::Completed { worker: id, object, outcome };
        self.said.entry(id).or_default().push_back(Said::Node(completed, named));
    }
}
