//! What workers did: reports, recalled tasks, published results.

use alloc::vec::Vec;

use super::assign::place_ready;
use super::graph::{Graph, TaskState};
use super::{Flight, Head};
use crate::ids::{GraphId, ObjectId, RunId, WorkerId};
use crate::message::{Failure, FailureKind, Place, Report, ToNode, Trouble, output};

impl Head {
    pub(super) fn on_report(&mut self, report: Report) {
        let worker_id = report.run.worker;
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        let Some(at) = worker.flights.iter().position(|f| f.seq == report.run.seq) else { return };
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
        for &(index, place) in &report.published {
            if let Some(&task) = flight.tasks.get(index as usize) {
                publish_at(graph, id, task, place, &mut done);
            }
        }
        let upto = report.upto.min(flight.tasks.len() as u32);
        let mut failure = None;
        let mut lost = Vec::new();
        let mut troubles = report.troubles.into_iter().peekable();
        for index in flight.upto..upto {
            let task = flight.tasks[index as usize];
            let mut trouble = None;
            while let Some((_, found)) = troubles.next_if(|(i, _)| *i <= index) {
                trouble = Some(found);
            }
            match trouble {
                None => {
                    self.counters.tasks += 1;
                    if graph.objects[task as usize].place.is_none() {
                        graph.objects[task as usize].resident = Some(worker_id);
                    }
                    complete(graph, task, &mut done);
                }
                Some(Trouble::Raised(bytes)) => {
                    graph.finish(task, TaskState::Failed);
                    let origin = ObjectId { graph: id, index: task };
                    failure.get_or_insert(Failure { origin, kind: FailureKind::Raised(bytes) });
                }
                Some(Trouble::Skipped) => graph.finish(task, TaskState::Failed),
                Some(Trouble::InputNotHere(objects)) => {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    keep_inputs(graph, flight, task);
                    lost.extend(objects.into_iter().map(|object| (task, object)));
                    done.returned.push(task);
                }
            }
        }
        flight.upto = upto.max(flight.upto);
        if report.ended {
            let flight = worker.flights.remove(at).expect("found above");
            self.end_flight(worker_id, flight, &mut done);
        }
        self.settle(id, done);
        for (task, object) in lost {
            self.on_lost(object, worker_id);
            if object.graph != id && self.too_many_misses(id, task) {
                failure.get_or_insert(Failure { origin: object, kind: FailureKind::Lost });
            }
        }
        if let Some(failure) = failure {
            self.fail_graph(id, &failure);
        }
        self.remove_if_over(id);
    }

    /// The worker is done with a run: what it still keeps of it is known from here on.
    fn end_flight(&mut self, worker_id: WorkerId, mut flight: Flight, done: &mut Done) {
        let id = flight.graph;
        let worker = self.workers.get_mut(&worker_id).expect("the worker that reported exists");
        if worker.flights.is_empty() {
            worker.sample_at = None;
            worker.kill_at = None;
        } else if let Some(next) = worker.flights.front() {
            worker.depth = self.graphs[&next.graph].depth;
        }
        let graph = self.graphs.get_mut(&id).expect("a graph with runs in flight exists");
        let running = graph.running();
        graph.runs -= 1;
        flight.kept.sort_unstable();
        flight.kept.dedup();
        for (index, &task) in flight.tasks.iter().enumerate() {
            let object = ObjectId { graph: id, index: task };
            if index as u32 >= flight.upto {
                // Neither reported nor recalled: the worker gave them back.
                if (index as u32) < flight.limit && graph.tasks[task as usize].state == TaskState::Assigned {
                    graph.tasks[task as usize].state = TaskState::Waiting;
                    done.returned.push(task);
                }
                continue;
            }
            let kept = flight.outputs[index] & output::KEEP != 0 || flight.kept.binary_search(&task).is_ok();
            let record = &mut graph.objects[task as usize];
            if kept && graph.tasks[task as usize].state == TaskState::Done {
                if record.needed() {
                    worker.kept.insert(object);
                    if record.place.is_none() {
                        record.resident = Some(worker_id);
                    }
                } else {
                    done.drop.push((worker_id, object));
                    record.resident = None;
                }
            } else if record.resident == Some(worker_id) {
                debug_assert!(record.consumers == 0 || !running, "a value was dropped while a task needs it");
                record.resident = None;
            }
        }
    }

