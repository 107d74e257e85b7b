//! Failures: tasks that raise, workers that die, results that are lost, graphs that are cancelled.

use alloc::vec::Vec;

use super::actors::actor_died;
use super::graph::{Graph, Standing, TaskState};
use super::report::Done;
use super::{FxMap, Head, Role};
use crate::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use crate::message::{ActorEnd, Death, Failure, FailureKind, ToNode, output};

/// So many deaths of workers that were about to run a task, with no task named, are put down to that task: something that
/// comes with it ends them, and the next worker would die as well.
const MOST_STRAYS: u8 = 20;

/// How often a task may find an input from outside its graph missing.
const MOST_MISSES: u8 = 5;

impl Head {
    /// Ends a graph: nothing new of it starts, what it was to make has failed.
    pub(super) fn fail_graph(&mut self, id: GraphId, failure: &Failure) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if !graph.running() {
            return;
        }
        let actor = graph.is_actor().then_some(ObjectId { graph: id, index: 0 });
        if let Some(actor) = actor.filter(|actor| self.actors.get(actor).is_some_and(|record| record.alive)) {
            self.on_kill_actor(PeerId::USER, actor, false);
            return;
        }
        let graph = self.graphs.get_mut(&id).expect("looked up above");
        graph.standing = Standing::Ended(failure.clone());
        graph.publishing = 0;
        graph.ready.clear();
        graph.ready_on.clear();
        for special in &mut graph.special {
            special.ready.clear();
            special.since = None;
        }
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
        let (rank, len) = (graph.rank, graph.len());
        let called = graph.is_calls().then(|| graph.externals[0].object);
        self.queue.remove(&rank);
        self.forget_spread(id);
        if let Some(called) = called {
            self.leave_lane(called, id);
        }
        if let Some(actor) = actor {
            self.forget_actor(actor);
        }
        let mut runs = Vec::new();
        for (&worker, state) in &self.workers {
            let of_graph = state.flights.iter().filter(|f| f.graph == id && f.limit > f.upto);
            runs.extend(of_graph.map(|f| RunId { worker, seq: f.seq }));
        }
        for run in runs {
            self.to_node(ToNode::Recall { run, from: 0 });
        }
        self.settle(id, done);
        for object in of_graph(&self.watchers, id, len) {
            self.notify(object);
        }
        for stream in of_graph(&self.streams, id, len) {
            self.notify(stream);
        }
        self.remove_if_over(id);
    }

    /// The driver does not want a graph any more. What runs of it has a while to end.
    pub(super) fn cancel_graph(&mut self, now: u64, id: GraphId) {
        let origin = ObjectId { graph: id, index: 0 };
        let kill_at = now + self.config.grace_ns;
        // The task of a graph may be cancelled, but not an actor that works for others, too.
        for worker in self.workers.values_mut().filter(|worker| worker.of_pool()) {
            if worker.flights.iter().any(|f| f.graph == id) && worker.kill_at.is_none() {
                worker.kill_at = Some(kill_at);
            }
        }
        self.fail_graph(id, &Failure { origin, kind: FailureKind::Cancelled });
    }

    pub(super) fn on_worker_down(&mut self, now: u64, id: WorkerId, death: &Death, running: Option<(u32, u32)>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        if let Some(holding) = &worker.holding {
            self.resources.give_back(holding);
        }
        let mut lost: Vec<ObjectId> = worker.kept.into_iter().collect();
        let mut failures = Vec::new();
        let mut ends: Vec<(GraphId, Done)> = Vec::new();
        let (deferred, role) = (worker.deferred, worker.role);
        // A signal's number would have people look for who sent it.
        let end = if worker.killed { ActorEnd::Killed } else { ActorEnd::Died(death.clone()) };
        let mut blamed = running.is_some();
        for flight in worker.flights {
            let called = self.restarts_of_called(flight.graph);
            let graph = self.graphs.get_mut(&flight.graph).expect("a graph with runs in flight exists");
            graph.runs -= 1;
            let (live, makes) = (graph.running(), graph.is_actor());
            let mut done = Done::default();
            // Calls of an actor come once, so those that have run and are not reported have died as the one that runs.
            let run_over = called.is_some() && running.is_some_and(|(seq, _)| flight.seq < seq);
            // With the part of a result that it took, all of that is lost.
            let running =
                running.filter(|&(seq, _)| seq == flight.seq).map(|(_, index)| output::begin(&flight.outputs, index));
            for (index, &task) in flight.tasks.iter().enumerate().take(flight.limit as usize) {
                let index = index as u32;
                let object = ObjectId { graph: flight.graph, index: task };
                if index < flight.upto {
                    lost.push(object);
                    continue;
                }
                let record = &mut graph.tasks[task as usize];
                if record.state == TaskState::Failed {
                    // An actor that was killed while it was made.
                    continue;
                }
                record.state = TaskState::Waiting;
                done.returned.push(task);
                self.counters.reruns += 1;
                if live && !core::mem::replace(&mut blamed, true) {
                    record.strays = record.strays.saturating_add(1);
                    if record.strays > MOST_STRAYS {
                        let attempts = u32::from(record.strays);
                        let kind = FailureKind::WorkerDied { death: death.clone(), attempts };
                        failures.push((flight.graph, Failure { origin: object, kind }));
                    }
                }
                let ran = match called {
                    Some(_) => run_over || running.is_some_and(|running| index <= running),
                    None => running == Some(index),
                };
                // How often an actor is made again is its own affair.
                if live && ran && !makes && !graph.survives(task) {
                    let attempts = u32::from(graph.tasks[task as usize].deaths);
                    let kind = match called {
                        Some(restarts) => actor_died(end.clone(), restarts),
                        None => FailureKind::WorkerDied { death: death.clone(), attempts },
                    };
                    failures.push((flight.graph, Failure { origin: object, kind }));
                }
            }
            ends.push((flight.graph, done));
        }
        for &object in &deferred {
            let failure = self.deferred_died(object, &end);
            ends.push((object.graph, Done { returned: Vec::from([object.index]), ..Done::default() }));
            failures.extend(failure.map(|failure| (object.graph, failure)));
        }
        for (&graph_id, graph) in &mut self.graphs {
            // What they read of it is published or lost: they belong elsewhere in either case.
            if let Some(set) = graph.ready_on.get(&id) {
                let ready = set.iter().map(|position| graph.at[position as usize]).collect::<Vec<_>>();
                for &task in &ready {
                    graph.unready(task);
                }
                graph.ready_on.remove(&id);
                ends.push((graph_id, Done { ready, ..Done::default() }));
            }
        }
        // All that is lost is forgotten before anything is placed, so that nothing is placed by it.
        lost.sort_unstable();
        lost.dedup();
        lost.retain(|object| self.forget_copy(*object, id));
        self.on_gone(lost);
        if let Role::Making(actor) | Role::Actor(actor) = role {
            self.on_actor_down(actor, id, end, running.is_some());
        }
        // Of what stands alone, what has failed is not to be placed again.
        let (alone, whole): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|(id, _)| self.graphs.get(id).is_some_and(Graph::stands_alone));
        for (id, failure) in alone {
            let task = failure.origin.index;
            // That it was cancelled, or its actor killed, says more.
            let doom = self.graphs.get(&id).and_then(|graph| graph.doom(id, task));
            self.fail_tasks(id, Vec::from([(task, doom.unwrap_or(failure))]));
        }
        for (graph, done) in ends {
            self.settle(graph, done);
            self.remove_if_over(graph);
        }
        for (graph, failure) in whole {
            self.fail_graph(graph, &failure);
        }
        self.on_bye(now, PeerId::of_worker(id));
    }

    /// Workers cannot be started. If there is none that could go on, nothing can.
    pub(super) fn on_cannot_start(&mut self, death: &Death) {
        if self.workers.values().any(|worker| worker.of_pool() && !worker.blocked() && !worker.stopping) {
            return;
        }
        // With the innermost graphs failed, tasks that block on them go on, and so can the rest.
        let depth = if !self.workers.values().any(super::Worker::of_pool) { 0 } else { self.deepest() };
        let ids: Vec<GraphId> = self.queue.values().copied().filter(|id| self.graphs[id].depth >= depth).collect();
        for id in ids {
            let origin = ObjectId { graph: id, index: 0 };
            self.fail_graph(id, &Failure { origin, kind: FailureKind::NoWorkers(death.clone()) });
        }
    }

    /// `worker` does not have an object that it was thought to have, or could not read a published one.
    pub(super) fn on_lost(&mut self, object: ObjectId, worker: WorkerId) {
        // An actor is made again when its worker has died, and then only.
        let graph = self.graphs.get_mut(&object.graph).filter(|graph| !graph.is_actor());
        let Some(graph) = graph else { return };
        let Some(record) = graph.objects.get_mut(object.index as usize) else { return };
        if record.resident == Some(worker) {
            self.on_lost_copy(object, worker);
            return;
        }
        if record.place.take().is_none() {
            return;
        }
        let resident = record.resident.is_some();
        self.free(Vec::from([object]), Vec::new());
        if !resident {
            self.on_gone(Vec::from([object]));
            return;
        }
        // One worker has it still: who could run anywhere can now run there.
        let graph = self.graphs.get_mut(&object.graph).expect("looked up above");
        let mut done = Done::default();
        for i in 0..graph.dependents.row(object.index).len() {
            let next = graph.dependents.row(object.index)[i];
            if graph.tasks[next as usize].state == TaskState::Ready {
                graph.unready(next);
                done.ready.push(next);
            }
        }
        self.settle(object.graph, done);
        self.watch_again(object);
    }

    /// `worker` does not have an object that it was thought to keep.
    pub(super) fn on_lost_copy(&mut self, object: ObjectId, worker: WorkerId) {
        if self.forget_copy(object, worker) {
            self.on_gone(Vec::from([object]));
        }
    }

    /// Forgets that a worker has an object. True if nobody has it then.
    fn forget_copy(&mut self, object: ObjectId, worker: WorkerId) -> bool {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.kept.remove(&object);
        }
        let graph = self.graphs.get_mut(&object.graph);
        let Some(record) = graph.and_then(|graph| graph.objects.get_mut(object.index as usize)) else { return false };
        if record.resident != Some(worker) {
            return false;
        }
        record.forget_resident();
        record.place.is_none()
    }

    /// Nobody has these objects any more, though their tasks are done. What needs them waits, and they are made again.
    pub(super) fn on_gone(&mut self, objects: Vec<ObjectId>) {
        for object in &objects {
            let Some(graph) = self.graphs.get_mut(&object.graph) else { continue };
            for i in 0..graph.dependents.row(object.index).len() {
                let next = graph.dependents.row(object.index)[i];
                match graph.tasks[next as usize].state {
                    TaskState::Ready | TaskState::Publishing => graph.unready(next),
                    TaskState::Waiting | TaskState::Assigned => {}
                    TaskState::Done | TaskState::Failed => continue,
                }
                graph.tasks[next as usize].missing += 1;
            }
        }
        for object in objects {
            let needed = |graph: &Graph| graph.objects[object.index as usize].needed();
            if self.graphs.get(&object.graph).is_some_and(needed) {
                self.remake(object);
                self.watch_again(object);
            }
        }
    }

    /// Runs the task of an object that is gone once more, and whatever else that needs.
    pub(super) fn remake(&mut self, object: ObjectId) {
        let id = object.graph;
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if !graph.running() {
            return;
        }
        let (len, alone) = (graph.len(), graph.stands_alone());
        let mut done = Done::default();
        let mut open = Vec::from([object.index]);
        let mut sought = Vec::new();
        let mut hopeless = None;
        while let Some(task) = open.pop() {
            if graph.tasks[task as usize].state != TaskState::Done || graph.objects[task as usize].made() {
                continue;
            }
            if graph.tasks[task as usize].supplied || graph.is_calls() {
                hopeless = Some(ObjectId { graph: id, index: task });
            }
            // The worker that made it may still have it, for tasks of the same run: that copy goes at the run's end.
            let cut = graph.tasks[task as usize].cut;
            for flight in self.workers.values_mut().flat_map(|worker| &mut worker.flights) {
                if flight.graph == id && flight.cut == cut {
                    flight.kept.push(task);
                }
            }
            graph.reopen(task);
            self.counters.reruns += 1;
            let mut missing = 0;
            for i in 0..graph.inputs.row(task).len() {
                let input = graph.inputs.row(task)[i];
                if input >= len {
                    let external = &graph.externals[(input - len) as usize];
                    missing += u32::from(!external.available);
                    if !external.held {
                        sought.push((input - len, external.object));
                    }
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
        if !graph.is_calls() {
            let rank = graph.rank;
            self.queue.insert(rank, id);
        }
        self.settle(id, done);
        if let Some(origin) = hopeless {
            let failure = Failure { origin, kind: FailureKind::Lost };
            if alone {
                self.fail_tasks(id, Vec::from([(origin.index, failure)]));
            } else {
                self.fail_graph(id, &failure);
            }
        }
        sought.sort_unstable();
        sought.dedup();
        for (k, object) in sought {
            self.need_external(id, k, object);
        }
        // A call that cannot be made again needs its actor no more.
        self.release_lineage(id);
    }

    /// A task could not read an object from outside its graph. True if it has tried often enough.
    pub(super) fn too_many_misses(&mut self, id: GraphId, task: u32) -> bool {
        let Some(graph) = self.graphs.get_mut(&id) else { return false };
        let record = &mut graph.tasks[task as usize];
        record.misses = record.misses.saturating_add(1);
        record.misses > MOST_MISSES
    }
}

/// The objects of a graph of `len` tasks that are in a table, ascending.
fn of_graph<T>(table: &FxMap<ObjectId, T>, graph: GraphId, len: u32) -> Vec<ObjectId> {
    // The table is that of all graphs, of which there may be as many as a large one has tasks.
    if table.len() > len as usize {
        return (0..len).map(|index| ObjectId { graph, index }).filter(|object| table.contains_key(object)).collect();
    }
    let mut found: Vec<ObjectId> = table.keys().filter(|object| object.graph == graph).copied().collect();
    found.sort_unstable();
    found
}
