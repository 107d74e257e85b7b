//! Who needs which object, and who waits for it: the driver's messages.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::graph::{Graph, Standing, TaskState};
use super::report::{Done, complete};
use super::{Head, PutObject, Wait, Watcher, unknown};
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{Failure, FailureKind, GraphSpec, Place, Refusal, ToDriver, ToHead, ToNode};

impl Head {
    pub(super) fn on_driver(&mut self, now: u64, peer: PeerId, message: ToHead) -> Result<(), Refusal> {
        match message {
            ToHead::Submit(spec) => self.on_submit(peer, spec),
            ToHead::Admit { graph, upto } => self.on_admit(peer, graph, upto),
            ToHead::Supply { object, place } => self.on_supply(peer, object, place),
            ToHead::Put { object, place } => {
                if object.graph != GraphId::puts(peer) {
                    return Err(unknown("object: it was put by another peer"));
                }
                if self.puts.contains_key(&object) {
                    return Err(unknown("object: it was put already"));
                }
                self.puts.insert(object, PutObject { place, holders: 0 });
                self.hold(peer, object)
            }
            ToHead::Hold(objects) => objects.into_iter().try_for_each(|object| self.hold(peer, object)),
            ToHead::Release(objects) => {
                self.release(peer, &objects);
                Ok(())
            }
            ToHead::Await { token, objects, need, fail_fast } => {
                self.on_await(peer, token, objects, need, fail_fast);
                Ok(())
            }
            ToHead::Forget { token } => {
                let wait = self.waits.iter().find(|(_, w)| w.peer == peer && w.token == token).map(|(&id, _)| id);
                if let Some(wait) = wait {
                    self.answer(wait);
                }
                Ok(())
            }
            ToHead::Cancel { graph } => {
                if graph.peer != peer {
                    return Err(unknown("graph: it is another peer's"));
                }
                self.cancel_graph(now, graph);
                Ok(())
            }
            ToHead::Bye => {
                self.on_bye(now, peer);
                Ok(())
            }
        }
    }

    fn on_submit(&mut self, peer: PeerId, spec: Box<GraphSpec>) -> Result<(), Refusal> {
        let id = spec.id;
        if id.peer != peer || id.seq == 0 || self.graphs.contains_key(&id) {
            return Err(Refusal::MalformedGraph("its id is not free"));
        }
        self.submitted += 1;
        // What a task submits is served before what else its ancestors have to start, the innermost first.
        let parent = peer
            .worker()
            .and_then(|worker| self.workers.get(&worker))
            .and_then(|worker| worker.flights.front())
            .map(|flight| (flight.depth + 1, self.graphs[&flight.graph].rank.0));
        let (depth, root) = parent.unwrap_or((0, self.submitted));
        let rank = (root, Reverse(depth), self.submitted);
        let outputs = spec.outputs.clone();
        let graph = Graph::new(spec, depth, rank)?;
        let externals: Vec<ObjectId> = graph.externals.iter().map(|e| e.object).collect();
        self.peers.entry(peer).or_default().graphs.insert(id);
        self.graphs.insert(id, graph);
        self.queue.insert(rank, id);
        for task in outputs {
            self.hold(peer, ObjectId { graph: id, index: task })?;
        }
        self.fail_if_too_deep(id);
        for (k, object) in externals.into_iter().enumerate() {
            self.need_external(id, k as u32, object);
        }
        self.remove_if_over(id);
        Ok(())
    }

    /// A graph holds what it reads from outside, from its submission on.
    fn need_external(&mut self, id: GraphId, k: u32, object: ObjectId) {
        // Another of its inputs may have failed it already.
        if !self.graphs.get(&id).is_some_and(Graph::running) {
            return;
        }
        let held = self.add_holder(object);
        let graph = self.graphs.get_mut(&id).expect("looked up above");
        graph.externals[k as usize].held = held;
        self.watch_external(id, k, object);
    }

