//! What workers did: reports, recalled tasks, published results.

use alloc::vec::Vec;

use super::assign::place_ready;
use super::graph::{Graph, TaskState};
use super::independent::may_defer;
use super::{Flight, Head, Role, Worker};
use crate::ids::{GraphId, ObjectId, RunId, WorkerId};
use crate::message::{Failure, FailureKind, Place, Report, ToNode, Trouble, output};

impl Head {
    pub(super) fn on_report(&mut self, mut report: Report) {
        let worker_id = report.run.worker;
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        let Some(at) = worker.flights.iter().position(|f| f.seq == report.run.seq) else { return };
        let deferred = |graph: GraphId| self.graphs.get(&graph).is_some_and(|graph| may_defer(&report, graph));
        if !fits(&report, &worker.flights[at]) || !deferred(worker.flights[at].graph) {
            // Nothing it says can be believed; its death gives its tasks back.
            self.to_node(ToNode::Kill(worker_id));
            return;
        }
        worker.sample_every = self.config.spread_ns;
        let flight = &mut worker.flights[at];
        let id = flight.graph;
        let graph = self.graphs.get_mut(&id).expect("a graph with runs in flight exists");
        for timing in &report.timings {
            if let Some(spec) = graph.classes.get(timing.class as usize) {
                self.estimates.learn(spec.fingerprint, timing);
            }
        }
        if !report.timings.is_empty() {
            flight.unknown = false;
        }
        let mut done = Done::default();
        let mut frees = Vec::new();
        for &(index, place) in &report.published {
            let task = flight.tasks[index as usize];
            if graph.running() && graph.tasks[task as usize].state != TaskState::Failed {
                graph.objects[task as usize].place = Some(place);
            } else {
                frees.push(ObjectId { graph: id, index: task });
            }
        }
        let mut failure = None;
        let mut failed = Vec::new();
        let mut lost = Vec::new();
        let mut interrupts = Vec::new();
        let contained = core::mem::take(&mut report.contained);
        let named: Vec<ObjectId> =
            contained.iter().map(|(place, _)| ObjectId { graph: id, index: flight.tasks[*place as usize] }).collect();
        let mut troubles = report.troubles.into_iter().peekable();
        for index in flight.upto..report.upto {
            let task = flight.tasks[index as usize];
            let trouble = troubles.next_if(|(place, _)| *place == index).map(|(_, trouble)| trouble);
            let trouble = match trouble {
                Some(Trouble::Unsendable(error)) if graph.running() => {
                    let object = &mut graph.objects[task as usize];
                    if object.holders > 0 || object.must_leave {
                        done.drop.push((worker_id, ObjectId { graph: id, index: task }));
                        Some(Trouble::Raised(error))
                    } else {
                        object.stays = true;
                        flight.kept.push(task);
                        None
                    }
                }
                trouble => trouble,
            };
            if trouble.is_some() {
                flight.troubled.push(index);
            }
            if matches!(trouble, Some(Trouble::InputNotHere(_))) {
                keep_inputs(graph, flight, task);
            }
            if matches!(trouble, Some(Trouble::Deferred)) {
                // It completes it in any case.
                worker.deferred.insert(ObjectId { graph: id, index: task });
            }
            match trouble {
                // An actor was killed under it, say.
                _ if graph.tasks[task as usize].state == TaskState::Failed => {}
                // What a graph still makes after its end is dropped.
                _ if !graph.running() => graph.finish(task, TaskState::Failed),
                Some(Trouble::Deferred) => {
                    if graph.cancelled.contains_key(&task) {
                        interrupts.push(ObjectId { graph: id, index: task });
                    }
                }
                // An interrupt that was meant for the task before it is nothing to this one.
                Some(Trouble::Cancelled) if graph.stands_alone() && !graph.cancelled.contains_key(&task) => {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    done.returned.push(task);
                }
                Some(Trouble::Cancelled) => failed.push((task, FailureKind::Cancelled)),
                None => {
                    self.counters.tasks += 1;
                    graph.cancelled.remove(&task);
                    if graph.objects[task as usize].place.is_none() {
                        graph.objects[task as usize].resident = Some(worker_id);
                    }
                    complete(graph, id, task, &mut done);
                }
                Some(Trouble::Retry(_)) if graph.retries(task) => {
                    self.counters.reruns += 1;
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    let object = |index| ObjectId { graph: id, index };
                    for input in spoil_inputs(graph, flight, task, worker_id) {
                        if worker.kept.remove(&object(input)) {
                            done.drop.push((worker_id, object(input)));
                        }
                        if graph.objects[input as usize].place.is_none() {
                            done.gone.push(object(input));
                        }
                    }
                    done.returned.push(task);
                }
                Some(Trouble::Raised(error) | Trouble::Retry(error)) => {
                    let attempts = u32::from(graph.tasks[task as usize].raised) + 1;
                    failed.push((task, FailureKind::Raised { error, attempts }));
                }
                // Of a graph that is over, which the first arm has seen to.
                Some(Trouble::Unsendable(_)) => {}
                // The graph ends with this report, or the input is made again, or it is told again which is missing.
                Some(Trouble::Skipped) => {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    done.returned.push(task);
                }
                Some(Trouble::InputNotHere(objects)) => {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    let read = |o: &ObjectId| graph.inputs.row(task).iter().any(|&i| graph.object_id(id, i) == *o);
                    lost.extend(objects.into_iter().filter(read).map(|object| (task, object)));
                    done.returned.push(task);
                }
            }
        }
        if !graph.stands_alone() {
            for (task, kind) in failed.drain(..) {
                graph.finish(task, TaskState::Failed);
                let origin = ObjectId { graph: id, index: task };
                failure.get_or_insert(Failure { origin, kind });
            }
        }
        let makes = graph.is_actor();
        flight.upto = report.upto;
        if report.ended {
            let flight = worker.flights.remove(at).expect("found above");
            self.end_flight(worker_id, flight, &mut done);
        }
        self.free(frees, Vec::new());
        // Before anything is let go: what a result names may have no other holder any more.
        for (object, (_, objects)) in named.into_iter().zip(contained) {
            self.hold_contents(object, objects);
        }
        let failed = failed.into_iter().map(|(task, kind)| {
            let origin = ObjectId { graph: id, index: task };
            (task, Failure { origin, kind })
        });
        let failed: Vec<(u32, Failure)> = failed.collect();
        if let Some((_, failure)) = failed.first().filter(|_| makes) {
            self.on_not_made(ObjectId { graph: id, index: 0 }, failure);
        }
        self.fail_tasks(id, failed);
        self.settle(id, done);
        for object in interrupts {
            self.to_node(ToNode::CancelDeferred { worker: worker_id, object });
        }
        if makes {
            self.on_made(worker_id, ObjectId { graph: id, index: 0 }, report.ended);
        }
        for (task, object) in lost {
            self.on_lost(object, worker_id);
            if object.graph != id && self.too_many_misses(id, task) {
                let lost = Failure { origin: object, kind: FailureKind::Lost };
                if self.graphs.get(&id).is_some_and(Graph::stands_alone) {
                    self.fail_tasks(id, Vec::from([(task, lost)]));
                } else {
                    failure.get_or_insert(lost);
                }
            }
        }
        if let Some(failure) = failure {
            self.fail_graph(id, &failure);
        }
        self.release_lineage(id);
        self.remove_if_over(id);
    }

