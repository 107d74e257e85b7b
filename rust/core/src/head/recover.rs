//! Failures: tasks that raise, workers that die, results that are lost, graphs that are cancelled.

use alloc::vec::Vec;

use super::Head;
use super::graph::{Standing, TaskState};
use super::report::Done;
use crate::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use crate::message::{Death, Failure, FailureKind, ToNode};

/// How often a task may find an input from outside its graph missing.
const MOST_MISSES: u8 = 5;

impl Head {
    /// Ends a graph: nothing new of it starts, what it was to make has failed.
    pub(super) fn fail_graph(&mut self, id: GraphId, failure: &Failure) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if !graph.running() {
            return;
        }
        graph.standing = Standing::Ended(failure.clone());
        graph.spread_at = None;
        graph.ready.clear();
        graph.ready_on.clear();
        let mut done = Done::default();
        for task in 0..graph.len() {
            match graph.tasks[task as usize].state {
                TaskState::Waiting | TaskState::Ready | TaskState::Publishing => graph.finish(task, TaskState::Failed),
                TaskState::Assigned | TaskState::Done | TaskState::Failed => {}
            }
            graph.objects[task as usize].consumers = 0;
            if graph.objects[task as usize].made() {
                done.unneeded.push(task);
            }
        }
        let rank = graph.rank;
        self.queue.remove(&rank);
        let mut runs = Vec::new();
        for (&worker, state) in &self.workers {
            let of_graph = state.flights.iter().filter(|f| f.graph == id && f.limit > f.upto);
            runs.extend(of_graph.map(|f| RunId { worker, seq: f.seq }));
        }
        for run in runs {
            self.to_node(ToNode::Recall { run, from: 0 });
        }
        self.settle(id, done);
        let mut watched: Vec<ObjectId> = self.watchers.keys().filter(|o| o.graph == id).copied().collect();
        watched.sort_unstable();
        for object in watched {
            self.notify(object);
        }
        self.remove_if_over(id);
    }

    /// The driver does not want a graph any more. What runs of it has a while to end.
    pub(super) fn cancel_graph(&mut self, now: u64, id: GraphId) {
        let origin = ObjectId { graph: id, index: 0 };
        let kill_at = now + self.config.grace_ns;
        for worker in self.workers.values_mut() {
            if worker.flights.iter().any(|f| f.graph == id) && worker.kill_at.is_none() {
                worker.kill_at = Some(kill_at);
            }
        }
        self.fail_graph(id, &Failure { origin, kind: FailureKind::Cancelled });
    }

    pub(super) fn on_worker_down(&mut self, now: u64, id: WorkerId, death: &Death, running: Option<(u32, u32)>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let mut lost: Vec<ObjectId> = worker.kept.into_iter().collect();
        let mut failures = Vec::new();
        let mut ends = Vec::new();
        for flight in worker.flights {
            let graph = self.graphs.get_mut(&flight.graph).expect("a graph with runs in flight exists");
            graph.runs -= 1;
            let mut done = Done::default();
            for (index, &task) in flight.tasks.iter().enumerate().take(flight.limit as usize) {
                let index = index as u32;
                let object = ObjectId { graph: flight.graph, index: task };
                if index < flight.upto {
                    if graph.objects[task as usize].resident == Some(id) {
                        lost.push(object);
                    }
                    continue;
                }
                let record = &mut graph.tasks[task as usize];
                record.state = TaskState::Waiting;
                done.returned.push(task);
                if running == Some((flight.seq, index)) && graph.running() {
                    let retries = graph.classes[graph.class[task as usize] as usize].max_retries;
                    let record = &mut graph.tasks[task as usize];
                    record.deaths = record.deaths.saturating_add(1);
                    if record.deaths > retries {
                        let attempts = u32::from(record.deaths);
                        let kind = FailureKind::WorkerDied { death: death.clone(), attempts };
                        failures.push((flight.graph, Failure { origin: object, kind }));
                    }
                }
                self.counters.reruns += 1;
            }
            ends.push((flight.graph, done));
        }
        lost.sort_unstable();
        lost.dedup();
        for object in lost {
            self.on_lost(object, id);
        }
        for (graph, done) in ends {
            self.settle(graph, done);
            self.remove_if_over(graph);
        }
        for (graph, failure) in failures {
            self.fail_graph(graph, &failure);
        }
        self.on_bye(now, PeerId::of_worker(id));
    }

    /// Workers cannot be started. With none at all, nothing can go on.
    pub(super) fn on_cannot_start(&mut self, death: &Death) {
        if !self.workers.is_empty() {
            return;
        }
        let ids: Vec<GraphId> = self.queue.values().copied().collect();
        for id in ids {
            let origin = ObjectId { graph: id, index: 0 };
            self.fail_graph(id, &Failure { origin, kind: FailureKind::NoWorkers(death.clone()) });
        }
    }

    /// `worker` does not have an object that it was thought to have, or could not read a published one.
    pub(super) fn on_lost(&mut self, object: ObjectId, worker: WorkerId) {
        let Some(graph) = self.graphs.get_mut(&object.graph) else { return };
        let Some(record) = graph.objects.get_mut(object.index as usize) else { return };
        let was_published = record.place.is_some();
        if record.resident == Some(worker) {
            record.resident = None;
            if was_published {
                return;
            }
        } else if !was_published {
            return;
        }
        record.place = None;
        record.asked = false;
        let still_made = record.made();
        if was_published {
            self.to_node(ToNode::Free(Vec::from([object])));
        }
        if still_made {
            return;
        }
        let graph = self.graphs.get_mut(&object.graph).expect("looked up above");
        for i in 0..graph.dependents.row(object.index).len() {
            let next = graph.dependents.row(object.index)[i];
            match graph.tasks[next as usize].state {
                TaskState::Ready | TaskState::Publishing => graph.unready(next),
                TaskState::Waiting | TaskState::Assigned => {}
                TaskState::Done | TaskState::Failed => continue,
            }
            graph.tasks[next as usize].missing += 1;
        }
        if graph.objects[object.index as usize].needed() {
            self.remake(object);
        }
    }

    /// Runs the task of an object that is gone once more, and whatever else that needs.
    pub(super) fn remake(&mut self, object: ObjectId) {
        let id = object.graph;
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if !graph.running() {
            return;
        }
        let len = graph.len();
        let mut done = Done::default();
        let mut open = Vec::from([object.index]);
        while let Some(task) = open.pop() {
            if graph.tasks[task as usize].state != TaskState::Done || graph.objects[task as usize].made() {
                continue;
            }
            graph.reopen(task);
            self.counters.reruns += 1;
            let mut missing = 0;
            for i in 0..graph.inputs.row(task).len() {
                let input = graph.inputs.row(task)[i];
                if input >= len {
                    missing += u32::from(!graph.externals[(input - len) as usize].available);
                    continue;
                }
                graph.objects[input as usize].consumers += 1;
                if !graph.objects[input as usize].made() {
                    missing += 1;
                    open.push(input);
                }
            }
            graph.tasks[task as usize].missing = missing;
            done.returned.push(task);
        }
        let rank = graph.rank;
        self.queue.insert(rank, id);
        self.settle(id, done);
    }

    /// A task could not read an object from outside its graph. True if it has tried often enough.
    pub(super) fn too_many_misses(&mut self, id: GraphId, task: u32) -> bool {
        let Some(graph) = self.graphs.get_mut(&id) else { return false };
        let record = &mut graph.tasks[task as usize];
        record.deaths = record.deaths.saturating_add(1);
        record.deaths > MOST_MISSES
    }
}
