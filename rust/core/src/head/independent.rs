//! Tasks that stand for themselves: what fails or is cancelled takes only those along that read it.

use alloc::vec::Vec;

use super::actors::actor_died;
use super::graph::{Graph, TaskState};
use super::report::{Done, complete};
use super::{Flight, Head, Role};
use crate::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use crate::message::{ActorEnd, Failure, FailureKind, GraphKind, Place, Report, ToNode, Trouble, output};

impl Head {
    /// Tasks of a graph have failed, and all of the graph that reads them.
    pub(super) fn fail_tasks(&mut self, id: GraphId, failed: Vec<(u32, Failure)>) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if !graph.running() || failed.is_empty() {
            return;
        }
        let mut done = Done::default();
        let mut frees = Vec::new();
        let mut withdrawn = Vec::new();
        let mut ended = Vec::new();
        let mut open = failed;
        open.reverse();
        let (len, actor) = (graph.len(), graph.is_actor());
        while let Some((task, failure)) = open.pop() {
            match graph.tasks[task as usize].state {
                TaskState::Failed => continue,
                TaskState::Done => {
                    // An actor has ended, or what was made is lost for good.
                    graph.tasks[task as usize].state = TaskState::Failed;
                    if graph.objects[task as usize].place.take().is_some() {
                        frees.push(ObjectId { graph: id, index: task });
                        withdrawn.push((ObjectId { graph: id, index: task }, failure.clone()));
                    }
                }
                state => {
                    if matches!(state, TaskState::Ready | TaskState::Publishing) {
                        graph.unready(task);
                    }
                    graph.finish(task, TaskState::Failed);
                    for &input in graph.inputs.row(task).iter().filter(|&&input| input < len) {
                        let object = &mut graph.objects[input as usize];
                        object.consumers -= 1;
                        if !object.needed() && object.made() {
                            done.unneeded.push(input);
                        }
                    }
                }
            }
            graph.cancelled.remove(&task);
            for &next in graph.dependents.row(task) {
                // What is in a run comes back as skipped.
                if !matches!(graph.tasks[next as usize].state, TaskState::Assigned | TaskState::Done) {
                    open.push((next, failure.clone()));
                }
            }
            graph.failures.insert(task, failure);
            ended.push(task);
        }
        if graph.unfinished == 0 {
            let rank = graph.rank;
            self.queue.remove(&rank);
            self.forget_spread(id);
        }
        self.free(frees, Vec::new());
        self.settle(id, done);
        for index in ended {
            self.notify(ObjectId { graph: id, index });
        }
        for (object, failure) in withdrawn {
            self.withdraw(object, &failure);
        }
        if actor {
            self.forget_actor(ObjectId { graph: id, index: 0 });
        }
        self.line_up(id);
        self.release_lineage(id);
        self.remove_if_over(id);
    }

    /// Tasks of a graph demand what they can never have.
    pub(super) fn fail_infeasible(&mut self, id: GraphId, failed: Vec<Failure>) {
        if self.graphs.get(&id).is_some_and(|graph| graph.kind == GraphKind::Independent) {
            self.fail_tasks(id, failed.into_iter().map(|failure| (failure.origin.index, failure)).collect());
        } else if let Some(failure) = failed.first() {
            self.fail_graph(id, failure);
        }
    }

    /// A published object is there no more, and never will be.
    fn withdraw(&mut self, object: ObjectId, failure: &Failure) {
        let mut readers = Vec::new();
        for (&id, graph) in &mut self.graphs {
            for (k, external) in (0u32..).zip(&mut graph.externals) {
                if external.object == object && external.available {
                    external.available = false;
                    for &task in &external.readers {
                        let record = &mut graph.tasks[task as usize];
                        record.missing += u32::from(!matches!(record.state, TaskState::Done | TaskState::Failed));
                    }
                    readers.push((id, k));
                }
            }
        }
        for (id, k) in readers {
            self.external_failed(id, k, failure);
        }
    }

    /// What a graph of such tasks reads from outside will never be there.
    pub(super) fn fail_readers(&mut self, id: GraphId, k: u32, failure: &Failure) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let external = &mut graph.externals[k as usize];
        external.failed = Some(failure.clone());
        let released = core::mem::take(&mut external.held).then_some(external.object);
        let waits = |task: &&u32| !matches!(graph.tasks[**task as usize].state, TaskState::Assigned | TaskState::Done);
        let readers = external.readers.iter().filter(waits);
        let failed = readers.map(|&task| (task, failure.clone())).collect();
        self.fail_tasks(id, failed);
        if let Some(object) = released {
            self.drop_holders(&[object]);
        }
    }

    /// Stops one task.
    pub(super) fn cancel_task(&mut self, now: u64, object: ObjectId, force: bool, recursive: bool) {
        let Some(graph) = self.graphs.get_mut(&object.graph) else { return };
        if !graph.stands_alone() {
            self.cancel_graph(now, object.graph);
            return;
        }
        let task = object.index;
        // To cancel an actor is to kill it, and that is another message.
        if task >= graph.len() || graph.is_actor() {
            return;
        }
        match graph.tasks[task as usize].state {
            TaskState::Done | TaskState::Failed => {}
            TaskState::Waiting | TaskState::Ready | TaskState::Publishing => {
                self.fail_tasks(object.graph, Vec::from([(task, cancelled(object))]));
            }
            TaskState::Assigned => {
                graph.cancelled.insert(task, (force, recursive));
                let deferred = self.workers.iter().find(|(_, worker)| worker.deferred.contains(&object));
                if let Some((&worker, _)) = deferred {
                    self.to_node(ToNode::CancelDeferred { worker, object });
                    return;
                }
                let place = |f: &Flight| {
                    let tasks = &f.tasks[f.upto as usize..f.limit as usize];
                    let at = tasks.iter().position(|&other| other == task).filter(|_| f.graph == object.graph);
                    at.map(|at| (f.seq, f.upto + at as u32))
                };
                let found =
                    self.workers.iter().find_map(|(&id, worker)| Some((id, worker.flights.iter().find_map(place)?)));
                if let Some((worker, (seq, from))) = found {
                    self.recall_calls_behind(worker, seq);
                    // If it runs, the answer says so.
                    self.to_node(ToNode::Recall { run: RunId { worker, seq }, from });
                }
            }
        }
    }

    /// Part of a run of an actor's calls is taken back. What is behind it comes back before, the last first, so that none
    /// of that begins before what is done again of the run.
    fn recall_calls_behind(&mut self, id: WorkerId, seq: u32) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.of_pool()) else { return };
        let mut behind = Vec::new();
        for flight in worker.flights.iter_mut().rev().take_while(|flight| flight.seq != seq) {
            flight.recalled = true;
            behind.push(flight.seq);
        }
        if let Some(flight) = worker.flights.iter_mut().find(|flight| flight.seq == seq) {
            flight.recalled = true;
        }
        for seq in behind {
            self.to_node(ToNode::Recall { run: RunId { worker: id, seq }, from: 0 });
        }
    }

    /// A run was recalled up to `limit`: what is to be cancelled and did not come back has begun.
    pub(super) fn interrupt_cancelled(&mut self, now: u64, run: RunId, limit: u32) {
        let Some(worker) = self.workers.get(&run.worker) else { return };
        let Some(flight) = worker.flights.iter().find(|f| f.seq == run.seq) else { return };
        let Some(graph) = self.graphs.get(&flight.graph) else { return };
        if graph.cancelled.is_empty() || limit == 0 {
            return;
        }
        // Tasks are claimed one after the other: only the last can run. With one that returns several values, what takes
        // these did not come back.
        let index = output::begin(&flight.outputs, limit - 1);
        let Some(&task) = flight.tasks.get(index as usize) else { return };
        let Some(&(force, recursive)) = graph.cancelled.get(&task).filter(|_| index >= flight.upto) else { return };
        // A call that runs on an actor's own thread is left alone, as in Ray.
        if worker.role != Role::Pool {
            return;
        }
        self.to_node(if force { ToNode::Kill(run.worker) } else { ToNode::Interrupt { run, index } });
        if recursive {
            self.cancel_children(now, run);
        }
    }

    /// Stops what a task of a run has submitted.
    fn cancel_children(&mut self, now: u64, run: RunId) {
        let Some(record) = self.peers.get(&PeerId::of_worker(run.worker)) else { return };
        for id in record.graphs.clone() {
            let graph = self.graphs.get(&id).filter(|graph| graph.parent == Some(run));
            let Some(graph) = graph else { continue };
            // What takes a part of a result ends with what it takes it from.
            let tasks: Vec<u32> = (0..graph.len()).filter(|&task| !graph.is_part(task)).collect();
            for index in tasks {
                self.cancel_task(now, ObjectId { graph: id, index }, false, true);
            }
        }
    }

    /// A task that a worker has deferred has ended.
    pub(super) fn on_completed(
        &mut self,
        worker_id: WorkerId,
        object: ObjectId,
        outcome: Result<(Place, Vec<ObjectId>), Trouble>,
    ) {
        let known = self.workers.get_mut(&worker_id).is_some_and(|worker| worker.deferred.remove(&object));
        if !known {
            return;
        }
        let (id, task) = (object.graph, object.index);
        let graph = self.graphs.get_mut(&id);
        let Some(graph) =
            graph.filter(|graph| graph.running() && graph.tasks[task as usize].state == TaskState::Assigned)
        else {
            if outcome.is_ok() {
                self.to_node(ToNode::Free(Vec::from([object])));
            }
            return;
        };
        let mut done = Done::default();
        let mut failed = None;
        match outcome {
            Ok((place, contained)) => {
                self.counters.tasks += 1;
                graph.objects[task as usize].place = Some(place);
                graph.cancelled.remove(&task);
                complete(graph, id, task, &mut done);
                self.hold_contents(object, contained);
            }
            Err(Trouble::Retry(_)) if graph.retries(task) => {
                self.counters.reruns += 1;
                graph.tasks[task as usize].state = TaskState::Waiting;
                done.returned.push(task);
            }
            Err(Trouble::Cancelled) => failed = Some(FailureKind::Cancelled),
            Err(Trouble::Raised(error) | Trouble::Retry(error) | Trouble::Unsendable(error)) => {
                let attempts = u32::from(graph.tasks[task as usize].raised) + 1;
                failed = Some(FailureKind::Raised { error, attempts });
            }
            Err(Trouble::Skipped | Trouble::InputNotHere(_) | Trouble::Deferred) => {
                graph.tasks[task as usize].state = TaskState::Waiting;
                done.returned.push(task);
            }
        }
        self.settle(id, done);
        if let Some(kind) = failed {
            self.fail_tasks(id, Vec::from([(task, Failure { origin: object, kind })]));
        }
        self.line_up(id);
        self.release_lineage(id);
        self.remove_if_over(id);
    }

    /// A published value names other objects, and holds them.
    pub(super) fn hold_contents(&mut self, object: ObjectId, contained: Vec<ObjectId>) {
        if contained.is_empty() {
            return;
        }
        if !self.puts.contains_key(&object) && !self.is_published(object) {
            return;
        }
        let mut held = contained;
        // What names itself would never go.
        held.retain(|&inner| inner != object && self.add_holder_late(inner));
        self.forget_contents(&[object]);
        if !held.is_empty() {
            self.contents.insert(object, held);
        }
    }

    /// Values are gone: what they named they hold no longer. The objects are let go at the end of the event, since a value
    /// may name one that names another, and so on.
    pub(super) fn forget_contents(&mut self, objects: &[ObjectId]) {
        for object in objects {
            if let Some(contained) = self.contents.remove(object) {
                self.loose.extend(contained);
            }
        }
    }

    /// A deferred task's worker has died. Returns the failure, if it is not to be run again.
    pub(super) fn deferred_died(&mut self, object: ObjectId, end: &ActorEnd) -> Option<Failure> {
        let graph = self.graphs.get_mut(&object.graph)?;
        if !graph.running() || graph.tasks[object.index as usize].state != TaskState::Assigned {
            return None;
        }
        graph.tasks[object.index as usize].state = TaskState::Waiting;
        let over = !graph.survives(object.index);
        self.counters.reruns += u64::from(!over);
        let restarts = self.restarts_of_called(object.graph).unwrap_or(0);
        over.then(|| Failure { origin: object, kind: actor_died(end.clone(), restarts) })
    }
}

impl Graph {
    /// Why a task that came back, or could begin, is not to run.
    pub(super) fn doom(&self, id: GraphId, task: u32) -> Option<Failure> {
        if !self.stands_alone() || self.tasks[task as usize].state != TaskState::Waiting {
            return None;
        }
        if self.cancelled.contains_key(&task) {
            return Some(cancelled(ObjectId { graph: id, index: task }));
        }
        let len = self.len();
        self.inputs.row(task).iter().find_map(|&input| {
            if input < len {
                self.failures.get(&input).cloned()
            } else {
                self.externals[(input - len) as usize].failed.clone()
            }
        })
    }
}

/// Whether what a report says of deferred tasks can be true.
pub(super) fn may_defer(report: &Report, graph: &Graph) -> bool {
    graph.is_calls() || report.troubles.iter().all(|(_, trouble)| !matches!(trouble, Trouble::Deferred))
}

pub(super) fn cancelled(origin: ObjectId) -> Failure {
    Failure { origin, kind: FailureKind::Cancelled }
}