    /// The worker is done with a run: what it still keeps of it is known from here on.
    fn end_flight(&mut self, worker_id: WorkerId, mut flight: Flight, done: &mut Done) {
        let id = flight.graph;
        let worker = self.workers.get_mut(&worker_id).expect("the worker that reported exists");
        if worker.flights.is_empty() {
            worker.sample_at = None;
            worker.kill_at = None;
            // An actor keeps what it was made with.
            if let Some(holding) = worker.holding.take_if(|_| worker.role == Role::Pool) {
                self.resources.give_back(&holding);
            }
        }
        if let Role::Actor(actor) = worker.role {
            self.stirred.insert(actor);
        }
        let graph = self.graphs.get_mut(&id).expect("a graph with runs in flight exists");
        graph.runs -= 1;
        flight.kept.sort_unstable();
        for (index, &task) in flight.tasks.iter().enumerate() {
            let object = ObjectId { graph: id, index: task };
            let ran = (index as u32) < flight.upto && flight.troubled.binary_search(&(index as u32)).is_err();
            if !ran && flight.stale.contains(&task) && graph.objects[task as usize].resident != Some(worker_id) {
                // It has not made a new one in its place.
                outdated(worker_id, worker, object, graph.tasks[task as usize].cut, done);
            }
            if index as u32 >= flight.upto {
                // Neither reported nor recalled: the worker gave them back.
                if (index as u32) < flight.limit && graph.tasks[task as usize].state != TaskState::Failed {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    done.returned.push(task);
                }
                continue;
            }
            if !ran {
                continue;
            }
            let kept = flight.outputs[index] & output::KEEP != 0 || flight.kept.binary_search(&task).is_ok();
            let kept = kept && !flight.spoilt.contains(&task);
            let Graph { tasks, objects, .. } = &mut *graph;
            let record = &mut objects[task as usize];
            // Else it was lost meanwhile, and made again or is about to be.
            let current = tasks[task as usize].state == TaskState::Done && tasks[task as usize].cut == flight.cut;
            if current && kept && record.needed() {
                worker.kept.insert(object);
                record.resident = Some(worker_id);
            } else if current && record.resident == Some(worker_id) {
                record.forget_resident();
                if kept {
                    done.drop.push((worker_id, object));
                } else if record.needed() && record.place.is_none() {
                    // Somebody came to need it after the run was cut.
                    done.gone.push(object);
                }
            } else if kept && record.resident != Some(worker_id) {
                outdated(worker_id, worker, object, tasks[task as usize].cut, done);
            }
        }
    }

