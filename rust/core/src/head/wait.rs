//! Who waits for what: questions of drivers, graphs that read other graphs, and the workers set apart for those that are
//! waited for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::graph::{Standing, TaskState};
use super::ready::Lot;
use super::report::Done;
use super::{Head, Rank, Role, Wait, Watcher, Worker};
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{Failure, FailureKind, Place, ToDriver};

impl Head {
    /// `Ok` when its bytes are published, `Err` when it will never be made or nobody holds it, `None` while that is
    /// open.
    pub(super) fn status(&self, object: ObjectId) -> Option<Result<Place, Failure>> {
        let lost = || Failure { origin: object, kind: FailureKind::Lost };
        if object.graph.seq == 0 {
            return Some(self.puts.get(&object).map(|put| put.place).ok_or_else(lost));
        }
        let Some(graph) = self.graphs.get(&object.graph) else { return Some(Err(lost())) };
        let Some(record) = graph.objects.get(object.index as usize) else { return Some(Err(lost())) };
        if record.holders == 0 {
            return Some(Err(lost()));
        }
        if let Some(failure) = graph.failures.get(&object.index) {
            return Some(Err(failure.clone()));
        }
        match (record.place, &graph.standing) {
            (Some(place), _) => Some(Ok(place)),
            (None, Standing::Ended(failure)) => Some(Err(failure.clone())),
            (None, Standing::Running) => None,
        }
    }

    /// Whether the bytes of a task's result are published.
    pub(super) fn is_published(&self, object: ObjectId) -> bool {
        let graph = self.graphs.get(&object.graph);
        graph.and_then(|graph| graph.objects.get(object.index as usize)).is_some_and(|object| object.place.is_some())
    }

