//! Who needs which object: the driver's messages.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::actors::Actor;
use super::graph::{Graph, TaskState};
use super::independent::cancelled;
use super::report::{Done, complete};
use super::{Head, PutObject, Rank, Watcher, unknown};
use crate::ids::{GraphId, ObjectId, PeerId, RunId};
use crate::message::{Failure, FailureKind, GraphKind, GraphSpec, Place, Refusal, ToHead, ToNode};

impl Head {
    pub(super) fn on_driver(&mut self, now: u64, peer: PeerId, message: ToHead) -> Result<(), Refusal> {
        match message {
            ToHead::Submit(spec) => self.on_submit(peer, *spec),
            ToHead::Admit { graph, upto } => self.on_admit(peer, graph, upto),
            ToHead::Supply { object, place, contained } => {
                self.on_supply(peer, object, place)?;
                self.hold_contents(object, contained);
                Ok(())
            }
            ToHead::Put { object, place, contained } => {
                if object.graph != GraphId::puts(peer) {
                    return Err(unknown("object: it was put by another peer"));
                }
                if self.puts.contains_key(&object) {
                    return Err(unknown("object: it was put already"));
                }
                self.puts.insert(object, PutObject { place, holders: 0 });
                self.hold(peer, object)?;
                self.hold_contents(object, contained);
                Ok(())
            }
            ToHead::Hold(objects) => objects.into_iter().try_for_each(|object| {
                let late = !self.has_holder(object);
                self.hold(peer, object)?;
                self.held_late(object, late);
                Ok(())
            }),
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
                match wait {
                    Some(wait) => self.answer(wait),
                    None => {
                        self.forget_next(peer, token);
                    }
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
            ToHead::CancelTask { object, force, recursive } => {
                self.cancel_task(now, object, force, recursive);
                Ok(())
            }
            ToHead::KillActor { actor, restart } => {
                self.on_kill_actor(peer, actor, restart);
                Ok(())
            }
            ToHead::FindActor { token, name } => self.on_find_actor(peer, token, &name),
            ToHead::Yield { stream, index, part } => {
                self.on_yield(peer, stream, index, part);
                Ok(())
            }
            ToHead::Next { token, stream, index, take } => self.on_next(peer, token, stream, (index, take)),
            ToHead::Ahead { token, stream, taken } => {
                self.on_ahead(peer, token, stream, taken);
                Ok(())
            }
            ToHead::Bye => {
                self.on_bye(now, peer);
                Ok(())
            }
        }
    }

    fn on_submit(&mut self, peer: PeerId, mut spec: GraphSpec) -> Result<(), Refusal> {
        let id = spec.id;
        self.check_kind(&spec)?;
        if id.peer != peer || id.seq == 0 || self.graphs.contains_key(&id) {
            return Err(Refusal::MalformedGraph("its id is not free"));
        }
        self.submitted += 1;
        // What a task submits is served before what else its ancestors have to start, the innermost first.
        let parent = self.parent(peer);
        let depth = parent.map_or(0, |(depth, _)| depth);
        let (priority, root) =
            parent.map_or((Reverse(spec.priority), self.submitted), |(_, rank)| (rank.priority, rank.root));
        let rank = Rank { priority, root, depth: Reverse(depth), submitted: self.submitted };
        let outputs = spec.outputs.clone();
        let contained = core::mem::take(&mut spec.contained);
        let (needs, shortages) = self.needs(&spec)?;
        let mut graph = Graph::new(spec, needs, depth, rank)?;
        graph.parent = peer.worker().and_then(|worker| {
            let flight = self.workers.get(&worker)?.flights.front()?;
            Some(RunId { worker, seq: flight.seq })
        });
        graph.demands = self.ready.number(&graph);
        let externals: Vec<ObjectId> = graph.externals.iter().map(|e| e.object).collect();
        self.peers.entry(peer).or_default().graphs.insert(id);
        let (kind, calls) = (graph.kind.clone(), graph.is_calls());
        self.graphs.insert(id, graph);
        if !calls {
            self.queue.insert(rank, id);
        }
        for task in outputs {
            self.hold(peer, ObjectId { graph: id, index: task })?;
        }
        let held: Vec<ObjectId> = contained.into_iter().filter(|&object| self.add_holder(object)).collect();
        self.graphs.get_mut(&id).expect("inserted above").contained = held;
        if let GraphKind::Actor(spec) = kind {
            self.on_new_actor(id, *spec);
        }
        self.enter_lane(id);
        self.fail_if_too_deep(id);
        let infeasible = shortages.into_iter().map(|(task, shortage)| {
            let origin = ObjectId { graph: id, index: task };
            Failure { origin, kind: FailureKind::Infeasible(Box::new(shortage)) }
        });
        self.fail_infeasible(id, infeasible.collect());
        for (k, object) in externals.into_iter().enumerate() {
            self.need_external(id, k as u32, object);
        }
        self.remove_if_over(id);
        Ok(())
    }

    /// A graph holds what it reads from outside, from its submission on, and again when it needs once more what it has
    /// let go.
    pub(super) fn need_external(&mut self, id: GraphId, k: u32, object: ObjectId) {
        // Another of its inputs may have failed it already.
        if !self.graphs.get(&id).is_some_and(Graph::running) {
            return;
        }
        let held = self.add_holder(object);
        let graph = self.graphs.get_mut(&id).expect("looked up above");
        graph.externals[k as usize].held = held;
        self.watch_external(id, k, object);
    }

    /// A finished graph whose results are published can do without what they were made of. Should a result be lost
    /// all the same, what it reads from outside is looked for again, and what its constants name by who reads them. Else
    /// each of many calls that are given a list with the result of the one before would hold all of them.
    pub(super) fn release_lineage(&mut self, id: GraphId) {
        let Some(graph) = self.graphs.get_mut(&id) else { return };
        let again = graph.is_actor().then(|| self.actors.get(&ObjectId { graph: id, index: 0 })).flatten();
        let actor = again.is_some_and(Actor::may_restart);
        if graph.unfinished > 0 || !graph.running() || actor {
            return;
        }
        let nothing =
            graph.supplied.is_empty() && graph.contained.is_empty() && !graph.externals.iter().any(|e| e.held);
        let failed = |task: usize| graph.tasks[task].state == TaskState::Failed;
        let lacks = |(task, o): (usize, &super::graph::Object)| o.needed() && o.place.is_none() && !failed(task);
        if nothing || graph.objects.iter().enumerate().any(lacks) {
            return;
        }
        let done = Done { unneeded: core::mem::take(&mut graph.supplied), ..Done::default() };
        self.loose.append(&mut graph.contained);
        let mut released = Vec::new();
        let mut watched = Vec::new();
        for (k, external) in (0u32..).zip(&mut graph.externals).filter(|(_, e)| e.held) {
            if !external.available {
                watched.push((k, external.object));
            }
            external.held = false;
            external.available = false;
            released.push(external.object);
        }
        // What becomes of them is nothing to it any more.
        for (k, object) in watched {
            self.forget_watcher(object, Watcher::Graph(id, k));
        }
        self.settle(id, done);
        self.drop_holders(&released);
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
        let begins = graph.admitted == 0 && upto > 0 && graph.running();
        graph.admitted = graph.admitted.max(upto);
        self.settle(id, done);
        if begins {
            self.make_way(id);
        }
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
        if graph.is_actor() || graph.is_calls() {
            return Err(Refusal::MalformedGraph("actors and calls are not supplied"));
        }
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

    /// Whether somebody holds the object of a task.
    fn has_holder(&self, object: ObjectId) -> bool {
        let graph = self.graphs.get(&object.graph);
        graph.and_then(|graph| graph.objects.get(object.index as usize)).is_some_and(|record| record.holders > 0)
    }

    /// One holder more of what a value names. False if the object is unknown.
    pub(super) fn add_holder_late(&mut self, object: ObjectId) -> bool {
        let late = !self.has_holder(object);
        let known = self.add_holder(object);
        self.held_late(object, late);
        known
    }

    /// What nobody held was lost to who waits for it. Held again it is not.
    fn held_late(&mut self, object: ObjectId, late: bool) {
        if late && object.graph.seq > 0 && !self.waits.is_empty() {
            self.wait_again(object);
        }
    }

    /// One holder more. False if the object is unknown.
    pub(super) fn add_holder(&mut self, object: ObjectId) -> bool {
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
            let mut streams = Vec::new();
            for object in chunk {
                let record = &mut graph.objects[object.index as usize];
                record.holders -= 1;
                if record.holders == 0 {
                    streams.push(*object);
                    graph.held -= 1;
                    done.unneeded.push(object.index);
                    // Who still waits for it hears that it is gone.
                    done.published.push(*object);
                }
            }
            let streams = streams.into_iter().filter(|object| self.streams.contains_key(object)).collect::<Vec<_>>();
            let Some(graph) = self.graphs.get_mut(&id) else { continue };
            let abandoned = graph.held == 0 && graph.unfinished > 0 && graph.running() && !graph.stands_alone();
            let actor = graph.is_actor();
            self.settle(id, done);
            if abandoned {
                // Nobody can ever ask for anything of it.
                let origin = chunk[0];
                self.fail_graph(id, &Failure { origin, kind: FailureKind::Cancelled });
            }
            for stream in streams {
                self.forget_stream(stream);
            }
            if actor {
                self.end_if_released(chunk[0]);
            }
            self.remove_if_over(id);
        }
        self.free(frees, Vec::new());
    }

    /// A peer is gone: that is the last use of all it held.
    pub(super) fn on_bye(&mut self, now: u64, peer: PeerId) {
        let waits: Vec<u64> = self.waits.iter().filter(|(_, w)| w.peer == peer).map(|(&id, _)| id).collect();
        for id in waits {
            self.unwatch(id);
        }
        self.forget_nexts_of(peer);
        if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.waits = 0;
            worker.ahead = 0;
            worker.aside = false;
        }
        let Some(record) = self.peers.get(&peer) else { return };
        for graph in record.graphs.clone() {
            // What stands for itself may be held by others, or is to be done in any case, if all of it has come.
            match self.graphs.get(&graph).filter(|graph| graph.stands_alone()) {
                Some(alone) => {
                    let rest = alone.at[alone.admitted as usize..].iter().copied();
                    let waits = rest.filter(|&task| alone.tasks[task as usize].state == TaskState::Waiting);
                    let failed = waits.map(|index| (index, cancelled(ObjectId { graph, index }))).collect();
                    self.fail_tasks(graph, failed);
                }
                None => self.cancel_graph(now, graph),
            }
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
            let (rank, over) = (graph.rank, graph.over());
            self.queue.remove(&rank);
            self.forget_spread(id);
            if over {
                self.remove_graph(id);
            }
        }
    }

    fn remove_graph(&mut self, id: GraphId) {
        let mut graph = self.graphs.remove(&id).expect("looked up above");
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
        self.loose.extend(graph.externals.iter().filter(|e| e.held).map(|e| e.object));
        self.loose.append(&mut graph.contained);
        for (k, external) in (0u32..).zip(&graph.externals).filter(|(_, external)| !external.available) {
            self.forget_watcher(external.object, Watcher::Graph(id, k));
        }
        if self.config.keeps_ended {
            self.ended.add(id, graph);
        }
    }
}