    /// Carries out what followed from completed tasks.
    pub(super) fn settle(&mut self, id: GraphId, done: Done) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let mut asks = Vec::new();
        let mut doomed = Vec::new();
        if graph.running() {
            for task in done.ready.into_iter().chain(done.returned) {
                if let Some(failure) = graph.doom(id, task) {
                    doomed.push((task, failure));
                    continue;
                }
                let record = &graph.tasks[task as usize];
                if record.state == TaskState::Waiting
                    && record.missing == 0
                    && graph.position[task as usize] < graph.admitted
                {
                    place_ready(graph, task, false, &mut asks);
                }
            }
        } else {
            for task in done.returned {
                if graph.tasks[task as usize].state == TaskState::Waiting {
                    graph.finish(task, TaskState::Failed);
                }
            }
        }
        let mut drops = done.drop;
        let mut frees = Vec::new();
        for task in done.unneeded {
            let kept = graph.keeps(task);
            let record = &mut graph.objects[task as usize];
            if record.needed() || kept {
                continue;
            }
            let object = ObjectId { graph: id, index: task };
            if record.place.take().is_some() {
                frees.push(object);
            }
            if let Some(worker_id) = record.resident {
                let worker = self.workers.get_mut(&worker_id).expect("a result is resident in a worker that exists");
                if worker.kept.remove(&object) {
                    drops.push((worker_id, object));
                    record.forget_resident();
                }
                // Otherwise its run is in flight: the worker drops it, or the end of the run finds it unneeded.
            }
        }
        // Somebody outside waits for what only its worker has.
        asks.extend(done.held.into_iter().filter(|&index| {
            let object = ObjectId { graph: id, index };
            self.watchers.contains_key(&object) || self.streams.contains_key(&object)
        }));
        self.free(frees, drops);
        self.publish(id, asks);
        self.on_gone(done.gone);
        for object in done.published {
            self.notify(object);
        }
        if let Some(graph) = self.graphs.get(&id).filter(|graph| graph.has_ready() && !graph.is_calls()) {
            self.ready.insert(id, graph);
        }
        self.fail_tasks(id, doomed);
        self.line_up(id);
    }

    pub(super) fn free(&mut self, frees: Vec<ObjectId>, mut drops: Vec<(WorkerId, ObjectId)>) {
        if !frees.is_empty() {
            self.forget_contents(&frees);
            self.to_node(ToNode::Free(frees));
        }
        drops.sort_unstable();
        for chunk in drops.chunk_by(|a, b| a.0 == b.0) {
            let objects = chunk.iter().map(|(_, object)| *object).collect();
            self.to_node(ToNode::Drop { worker: chunk[0].0, objects });
        }
    }

    pub(super) fn on_recalled(&mut self, now: u64, run: RunId, limit: u32) {
        self.interrupt_cancelled(now, run, limit);
        let Some(worker) = self.workers.get_mut(&run.worker) else { return };
        let Some(flight) = worker.flights.iter_mut().find(|f| f.seq == run.seq) else { return };
        if let (true, Role::Actor(actor)) = (core::mem::take(&mut flight.recalled), worker.role) {
            self.stirred.insert(actor);
        }
        let moving = core::mem::take(&mut flight.moving);
        let limit = limit.max(flight.upto);
        if limit >= flight.limit {
            return;
        }
        let id = flight.graph;
        let graph = self.graphs.get_mut(&id).expect("a graph with runs in flight exists");
        let back = flight.tasks[limit as usize..flight.limit as usize].iter().copied();
        let back: Vec<u32> = back.filter(|&task| graph.tasks[task as usize].state != TaskState::Failed).collect();
        flight.limit = limit;
        let mut done = Done::default();
        for &task in &back {
            graph.tasks[task as usize].state = TaskState::Waiting;
            graph.tasks[task as usize].moved |= moving;
            keep_inputs(graph, flight, task);
        }
        self.counters.recalls += 1;
        if moving {
            self.counters.moved += back.len() as u64;
        }
        done.returned = back;
        self.settle(id, done);
        self.remove_if_over(id);
    }

    pub(super) fn on_published(&mut self, worker_id: WorkerId, object: ObjectId, place: Option<Place>) {
        let known = self.graphs.get_mut(&object.graph).filter(|graph| object.index < graph.len());
        let Some(place) = place else {
            if let Some(graph) = known {
                graph.objects[object.index as usize].must_leave = true;
            }
            self.on_lost_copy(object, worker_id);
            return;
        };
        let Some(graph) = known else {
            // The last use came before the publication.
            if object.graph.seq != 0 {
                self.to_node(ToNode::Free(Vec::from([object])));
            }
            return;
        };
        let record = &mut graph.objects[object.index as usize];
        if record.place.is_some() {
            return;
        }
        if record.resident.is_none() || !record.needed() {
            // It is being made again already, or nobody needs it any more.
            record.asked = false;
            self.to_node(ToNode::Free(Vec::from([object])));
            return;
        }
        let mut done = Done::default();
        publish_at(graph, object.graph, object.index, place, &mut done);
        for i in 0..graph.dependents.row(object.index).len() {
            let next = graph.dependents.row(object.index)[i];
            if graph.tasks[next as usize].state == TaskState::Publishing && all_published(graph, next) {
                graph.unready(next);
                done.ready.push(next);
            }
        }
        self.settle(object.graph, done);
    }
}