    pub(super) fn on_await(&mut self, peer: PeerId, token: u64, objects: Vec<ObjectId>, need: u32, fail_fast: bool) {
        let id = self.next_wait;
        self.next_wait += 1;
        let mut ended = 0;
        let mut failed = false;
        let mut open = Vec::new();
        for &object in &objects {
            match self.status(object) {
                Some(result) => {
                    ended += 1;
                    failed |= result.is_err();
                }
                None => open.push(object),
            }
        }
        let need = need.min(objects.len() as u32);
        let enough = ended >= need || (failed && fail_fast);
        self.waits.insert(id, Wait { peer, token, objects, need, ended, fail_fast });
        if let Some(worker) = peer.worker() {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.waits += 1;
            }
        }
        if enough {
            self.answer(id);
            return;
        }
        for object in open {
            self.watchers.entry(object).or_default().push(Watcher::Wait(id));
            self.publish_if_kept(object);
        }
        if let Some(worker) = peer.worker() {
            self.on_blocked(worker);
            self.deepen_awaited(id, worker);
        }
    }

    /// An object that only its worker has is published when somebody outside asks for it.
    pub(super) fn publish_if_kept(&mut self, object: ObjectId) {
        let kept = self
            .graphs
            .get(&object.graph)
            .and_then(|graph| graph.objects.get(object.index as usize))
            .is_some_and(|record| record.resident.is_some() && record.place.is_none());
        if kept {
            self.publish(object.graph, Vec::from([object.index]));
        }
    }

    /// An object was published or has failed: whoever watches it is told.
    pub(super) fn notify(&mut self, object: ObjectId) {
        if self.streams.contains_key(&object) && self.status(object).is_some() {
            self.end_stream(object);
        }
        let Some(watchers) = self.watchers.remove(&object) else { return };
        let Some(status) = self.status(object) else {
            self.watchers.insert(object, watchers);
            return;
        };
        for watcher in watchers {
            match watcher {
                Watcher::Wait(id) => {
                    let Some(wait) = self.waits.get_mut(&id) else { continue };
                    wait.ended += 1;
                    if wait.ended >= wait.need || (wait.fail_fast && status.is_err()) {
                        self.answer(id);
                    }
                }
                Watcher::Graph(id, k) => match &status {
                    Ok(_) => self.external_available(id, k),
                    Err(failure) => self.broken.push((id, k, failure.clone())),
                },
            }
        }
    }

    /// Answers a question with what is known now.
    pub(super) fn answer(&mut self, id: u64) {
        let Some(wait) = self.unwatch(id) else { return };
        let ended = wait.objects.iter().filter_map(|&o| self.status(o).map(|status| (o, status))).collect();
        if let Some(worker) = wait.peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.answered();
        }
        self.to_driver(wait.peer, ToDriver::Awaited { token: wait.token, ended });
    }

    /// Takes a question out of the tables.
    pub(super) fn unwatch(&mut self, id: u64) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        for &object in &wait.objects {
            self.forget_watcher(object, Watcher::Wait(id));
        }
        Some(wait)
    }

    pub(super) fn forget_watcher(&mut self, object: ObjectId, watcher: Watcher) {
        if let Some(watchers) = self.watchers.get_mut(&object) {
            watchers.retain(|found| *found != watcher);
            if watchers.is_empty() {
                self.watchers.remove(&object);
            }
        }
    }

    pub(super) fn watch_external(&mut self, id: GraphId, k: u32, object: ObjectId) {
        match self.status(object) {
            Some(Ok(_)) => self.external_available(id, k),
            Some(Err(failure)) => self.external_failed(id, k, &failure),
            None => {
                self.watchers.entry(object).or_default().push(Watcher::Graph(id, k));
                self.publish_if_kept(object);
                let graph = &self.graphs[&id];
                self.deepen(Vec::from([object.graph]), graph.depth, graph.rank);
            }
        }
    }

    fn external_available(&mut self, id: GraphId, k: u32) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let external = &mut graph.externals[k as usize];
        if external.available {
            return;
        }
        external.available = true;
        let mut done = Done::default();
        for &task in &graph.externals[k as usize].readers {
            let record = &mut graph.tasks[task as usize];
            if matches!(record.state, TaskState::Done | TaskState::Failed) {
                continue;
            }
            record.missing -= 1;
            if record.missing == 0 && record.state == TaskState::Waiting {
                done.ready.push(task);
            }
        }
        self.settle(id, done);
    }

    /// What a graph reads from outside will never be there. If all that read it have run, the graph goes on without it
    /// and finds out only when one of them has to run again.
    pub(super) fn external_failed(&mut self, id: GraphId, k: u32, failure: &Failure) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        if graph.stands_alone() {
            self.fail_readers(id, k, failure);
            return;
        }
        if graph.has_unfinished_reader(k) {
            self.fail_graph(id, failure);
            return;
        }
        let external = &mut graph.externals[k as usize];
        if core::mem::take(&mut external.held) {
            let object = external.object;
            self.drop_holders(&[object]);
        }
    }

    /// An object that was published is not any more: who was told that it is waits for it again.
    pub(super) fn watch_again(&mut self, object: ObjectId) {
        let mut readers = Vec::new();
        for (&id, graph) in &mut self.graphs {
            for k in 0..graph.externals.len() {
                let external = &mut graph.externals[k];
                if external.object != object || !external.available {
                    continue;
                }
                external.available = false;
                readers.push((id, k as u32));
                for i in 0..graph.externals[k].readers.len() {
                    let task = graph.externals[k].readers[i];
                    match graph.tasks[task as usize].state {
                        TaskState::Done | TaskState::Failed => continue,
                        TaskState::Ready | TaskState::Publishing => graph.unready(task),
                        TaskState::Waiting | TaskState::Assigned => {}
                    }
                    graph.tasks[task as usize].missing += 1;
                }
            }
        }
        for (id, k) in readers {
            self.watch_external(id, k, object);
        }
        self.wait_again(object);
    }

    /// Whoever was told that an object has ended, or counted it among those, waits for it again if it has not.
    pub(super) fn wait_again(&mut self, object: ObjectId) {
        if self.status(object).is_some() {
            return;
        }
        let watchers = self.watchers.entry(object).or_default();
        let mut again = Vec::new();
        for (&id, wait) in &mut self.waits {
            if wait.objects.contains(&object) && !watchers.contains(&Watcher::Wait(id)) {
                wait.ended -= 1;
                watchers.push(Watcher::Wait(id));
                again.push((id, wait.peer));
            }
        }
        if watchers.is_empty() {
            self.watchers.remove(&object);
            return;
        }
        self.publish_if_kept(object);
        for (wait, peer) in again {
            if let Some(worker) = peer.worker() {
                self.deepen_awaited(wait, worker);
            }
        }
    }

    /// What a task waits for has workers apart from those at the task's own depth, for it occupies one of them.
    fn deepen_awaited(&mut self, wait: u64, worker: WorkerId) {
        let Some((depth, waiter)) = self.parent(PeerId::of_worker(worker)) else { return };
        let Some(wait) = self.waits.get(&wait) else { return };
        let mut graphs: Vec<GraphId> =
            wait.objects.iter().filter(|&&object| self.status(object).is_none()).map(|o| o.graph).collect();
        graphs.dedup();
        self.deepen(graphs, depth, waiter);
    }

    /// The same for a graph of which a task waits for something.
    pub(super) fn deepen_for(&mut self, graph: GraphId, worker: WorkerId) {
        if let Some((depth, waiter)) = self.parent(PeerId::of_worker(worker)) {
            self.deepen(Vec::from([graph]), depth, waiter);
        }
    }

    /// How deep what a peer submits or waits for is nested, and for whom it is done.
    ///
    /// A worker's own task occupies one of the workers of its depth. An actor occupies none, so what a call of it does is as
    /// deep as the call. Of several calls at once nobody knows which of them it is: then it is taken to be the one that is
    /// nested least, for else tasks that call the actor that waits for them would come to lie deeper and deeper. If that
    /// is not deep enough, `stall` sees to it.
    pub(super) fn parent(&self, peer: PeerId) -> Option<(u32, Rank)> {
        let worker = self.workers.get(&peer.worker()?)?;
        let front = worker.flights.front();
        if worker.of_pool() {
            let front = front?;
            return Some((front.depth + 1, self.graphs[&front.graph].rank));
        }
        let of = |id: GraphId| self.graphs.get(&id).map(|graph| (graph.depth, graph.rank));
        let deferred = worker.deferred.iter().map(|object| object.graph);
        let begun = deferred.chain(front.map(|flight| flight.graph));
        let (depth, rank) = begun.filter_map(of).min()?;
        if !worker.deferred.is_empty() {
            return Some((depth, rank));
        }
        // What is behind the call that runs waits for it, and so does who waits for that.
        let blocked = |peer: PeerId| peer.worker().and_then(|id| self.workers.get(&id)).is_some_and(Worker::blocked);
        let lanes = match worker.role {
            Role::Actor(actor) => self.actors.get(&actor).map(|record| &record.lanes),
            _ => None,
        };
        let firsts = lanes.into_iter().flat_map(|lanes| lanes.values().filter_map(BTreeSet::first).copied());
        let behind = worker.flights.iter().skip(1).map(|flight| flight.graph).chain(firsts);
        let deepest = behind.filter(|id| blocked(id.peer)).filter_map(of).map(|(depth, _)| depth).max();
        Some((depth.max(deepest.unwrap_or(0)), rank))
    }

    /// The graphs for which an actor waits, and those of the calls that do, if it is known which these are.
    fn awaited_by_actor(&self, id: WorkerId) -> Vec<GraphId> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let alone = worker.deferred.is_empty() || (worker.deferred.len() == 1 && worker.flights.is_empty());
        if !alone || !worker.blocked() {
            return Vec::new();
        }
        let mut graphs = self.awaited_streams(id);
        for wait in self.waits.values().filter(|wait| wait.peer.worker() == Some(id)) {
            graphs.extend(wait.objects.iter().filter(|object| self.status(**object).is_none()).map(|o| o.graph));
        }
        graphs.extend(worker.flights.iter().map(|flight| flight.graph));
        graphs.dedup();
        graphs
    }

    /// Something waits for graphs that need workers at `depth` to go on, and were themselves not submitted that deep: the
    /// graphs move there, and what they wait for, so that those who wait do not take their workers.
    fn deepen(&mut self, graphs: Vec<GraphId>, depth: u32, waiter: Rank) {
        let mut open = graphs;
        // Of each lane, what was before this is seen to.
        let mut lanes: BTreeMap<(ObjectId, PeerId), GraphId> = BTreeMap::new();
        let mut actors: BTreeSet<ObjectId> = BTreeSet::new();
        while let Some(id) = open.pop() {
            let Some(graph) = self.graphs.get_mut(&id).filter(|graph| graph.running()) else { continue };
            if graph.is_calls() {
                // A call waits for those before it, too.
                let actor = graph.externals[0].object;
                let from = lanes.get(&(actor, id.peer)).copied().unwrap_or(GraphId::puts(id.peer));
                if from < id {
                    lanes.insert((actor, id.peer), id);
                    let lane = self.actors.get(&actor).and_then(|record| record.lanes.get(&id.peer));
                    open.extend(lane.into_iter().flat_map(|lane| lane.range(from..id)));
                }
                // And what the actor waits for.
                let worker = self.actors.get(&actor).and_then(|record| record.worker);
                if let Some(worker) = worker.filter(|_| actors.insert(actor)) {
                    open.extend(self.awaited_by_actor(worker));
                }
            }
            let graph = self.graphs.get_mut(&id).expect("looked up above");
            if graph.depth >= depth {
                continue;
            }
            let (old, lot) = (graph.rank, Lot::of(graph));
            graph.depth = depth;
            let (priority, root) = (old.priority, old.root).min((waiter.priority, waiter.root));
            graph.rank = Rank { priority, root, depth: Reverse(depth), submitted: old.submitted };
            let rank = graph.rank;
            open.extend(graph.externals.iter().filter(|e| e.held && !e.available).map(|e| e.object.graph));
            if self.queue.remove(&old).is_some() {
                self.queue.insert(rank, id);
                if self.ready.remove(lot, (old, id)) {
                    self.ready.insert(id, &self.graphs[&id]);
                }
            }
            self.fail_if_too_deep(id);
        }
    }

    /// A graph that would need more workers than there may be fails instead of waiting for ever.
    pub(super) fn fail_if_too_deep(&mut self, id: GraphId) {
        let Some(depth) = self.graphs.get(&id).map(|graph| graph.depth) else { return };
        let most = self.too_deep();
        if depth >= most {
            let origin = ObjectId { graph: id, index: 0 };
            self.fail_graph(id, &Failure { origin, kind: FailureKind::TooDeep { depth, most } });
        }
    }
}