    /// Carries out what followed from completed tasks.
    pub(super) fn settle(&mut self, id: GraphId, done: Done) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let mut asks = Vec::new();
        if graph.running() {
            for task in done.ready.into_iter().chain(done.returned) {
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
                graph.finish(task, TaskState::Failed);
            }
        }
        let mut drops = done.drop;
        let mut frees = Vec::new();
        for task in done.unneeded {
            let record = &mut graph.objects[task as usize];
            if record.needed() {
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
                    record.resident = None;
                }
                // Otherwise its run is in flight: the worker drops it, or the end of the run finds it unneeded.
            }
        }
        self.free(frees, drops);
        self.publish(id, asks);
        for object in done.published {
            self.notify(object);
        }
    }

    pub(super) fn free(&mut self, frees: Vec<ObjectId>, mut drops: Vec<(WorkerId, ObjectId)>) {
        if !frees.is_empty() {
            self.to_node(ToNode::Free(frees));
        }
        drops.sort_unstable();
        for chunk in drops.chunk_by(|a, b| a.0 == b.0) {
            let objects = chunk.iter().map(|(_, object)| *object).collect();
            self.to_node(ToNode::Drop { worker: chunk[0].0, objects });
        }
    }

    pub(super) fn on_recalled(&mut self, run: RunId, limit: u32) {
        let Some(worker) = self.workers.get_mut(&run.worker) else { return };
        let Some(flight) = worker.flights.iter_mut().find(|f| f.seq == run.seq) else { return };
        let limit = limit.max(flight.upto);
        if limit >= flight.limit {
            return;
        }
        let id = flight.graph;
        let graph = self.graphs.get_mut(&id).expect("a graph with runs in flight exists");
        let back: Vec<u32> = flight.tasks[limit as usize..flight.limit as usize].to_vec();
        flight.limit = limit;
        let mut done = Done::default();
        let moving = core::mem::take(&mut flight.moving);
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
    }

    pub(super) fn on_published(&mut self, worker_id: WorkerId, object: ObjectId, place: Option<Place>) {
        let Some(graph) = self.graphs.get_mut(&object.graph) else { return };
        let Some(record) = graph.objects.get_mut(object.index as usize) else { return };
        record.asked = false;
        let Some(place) = place else {
            if record.resident == Some(worker_id) {
                self.on_lost(object, worker_id);
            }
            return;
        };
        let mut done = Done::default();
        publish_at(graph, object.graph, object.index, place, &mut done);
        for &next in graph.dependents.row(object.index) {
            if graph.tasks[next as usize].state == TaskState::Publishing && all_published(graph, next) {
                graph.tasks[next as usize].state = TaskState::Waiting;
                done.ready.push(next);
            }
        }
        self.settle(object.graph, done);
        self.remove_if_over(object.graph);
    }
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
    /// Objects that somebody outside may wait for.
    pub(super) published: Vec<ObjectId>,
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
    if !object.needed() {
        done.unneeded.push(task);
    }
}

/// A task's result is made: its dependents miss one input less, its inputs have one consumer less.
pub(super) fn complete(graph: &mut Graph, task: u32, done: &mut Done) {
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
            // Zero already if the graph has failed meanwhile: then nobody counts any more.
            object.consumers = object.consumers.saturating_sub(1);
            if !object.needed() && (object.place.is_some() || object.resident.is_some()) {
                done.unneeded.push(input);
            }
        }
    }
    let object = &objects[task as usize];
    if !object.needed() && object.place.is_some() {
        done.unneeded.push(task);
    }
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