    fn watch_external(&mut self, id: GraphId, k: u32, object: ObjectId) {
        match self.status(object) {
            Some(Ok(_)) => self.external_available(id, k),
            Some(Err(failure)) => self.fail_graph(id, &failure),
            None => {
                self.watchers.entry(object).or_default().push(Watcher::Graph(id, k));
                self.publish_if_kept(object);
                let graph = &self.graphs[&id];
                self.deepen(object.graph, graph.depth, graph.rank.0);
            }
        }
    }

    /// A finished graph whose results are published can do without what they were made of. Should a result be lost
    /// all the same, what it reads from outside is looked for again.
    pub(super) fn release_lineage(&mut self, id: GraphId) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let nothing = graph.supplied.is_empty() && !graph.externals.iter().any(|e| e.held);
        if nothing || graph.unfinished > 0 || !graph.running() {
            return;
        }
        if graph.objects.iter().any(|object| object.needed() && object.place.is_none()) {
            return;
        }
        let done = Done { unneeded: core::mem::take(&mut graph.supplied), ..Done::default() };
        let mut released = Vec::new();
        for external in graph.externals.iter_mut().filter(|e| e.held) {
            external.held = false;
            external.available = false;
            released.push(external.object);
        }
        self.settle(id, done);
        self.drop_holders(&released);
    }

    /// What [`Head::release_lineage`] let go is needed again.
    pub(super) fn reacquire_externals(&mut self, id: GraphId) {
        let released: Vec<(u32, ObjectId)> =
            (0u32..).zip(&self.graphs[&id].externals).filter(|(_, e)| !e.held).map(|(k, e)| (k, e.object)).collect();
        for (k, object) in released {
            self.need_external(id, k, object);
        }
    }

    /// Something waits for a graph that needs workers at `depth` to go on, and was itself not submitted that deep: the
    /// graph moves there, and what it waits for, so that those who wait do not take its workers.
    fn deepen(&mut self, id: GraphId, depth: u32, root: u64) {
        let mut open = Vec::from([id]);
        while let Some(id) = open.pop() {
            let Some(graph) = self.graphs.get_mut(&id) else { continue };
            if graph.depth >= depth || !graph.running() {
                continue;
            }
            graph.depth = depth;
            let old = graph.rank;
            graph.rank = (old.0.min(root), Reverse(depth), old.2);
            let rank = graph.rank;
            open.extend(graph.externals.iter().filter(|e| e.held && !e.available).map(|e| e.object.graph));
            if self.queue.remove(&old).is_some() {
                self.queue.insert(rank, id);
            }
            self.fail_if_too_deep(id);
        }
    }

    /// A graph that would need more workers than there may be fails instead of waiting for ever.
    fn fail_if_too_deep(&mut self, id: GraphId) {
        let depth = self.graphs[&id].depth;
        let most = (self.config.max_workers / self.config.slots.max(1)).max(1);
        if depth >= most {
            let origin = ObjectId { graph: id, index: 0 };
            self.fail_graph(id, &Failure { origin, kind: FailureKind::TooDeep { depth, most } });
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

    fn on_admit(&mut self, peer: PeerId, id: GraphId, upto: u32) -> Result<(), Refusal> {
        if id.peer != peer {
            return Err(unknown("graph: it is another peer's"));
        }
        // A graph that has failed and is gone may still get admissions that were on their way.
        let Some(graph) = self.graphs.get_mut(&id) else { return Ok(()) };
        if upto > graph.len() {
            return Err(unknown("task"));
        }
        let mut done = Done::default();
        for position in graph.admitted..upto.max(graph.admitted) {
            let task = graph.at[position as usize];
            let record = &graph.tasks[task as usize];
            if record.missing == 0 && record.state == TaskState::Waiting {
                done.ready.push(task);
            }
        }
        graph.admitted = graph.admitted.max(upto);
        self.settle(id, done);
        Ok(())
    }

    fn on_supply(&mut self, peer: PeerId, object: ObjectId, place: Place) -> Result<(), Refusal> {
        let id = object.graph;
        if id.peer != peer {
            return Err(unknown("graph: it is another peer's"));
        }
        let Some(graph) = self.graphs.get_mut(&id) else {
            self.to_node(ToNode::Free(Vec::from([object])));
            return Ok(());
        };
        let Some(task) = graph.tasks.get(object.index as usize) else { return Err(unknown("task")) };
        if graph.position[object.index as usize] < graph.admitted || task.state == TaskState::Done {
            return Err(Refusal::MalformedGraph("a supplied task was admitted already"));
        }
        if task.state != TaskState::Waiting {
            self.to_node(ToNode::Free(Vec::from([object])));
            return Ok(());
        }
        let mut done = Done::default();
        graph.objects[object.index as usize].place = Some(place);
        graph.tasks[object.index as usize].supplied = true;
        graph.supplied.push(object.index);
        complete(graph, id, object.index, &mut done);
        self.settle(id, done);
        self.release_lineage(id);
        self.remove_if_over(id);
        Ok(())
    }

    /// A peer holds an object. One that is gone already is not held, and lost to who awaits it: a task can come by a
    /// reference whose owner lets go at that moment.
    pub(super) fn hold(&mut self, peer: PeerId, object: ObjectId) -> Result<(), Refusal> {
        if self.graphs.get(&object.graph).is_some_and(|graph| object.index >= graph.len()) {
            return Err(unknown("object"));
        }
        if !self.add_holder(object) {
            return Ok(());
        }
        *self.peers.entry(peer).or_default().holds.entry(object).or_insert(0) += 1;
        Ok(())
    }

    /// One holder more. False if the object is unknown.
    fn add_holder(&mut self, object: ObjectId) -> bool {
        if let Some(put) = self.puts.get_mut(&object) {
            put.holders += 1;
            return true;
        }
        let Some(graph) = self.graphs.get_mut(&object.graph) else { return false };
        let Some(record) = graph.objects.get_mut(object.index as usize) else { return false };
        record.holders += 1;
        if record.holders == 1 {
            graph.held += 1;
            // It may have been freed at its last use; then it is made again.
            if graph.tasks[object.index as usize].state == TaskState::Done
                && !graph.objects[object.index as usize].made()
            {
                self.remake(object);
            }
        }
        true
    }

    pub(super) fn release(&mut self, peer: PeerId, objects: &[ObjectId]) {
        let mut released = Vec::new();
        if let Some(peer) = self.peers.get_mut(&peer) {
            for &object in objects {
                if let Some(count) = peer.holds.get_mut(&object) {
                    *count -= 1;
                    if *count == 0 {
                        peer.holds.remove(&object);
                    }
                    released.push(object);
                }
            }
        }
        self.drop_holders(&released);
    }

    /// One holder less of each.
    pub(super) fn drop_holders(&mut self, objects: &[ObjectId]) {
        let mut frees = Vec::new();
        for chunk in objects.chunk_by(|a, b| a.graph == b.graph) {
            let id = chunk[0].graph;
            if id.seq == 0 {
                for object in chunk {
                    if let Some(put) = self.puts.get_mut(object) {
                        put.holders -= 1;
                        if put.holders == 0 {
                            self.puts.remove(object);
                            frees.push(*object);
                        }
                    }
                }
                continue;
            }
            let Some(graph) = self.graphs.get_mut(&id) else { continue };
            let mut done = Done::default();
            for object in chunk {
                let record = &mut graph.objects[object.index as usize];
                record.holders -= 1;
                if record.holders == 0 {
                    graph.held -= 1;
                    done.unneeded.push(object.index);
                    // Who still waits for it hears that it is gone.
                    done.published.push(*object);
                }
            }
            let abandoned = graph.held == 0 && graph.unfinished > 0 && graph.running();
            self.settle(id, done);
            if abandoned {
                // Nobody can ever ask for anything of it.
                let origin = chunk[0];
                self.fail_graph(id, &Failure { origin, kind: FailureKind::Cancelled });
            }
            self.remove_if_over(id);
        }
        self.free(frees, Vec::new());
    }

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
        match (record.place, &graph.standing) {
            (Some(place), _) => Some(Ok(place)),
            (None, Standing::Ended(failure)) => Some(Err(failure.clone())),
            (None, Standing::Running) => None,
        }
    }

    fn on_await(&mut self, peer: PeerId, token: u64, objects: Vec<ObjectId>, need: u32, fail_fast: bool) {
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

    /// What a task waits for has workers apart from those at the task's own depth, for it occupies one of them.
    fn deepen_awaited(&mut self, wait: u64, worker: WorkerId) {
        let Some(flight) = self.workers.get(&worker).and_then(|worker| worker.flights.front()) else { return };
        let (depth, root) = (flight.depth + 1, self.graphs[&flight.graph].rank.0);
        let Some(wait) = self.waits.get(&wait) else { return };
        let mut graphs: Vec<GraphId> =
            wait.objects.iter().filter(|&&object| self.status(object).is_none()).map(|o| o.graph).collect();
        graphs.dedup();
        for graph in graphs {
            self.deepen(graph, depth, root);
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

    /// An object that only its worker has is published when somebody outside asks for it.
    fn publish_if_kept(&mut self, object: ObjectId) {
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
                    Err(failure) => self.fail_graph(id, failure),
                },
            }
        }
    }

    /// Answers a question with what is known now.
    pub(super) fn answer(&mut self, id: u64) {
        let Some(wait) = self.unwatch(id) else { return };
        let ended = wait.objects.iter().filter_map(|&o| self.status(o).map(|status| (o, status))).collect();
        if let Some(worker) = wait.peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.waits -= 1;
        }
        self.to_driver(wait.peer, ToDriver::Awaited { token: wait.token, ended });
    }

    /// Takes a question out of the tables.
    fn unwatch(&mut self, id: u64) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        for &object in &wait.objects {
            self.forget_watcher(object, Watcher::Wait(id));
        }
        Some(wait)
    }

    fn forget_watcher(&mut self, object: ObjectId, watcher: Watcher) {
        if let Some(watchers) = self.watchers.get_mut(&object) {
            watchers.retain(|found| *found != watcher);
            if watchers.is_empty() {
                self.watchers.remove(&object);
            }
        }
    }

    /// A peer is gone: that is the last use of all it held.
    pub(super) fn on_bye(&mut self, now: u64, peer: PeerId) {
        let waits: Vec<u64> = self.waits.iter().filter(|(_, w)| w.peer == peer).map(|(&id, _)| id).collect();
        for id in waits {
            self.unwatch(id);
        }
        if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.waits = 0;
        }
        let Some(record) = self.peers.get(&peer) else { return };
        for graph in record.graphs.clone() {
            self.cancel_graph(now, graph);
        }
        let Some(record) = self.peers.remove(&peer) else { return };
        let mut holds: Vec<ObjectId> = Vec::new();
        for (object, count) in record.holds {
            holds.extend(core::iter::repeat_n(object, count as usize));
        }
        holds.sort_unstable();
        self.drop_holders(&holds);
    }

    /// Ends the record of a graph to which nothing refers any more.
    pub(super) fn remove_if_over(&mut self, id: GraphId) {
        let Some(graph) = self.graphs.get(&id) else { return };
        if graph.unfinished == 0 || !graph.running() {
            let rank = graph.rank;
            self.queue.remove(&rank);
        }
        if !graph.over() {
            return;
        }
        let graph = self.graphs.remove(&id).expect("looked up above");
        if let Some(peer) = self.peers.get_mut(&id.peer) {
            peer.graphs.remove(&id);
        }
        let mut frees = Vec::new();
        let mut drops = Vec::new();
        for (task, object) in graph.objects.iter().enumerate() {
            let object_id = ObjectId { graph: id, index: task as u32 };
            if object.place.is_some() {
                frees.push(object_id);
            }
            if let Some(worker) = object.resident.and_then(|worker| self.workers.get_mut(&worker).map(|w| (worker, w)))
            {
                if worker.1.kept.remove(&object_id) {
                    drops.push((worker.0, object_id));
                }
            }
        }
        self.free(frees, drops);
        self.to_node(ToNode::Forget(id));
        let externals: Vec<ObjectId> = graph.externals.iter().filter(|e| e.held).map(|e| e.object).collect();
        for (k, external) in (0u32..).zip(&graph.externals).filter(|(_, external)| !external.available) {
            self.forget_watcher(external.object, Watcher::Graph(id, k));
        }
        self.drop_holders(&externals);
    }
}
