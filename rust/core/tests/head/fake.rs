//! A head with a hand-driven world around it: the test plays the drivers, the node and its workers.

use std::collections::BTreeMap;

use eagleray_core::graph::Csr;
use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{
    ClassSpec, End, Failure, FromDriver, FromNode, GraphKind, GraphSpec, Place, Refusal, Report, Run, Timing, ToDriver,
    ToHead, ToNode, Trouble, output,
};

pub(crate) const USER: PeerId = PeerId::USER;

pub(crate) type Ended = Vec<(ObjectId, Result<Place, Failure>)>;

/// The head, and everything it said so far.
pub(crate) struct Fake {
    pub(crate) head: Head,
    pub(crate) now: u64,
    /// Messages for the node, runs excepted.
    pub(crate) sent: Vec<ToNode>,
    /// Runs that were assigned and have not been reported as ended.
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) answers: BTreeMap<u64, Ended>,
    pub(crate) found: BTreeMap<u64, Option<ObjectId>>,
    pub(crate) refused: Vec<(PeerId, Refusal)>,
    /// What [`Fake::finish`] says that each task took.
    pub(crate) task_ns: u64,
}

impl Fake {
    /// A head with this many slots, and as many workers.
    pub(crate) fn new(slots: u32) -> Self {
        let mut fake = Self::with(HeadConfig::new(slots));
        for worker in 0..slots {
            fake.up(worker);
        }
        fake
    }

    /// A head without workers.
    pub(crate) fn with(config: HeadConfig) -> Self {
        let mut fake = Self {
            head: Head::new(config),
            now: 1,
            sent: Vec::new(),
            runs: BTreeMap::new(),
            answers: BTreeMap::new(),
            found: BTreeMap::new(),
            refused: Vec::new(),
            task_ns: 1_000_000,
        };
        fake.collect();
        fake
    }

    fn collect(&mut self) {
        let effects: Vec<Effect> = self.head.drain().collect();
        for effect in effects {
            match effect {
                Effect::ToNode(ToNode::Assign(run)) => {
                    assert_eq!(run.tasks.len(), run.outputs.len());
                    assert!(!run.tasks.is_empty(), "an empty run");
                    assert!(self.runs.insert(run.id, run).is_none(), "a run's number was used twice");
                }
                Effect::ToNode(message) => self.sent.push(message),
                Effect::ToDriver { message: ToDriver::Awaited { token, ended }, .. } => {
                    assert!(self.answers.insert(token, ended).is_none(), "question {token} was answered twice");
                }
                Effect::ToDriver { message: ToDriver::Found { token, object: actor }, .. } => {
                    assert!(self.found.insert(token, actor).is_none(), "question {token} was answered twice");
                }
                Effect::ToDriver { peer, message: ToDriver::Refused(refusal) } => self.refused.push((peer, refusal)),
            }
        }
    }

    fn check(&self) {
        if let Err(violation) = self.head.check() {
            panic!("{violation}");
        }
    }

    /// One event, and what follows from it.
    pub(crate) fn tell(&mut self, event: HeadEvent) {
        self.handle(event);
        self.schedule();
    }

    /// One event without scheduling after it.
    pub(crate) fn handle(&mut self, event: HeadEvent) {
        self.now += 1;
        self.head.handle(self.now, event);
        self.check();
        self.collect();
    }

    pub(crate) fn schedule(&mut self) {
        self.head.schedule(self.now);
        self.check();
        self.collect();
    }

    pub(crate) fn driver(&mut self, peer: PeerId, message: ToHead) {
        self.tell(HeadEvent::Driver(FromDriver { peer, message }));
    }

    pub(crate) fn user(&mut self, message: ToHead) {
        self.driver(USER, message);
    }

    pub(crate) fn node(&mut self, message: FromNode) {
        self.tell(HeadEvent::Node(message));
    }

    pub(crate) fn up(&mut self, worker: u32) {
        self.node(FromNode::WorkerUp(WorkerId(worker)));
    }

    pub(crate) fn down(&mut self, worker: u32, running: Option<(u32, u32)>) {
        self.runs.retain(|id, _| id.worker != WorkerId(worker));
        self.node(FromNode::WorkerDown { worker: WorkerId(worker), death: End::Signalled(9).into(), running });
    }

    /// Lets time pass up to the head's next deadline.
    pub(crate) fn tick(&mut self) {
        self.now = self.head.next_deadline().expect("the head waits for a time").max(self.now);
        self.tell(HeadEvent::Tick);
    }

    /// Submits a graph of the user and admits all of it.
    pub(crate) fn run_graph(&mut self, spec: GraphSpec) {
        let (id, len) = (spec.id, spec.class.len() as u32);
        self.driver(id.peer, ToHead::Submit(Box::new(spec)));
        self.driver(id.peer, ToHead::Admit { graph: id, upto: len });
    }

    /// Asks for all of these objects.
    pub(crate) fn ask(&mut self, token: u64, objects: &[ObjectId]) {
        self.ask_as(USER, token, objects);
    }

    pub(crate) fn ask_as(&mut self, peer: PeerId, token: u64, objects: &[ObjectId]) {
        let need = objects.len() as u32;
        self.driver(peer, ToHead::Await { token, objects: objects.to_vec(), need, fail_fast: false });
    }

    /// The only run in flight.
    pub(crate) fn only_run(&self) -> Run {
        assert_eq!(self.runs.len(), 1, "{:?}", self.runs);
        self.runs.values().next().cloned().expect("there is one")
    }

