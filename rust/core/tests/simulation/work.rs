//! How the world's workers work: frames, tasks, questions from inside a task.

use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{Failure, Place, ToHead, Trouble};

use crate::plan::{CLASS_NS, Kind};
use crate::rng::mix;
use crate::worker::{Doing, Frame};
use crate::world::{Event, FromWorker, Submitted, World};

impl World {
    /// A frame has come to a worker: it reads it at once if it is idle or waits, else between two tasks.
    pub(crate) fn frame(&mut self, id: WorkerId, frame: Frame) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.inbox.push_back(frame);
        match worker.doing {
            Doing::Nothing => self.go_on(id),
            Doing::Blocked { .. } => self.read_frames(id),
            Doing::Task { .. } => {}
        }
    }

    fn read_frames(&mut self, id: WorkerId) {
        while let Some(frame) = self.workers.get_mut(&id).and_then(|worker| worker.inbox.pop_front()) {
            match frame {
                Frame::Run(run) => {
                    let executing = self.executing(run);
                    self.workers.get_mut(&id).expect("it reads").queue.push_back(executing);
                }
                Frame::Publish(objects) => {
                    for object in objects {
                        let refused = self.rng.percent(self.faults.refuse_percent);
                        let worker = self.workers.get_mut(&id).expect("it reads");
                        let value = worker.values.get(&object).copied().filter(|_| !refused);
                        if refused && worker.values.remove(&object).is_some() {
                            self.lose(object);
                        }
                        self.worker_says(id, FromWorker::Published(id, object, value));
                    }
                }
                Frame::Drop(objects) => {
                    for object in objects {
                        self.workers.get_mut(&id).expect("it reads").values.remove(&object);
                    }
                }
            }
        }
    }

    /// Between two tasks: reads, claims and starts what comes next.
    fn go_on(&mut self, id: WorkerId) {
        loop {
            if self.rng.percent(70) || self.workers[&id].queue.is_empty() {
                self.read_frames(id);
            }
            let now = self.now;
            let worker = self.workers.get_mut(&id).expect("it works");
            worker.doing = Doing::Nothing;
            let Some(executing) = worker.queue.front() else { return };
            let seq = executing.run.id.seq;
            let Some(index) = worker.page().claim(seq) else {
                self.end_run(id);
                continue;
            };
            let (graph, task) = (executing.run.graph, executing.run.tasks[index as usize]);
            let inputs = self.inputs(graph, task);
            let worker = &self.workers[&id];
            let executing = worker.queue.front().expect("found above");
            let listed = &executing.run.inputs;
            let can_read = |object| {
                worker.values.contains_key(&object) || (listed.contains(&object) && self.table.contains_key(&object))
            };
            if let Some(trouble) = executing.trouble(&inputs, can_read) {
                if let Trouble::InputNotHere(_) = trouble {
                    self.not_here += 1;
                }
                self.trouble(id, index, &inputs, trouble);
                continue;
            }
            worker.page().start(seq, index, now);
            let class = self.graphs[&graph].plan.tasks[task as usize].class;
            let usual = CLASS_NS[class as usize];
            let ns = match self.rng.below(50) {
                0 => usual * 20,
                _ => usual / 2 + self.rng.below(usual),
            };
            let worker = self.workers.get_mut(&id).expect("it works");
            worker.doing = Doing::Task { index, started: now };
            worker.step += 1;
            let step = worker.step;
            self.after(ns, Event::Step(id, step));
            return;
        }
    }

    fn trouble(&mut self, id: WorkerId, index: u32, inputs: &[ObjectId], trouble: Trouble) {
        let worker = self.workers.get_mut(&id).expect("it works");
        let executing = worker.queue.front_mut().expect("it executes");
        for object in executing.troubled(index, inputs, trouble) {
            worker.values.remove(&object);
        }
        worker.page().rest();
    }

    fn end_run(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).expect("it works");
        let mut executing = worker.queue.pop_front().expect("it executes");
        worker.assigned.remove(&executing.run.id.seq);
        let (report, values) = executing.take_report(true);
        self.worker_says(id, FromWorker::Report(report, values));
    }

    /// The present task has computed long enough.
    pub(crate) fn worker_step(&mut self, id: WorkerId, step: u64) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.step != step {
            return;
        }
        let Doing::Task { index, started } = worker.doing else { return };
        let run = &worker.queue.front().expect("it executes").run;
        let (graph, task) = (run.graph, run.tasks[index as usize]);
        let kind = self.graphs[&graph].plan.tasks[task as usize].kind.clone();
        match kind {
            Kind::Plain => self.end_task(id, index, started, None),
            Kind::Raises => self.raise(id, index),
            Kind::Flaky(times) => {
                let attempts = self.attempts.entry(ObjectId { graph, index: task }).or_insert(0);
                *attempts += 1;
                if *attempts <= times { self.raise(id, index) } else { self.end_task(id, index, started, None) }
            }
            Kind::Nested(plan) => {
                let peer = PeerId::of_worker(id);
                let worker = self.workers.get_mut(&id).expect("it works");
                let nested = GraphId { peer, seq: worker.next_graph };
                worker.next_graph += 1;
                worker.nested = Some(nested);
                let depth = 1 + self.depth_of(graph);
                self.deepest = self.deepest.max(depth);
                let spec = plan.spec(nested, Vec::new(), self.faults.max_retries);
                let objects: Vec<ObjectId> =
                    plan.outputs.iter().map(|&index| ObjectId { graph: nested, index }).collect();
                let upto = plan.len();
                let submitted = Submitted {
                    plan: *plan,
                    externals: Vec::new(),
                    may_fail: false,
                    given_up: false,
                    forgotten: false,
                    beginnings_gone: false,
                    parent: Some(graph),
                };
                self.graphs.insert(nested, submitted);
                self.worker_says(id, FromWorker::Driver(peer, ToHead::Submit(Box::new(spec))));
                self.worker_says(id, FromWorker::Driver(peer, ToHead::Admit { graph: nested, upto }));
                self.block(id, index, started, objects);
            }
            Kind::Waits(object, _) => {
                let peer = PeerId::of_worker(id);
                self.deepened += 1;
                self.worker_says(id, FromWorker::Driver(peer, ToHead::Hold(vec![object])));
                self.block(id, index, started, vec![object]);
            }
        }
    }

    /// How deep a graph was when it was submitted, not counting what moved it deeper since.
    fn depth_of(&self, graph: GraphId) -> u32 {
        let mut depth = 0;
        let mut peer = graph.peer;
        while let Some(worker) = peer.worker() {
            depth += 1;
            match self.workers.get(&worker).and_then(|worker| worker.queue.front()) {
                Some(executing) => peer = executing.run.graph.peer,
                None => break,
            }
        }
        depth
    }

    fn block(&mut self, id: WorkerId, index: u32, started: u64, objects: Vec<ObjectId>) {
        let peer = PeerId::of_worker(id);
        let worker = self.workers.get_mut(&id).expect("it works");
        let token = worker.next_token;
        worker.next_token += 1;
        worker.doing = Doing::Blocked { index, started, token };
        let need = objects.len() as u32;
        self.worker_says(id, FromWorker::Driver(peer, ToHead::Await { token, objects, need, fail_fast: true }));
        // What is done counts now: others may need it meanwhile.
        self.report_so_far(id);
        self.read_frames(id);
    }

    /// A task's question is answered.
    pub(crate) fn worker_answer(&mut self, id: WorkerId, token: u64, ended: &[(ObjectId, Result<Place, Failure>)]) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Doing::Blocked { index, started, token: asked } = worker.doing else { panic!("nobody asked") };
        assert_eq!(token, asked, "the answer is to another question");
        worker.nested = None;
        let mut folded = Some(0);
        let mut reads = Vec::new();
        for (object, result) in ended {
            if let Err(failure) = result {
                assert!(self.may_fail(*object), "{object:?} failed: {failure:?}");
                folded = None;
            } else if let Some(&value) = self.table.get(object) {
                assert_eq!(Some(value), self.oracle(*object), "{object:?} has a wrong value");
                reads.push(value);
            } else {
                assert!(self.lost.contains(object), "{object:?} is ready and nowhere");
                // A real driver asks again; what it would read then is known.
                reads.extend(self.oracle(*object));
            }
        }
        let objects = ended.iter().map(|(object, _)| *object).collect();
        let peer = PeerId::of_worker(id);
        let nested: Vec<ObjectId> = match ended.first() {
            Some((object, _)) if object.graph.peer == peer => {
                let plan = &self.graphs[&object.graph].plan;
                plan.outputs.iter().map(|&index| ObjectId { graph: object.graph, index }).collect()
            }
            _ => objects,
        };
        self.worker_says(id, FromWorker::Driver(peer, ToHead::Release(nested)));
        match folded {
            Some(_) => self.end_task(id, index, started, Some(reads)),
            None => self.raise(id, index),
        }
    }

    fn raise(&mut self, id: WorkerId, index: u32) {
        self.raised = true;
        let run = &self.workers[&id].queue.front().expect("it executes").run;
        let (graph, task) = (run.graph, run.tasks[index as usize]);
        let inputs = self.inputs(graph, task);
        let plan = &self.graphs[&graph].plan;
        let may_retry = plan.needs[plan.tasks[task as usize].class as usize].0 > 0;
        // What a task raises that never ends well is not always what it is run again for.
        let flaky = matches!(plan.tasks[task as usize].kind, Kind::Flaky(_));
        let error = b"raised".as_slice().into();
        if may_retry && (flaky || self.rng.percent(80)) {
            self.trouble(id, index, &inputs, Trouble::Retry(error));
            self.raised_again += 1;
            let worker = self.workers.get_mut(&id).expect("it works");
            let spoilt: Vec<_> = inputs.into_iter().filter(|input| worker.values.remove(input).is_some()).collect();
            for object in spoilt {
                self.lose(object);
            }
        } else {
            self.trouble(id, index, &inputs, Trouble::Raised(error));
        }
        self.report_now_and_then(id);
        self.go_on(id);
    }

    fn end_task(&mut self, id: WorkerId, index: u32, started: u64, reads: Option<Vec<u64>>) {
        let now = self.now;
        let run = &self.workers[&id].queue.front().expect("it executes").run;
        let (graph, task) = (run.graph, run.tasks[index as usize]);
        let object = ObjectId { graph, index: task };
        let inputs = self.inputs(graph, task);
        let planned = &self.graphs[&graph].plan.tasks[task as usize];
        let class = planned.class;
        let mut value = planned.salt;
        let worker = &self.workers[&id];
        for input in &inputs {
            // What was freed since the task began was pinned by it.
            let read = worker.values.get(input).or_else(|| self.table.get(input)).copied();
            value = mix(value, read.or_else(|| self.oracle(*input)).expect("a task starts with its inputs"));
        }
        if let Some(reads) = reads {
            value = reads.into_iter().fold(value, mix);
        }
        let worker = self.workers.get_mut(&id).expect("it works");
        worker.values.insert(object, value);
        let executing = worker.queue.front_mut().expect("it executes");
        for unused in executing.ended(index, &inputs, class, now - started, value) {
            worker.values.remove(&unused);
        }
        worker.page().rest();
        self.report_now_and_then(id);
        self.go_on(id);
    }

    fn report_now_and_then(&mut self, id: WorkerId) {
        if self.rng.percent(25) {
            self.report_so_far(id);
        }
    }

    fn report_so_far(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).expect("it works");
        let (report, values) = worker.queue.front_mut().expect("it executes").take_report(false);
        self.worker_says(id, FromWorker::Report(report, values));
    }
}