/// Whether a report can be true of the run it names.
fn fits(report: &Report, flight: &Flight) -> bool {
    let ended = flight.upto..report.upto;
    (flight.upto..=flight.limit).contains(&report.upto)
        && output::begin(&flight.outputs, report.upto) == report.upto
        && report.troubles.is_sorted_by(|a, b| a.0 < b.0)
        && report.troubles.iter().all(|(place, _)| ended.contains(place))
        && report.published.iter().all(|(place, _)| ended.contains(place))
        && report.contained.iter().all(|(place, _)| report.published.iter().any(|(published, _)| published == place))
        && report.published.iter().all(|(place, _)| report.troubles.iter().all(|(trouble, _)| trouble != place))
}

/// Whether nothing that a task reads is on its way to be published any more.
fn all_published(graph: &Graph, task: u32) -> bool {
    let len = graph.len();
    graph.inputs.row(task).iter().all(|&input| input >= len || !graph.objects[input as usize].asked)
}

/// What follows from events of one graph, gathered to be carried out at once.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Tasks that miss nothing any more.
    pub(super) ready: Vec<u32>,
    /// Tasks that came back without having run.
    pub(super) returned: Vec<u32>,
    /// Objects that lost a consumer or holder and may be unneeded.
    pub(super) unneeded: Vec<u32>,
    /// Objects that somebody outside holds and only their worker has.
    pub(super) held: Vec<u32>,
    /// Objects of which somebody outside may wait to hear.
    pub(super) published: Vec<ObjectId>,
    /// Objects that are needed and that nobody has any more.
    pub(super) gone: Vec<ObjectId>,
    /// What workers may drop.
    pub(super) drop: Vec<(WorkerId, ObjectId)>,
}