    /// The runs in flight to a worker, oldest first.
    pub(crate) fn runs_of(&self, worker: u32) -> Vec<Run> {
        self.runs.values().filter(|run| run.id.worker == WorkerId(worker)).cloned().collect()
    }

    /// A report that tasks of a run from `from` to before `upto` ended well.
    pub(crate) fn report(&self, run: &Run, from: u32, upto: u32, ended: bool) -> Report {
        let published = (from..upto)
            .filter(|&i| run.outputs[i as usize] & output::PUBLISH != 0)
            .map(|i| {
                let sealed = run.outputs[i as usize] & output::SEAL != 0;
                (i, if sealed { Place::Sealed { len: 64 } } else { Place::Inline { len: 8 } })
            })
            .collect();
        let count = upto - from;
        let timing = Timing {
            class: 0,
            count,
            total_ns: u64::from(count) * self.task_ns,
            max_ns: self.task_ns,
            total_bytes: u64::from(count) * 8,
        };
        let timings = if count > 0 { vec![timing] } else { Vec::new() };
        Report { run: run.id, upto, ended, troubles: Vec::new(), published, contained: Vec::new(), timings }
    }

    /// Reports all of a run.
    pub(crate) fn finish(&mut self, run: &Run) {
        let report = self.report(run, 0, run.tasks.len() as u32, true);
        self.deliver(report);
    }

    pub(crate) fn deliver(&mut self, report: Report) {
        if report.ended {
            self.runs.remove(&report.run);
        }
        self.node(FromNode::Report(report));
    }

    /// Reports a run of which one task had trouble; those after it ended well.
    pub(crate) fn finish_with(&mut self, run: &Run, place: u32, trouble: Trouble) {
        let mut report = self.report(run, 0, run.tasks.len() as u32, true);
        report.published.retain(|(i, _)| *i != place);
        report.troubles.push((place, trouble));
        self.deliver(report);
    }

    /// Executes whatever is assigned until nothing is any more.
    pub(crate) fn run_all(&mut self) {
        for _ in 0..10_000 {
            let asked: Vec<ToNode> = self.sent.extract_if(.., |m| matches!(m, ToNode::Publish { .. })).collect();
            for message in asked {
                let ToNode::Publish { worker, objects, .. } = message else { continue };
                for object in objects {
                    self.node(FromNode::Published {
                        worker,
                        object,
                        place: Some(Place::Inline { len: 8 }),
                        contained: Vec::new(),
                    });
                }
            }
            match self.runs.values().next().cloned() {
                Some(run) => self.finish(&run),
                None if self.sent.iter().any(|m| matches!(m, ToNode::Publish { .. })) => {}
                None => return,
            }
        }
        panic!("the work does not end");
    }

    /// How often the head let go of an object: freed, or dropped by a worker.
    pub(crate) fn freed(&self, object: ObjectId) -> usize {
        let mut count = 0;
        for message in &self.sent {
            if let ToNode::Free(objects) = message {
                count += objects.iter().filter(|&&o| o == object).count();
            }
        }
        count
    }

    pub(crate) fn dropped(&self, object: ObjectId) -> usize {
        let mut count = 0;
        for message in &self.sent {
            if let ToNode::Drop { objects, .. } = message {
                count += objects.iter().filter(|&&o| o == object).count();
            }
        }
        count
    }

    pub(crate) fn forgotten(&self, graph: GraphId) -> bool {
        self.sent.contains(&ToNode::Forget(graph))
    }

    /// The answer to a question, which must have come and be all values.
    pub(crate) fn values(&self, token: u64) -> usize {
        let answer = self.answers.get(&token).unwrap_or_else(|| panic!("question {token} is not answered"));
        assert!(answer.iter().all(|(_, r)| r.is_ok()), "{answer:?}");
        answer.len()
    }

    /// The first failure in the answer to a question.
    pub(crate) fn failure(&self, token: u64) -> Failure {
        let answer = self.answers.get(&token).unwrap_or_else(|| panic!("question {token} is not answered"));
        answer.iter().find_map(|(_, r)| r.clone().err()).expect("something failed")
    }
}

pub(crate) fn graph_id(seq: u32) -> GraphId {
    GraphId { peer: USER, seq }
}

pub(crate) fn object(graph: GraphId, index: u32) -> ObjectId {
    ObjectId { graph, index }
}

/// A graph of one class whose order is that of its tasks. `outputs` are held by who submits it.
pub(crate) fn graph(id: GraphId, inputs: &[&[u32]], outputs: &[u32]) -> GraphSpec {
    let mut csr = Csr::new();
    for row in inputs {
        csr.push_row(row.iter().copied());
    }
    GraphSpec {
        id,
        inputs: csr,
        externals: Vec::new(),
        position: (0..inputs.len() as u32).collect(),
        class: vec![0; inputs.len()],
        classes: vec![ClassSpec { fingerprint: 7, max_retries: 3, retries: 0, demand: 0, part: false }],
        outputs: outputs.to_vec(),
        kind: GraphKind::Computation,
        contained: Vec::new(),
        demands: Vec::new(),
        priority: 0,
    }
}

/// A graph of `n` tasks without edges, all of them outputs.
pub(crate) fn wide(id: GraphId, n: u32) -> GraphSpec {
    let rows: Vec<&[u32]> = vec![&[]; n as usize];
    graph(id, &rows, &(0..n).collect::<Vec<_>>())
}

/// A chain of `n` tasks, of which the last is the output.
pub(crate) fn chain(id: GraphId, n: u32) -> GraphSpec {
    let rows: Vec<Vec<u32>> = (0..n).map(|i| i.checked_sub(1).into_iter().collect()).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    graph(id, &rows, &[n - 1])
}