/// An object's bytes are published.
pub(super) fn publish_at(graph: &mut Graph, id: GraphId, task: u32, place: Place, done: &mut Done) {
    let object = &mut graph.objects[task as usize];
    object.place = Some(place);
    object.asked = false;
    if object.holders > 0 {
        done.published.push(ObjectId { graph: id, index: task });
    }
}

/// A task's result is made: its dependents miss one input less, its inputs have one consumer less.
pub(super) fn complete(graph: &mut Graph, id: GraphId, task: u32, done: &mut Done) {
    graph.finish(task, TaskState::Done);
    let Graph { dependents, inputs, tasks, objects, .. } = graph;
    for &next in dependents.row(task) {
        let next_task = &mut tasks[next as usize];
        if matches!(next_task.state, TaskState::Done | TaskState::Failed) {
            continue;
        }
        next_task.missing -= 1;
        if next_task.missing == 0 && next_task.state == TaskState::Waiting {
            done.ready.push(next);
        }
    }
    let len = tasks.len() as u32;
    for &input in inputs.row(task) {
        if input < len {
            let object = &mut objects[input as usize];
            object.consumers -= 1;
            if !object.needed() && object.made() {
                done.unneeded.push(input);
            }
        }
    }
    let object = &objects[task as usize];
    if object.holders > 0 {
        if object.place.is_some() {
            done.published.push(ObjectId { graph: id, index: task });
        } else {
            done.held.push(task);
        }
    } else if !object.needed() && object.place.is_some() {
        done.unneeded.push(task);
    }
}

/// A task has failed and will run again. What it read as a Python object of its worker it may have changed: nobody uses
/// that any more. Returns what the worker had.
fn spoil_inputs(graph: &mut Graph, flight: &mut Flight, task: u32, worker: WorkerId) -> Vec<u32> {
    let len = graph.len();
    let mut spoilt = Vec::new();
    for &input in graph.inputs.row(task).iter().filter(|&&input| input < len) {
        if graph.tasks[input as usize].cut == flight.cut {
            flight.spoilt.push(input);
        }
        let record = &mut graph.objects[input as usize];
        if record.resident == Some(worker) {
            record.forget_resident();
            spoilt.push(input);
        }
    }
    spoilt
}

/// A task of a flight will not run there: the worker keeps what it would have read.
pub(super) fn keep_inputs(graph: &Graph, flight: &mut Flight, task: u32) {
    let len = graph.len();
    for &input in graph.inputs.row(task) {
        if input < len && graph.tasks[input as usize].cut == flight.cut {
            flight.kept.push(input);
        }
    }
}

/// A worker keeps a result that nobody is to read: it drops it, unless it has been given the task (its latest `cut`) again,
/// whose result will take its place.
fn outdated(id: WorkerId, worker: &mut Worker, object: ObjectId, cut: u32, done: &mut Done) {
    match worker.flights.iter_mut().find(|flight| flight.graph == object.graph && flight.cut == cut) {
        Some(again) => again.stale.push(object.index),
        None => done.drop.push((id, object)),
    }
}
