//! What tasks make bit by bit: the parts, and who waits for the next.

use alloc::vec::Vec;

use super::{Flight, Head, Worker};
use crate::ids::{ObjectId, PeerId, WorkerId};
use crate::message::{Refusal, ToDriver};

/// The parts of one task's result, each held by it.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) parts: Vec<ObjectId>,
    /// Who waits for a part that is not there: peer, token, index.
    pub(super) waiting: Vec<(PeerId, u64, u32)>,
}

impl Head {
    /// A part was made, in the worker that runs the task.
    pub(super) fn on_yield(&mut self, peer: PeerId, stream: ObjectId, index: u32, part: ObjectId) {
        let runs = |worker: &Worker| {
            let of_graph = |f: &&Flight| f.graph == stream.graph;
            worker.deferred.contains(&stream)
                || worker.flights.iter().filter(of_graph).any(|f| f.tasks[f.upto as usize..].contains(&stream.index))
        };
        if !peer.worker().and_then(|id| self.workers.get(&id)).is_some_and(runs) {
            return;
        }
        // Nobody can ask for it any more.
        let object = self.graphs.get(&stream.graph).and_then(|graph| graph.objects.get(stream.index as usize));
        if object.is_none_or(|object| object.holders == 0) {
            return;
        }
        if self.streams.get(&stream).map_or(0, |found| found.parts.len()) != index as usize || !self.add_holder(part) {
            return;
        }
        let found = self.streams.entry(stream).or_default();
        found.parts.push(part);
        let waiting = found.waiting.extract_if(.., |(_, _, wanted)| *wanted == index).collect::<Vec<_>>();
        for (peer, token, _) in waiting {
            self.unblock(peer);
            self.found(peer, token, Some(part));
        }
    }

    pub(super) fn on_next(&mut self, peer: PeerId, token: u64, stream: ObjectId, index: u32) -> Result<(), Refusal> {
        let part = self.streams.get(&stream).and_then(|found| found.parts.get(index as usize)).copied();
        if part.is_some() || self.status(stream).is_some() {
            if let Some(part) = part {
                self.hold(peer, part)?;
            }
            self.to_driver(peer, ToDriver::Found { token, object: part });
            return Ok(());
        }
        self.streams.entry(stream).or_default().waiting.push((peer, token, index));
        self.publish_if_kept(stream);
        if let Some(id) = peer.worker() {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.waits += 1;
            }
            self.on_blocked(id);
            self.deepen_for(stream.graph, id);
            self.deepen_for_actors();
        }
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn end_stream(&mut self, stream: ObjectId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        for (peer, token, _) in core::mem::take(&mut found.waiting) {
            self.unblock(peer);
            self.found(peer, token, None);
        }
        self.forget_stream_if_empty(stream);
    }

    /// A question about a part is withdrawn. True if there was one.
    pub(super) fn forget_next(&mut self, peer: PeerId, token: u64) -> bool {
        let asked = |found: &Stream| found.waiting.iter().any(|(who, what, _)| (*who, *what) == (peer, token));
        let Some(stream) = self.streams.iter().find(|(_, found)| asked(found)).map(|(&stream, _)| stream) else {
            return false;
        };
        let found = self.streams.get_mut(&stream).expect("found above");
        found.waiting.retain(|(who, what, _)| (*who, *what) != (peer, token));
        self.unblock(peer);
        self.found(peer, token, None);
        self.forget_stream_if_empty(stream);
        true
    }

    /// The streams of which such a worker waits for a part, and who that is.
    pub(super) fn awaited_streams(&self, who: impl Fn(WorkerId) -> bool) -> Vec<(ObjectId, WorkerId)> {
        let waiting = |(stream, found): (&ObjectId, &Stream)| {
            let workers = found.waiting.iter().filter_map(|(peer, ..)| peer.worker()).filter(|worker| who(*worker));
            workers.map(|worker| (*stream, worker)).collect::<Vec<_>>()
        };
        let mut awaited = self.streams.iter().flat_map(waiting).collect::<Vec<_>>();
        awaited.sort_unstable();
        awaited
    }

    /// A peer is gone, and asks no more.
    pub(super) fn forget_nexts_of(&mut self, peer: PeerId) {
        let streams: Vec<ObjectId> = self.streams.keys().copied().collect();
        for stream in streams {
            let found = self.streams.get_mut(&stream).expect("listed above");
            found.waiting.retain(|(who, ..)| *who != peer);
            self.forget_stream_if_empty(stream);
        }
    }

    /// Nobody holds the object of a task any more: its parts are let go.
    pub(super) fn forget_stream(&mut self, stream: ObjectId) {
        self.end_stream(stream);
        if let Some(found) = self.streams.remove(&stream) {
            self.loose.extend(found.parts);
        }
    }

    fn forget_stream_if_empty(&mut self, stream: ObjectId) {
        if self.streams.get(&stream).is_some_and(|found| found.parts.is_empty() && found.waiting.is_empty()) {
            self.streams.remove(&stream);
        }
    }

    fn found(&mut self, peer: PeerId, token: u64, part: Option<ObjectId>) {
        let held = part.filter(|part| self.hold(peer, *part).is_ok());
        self.to_driver(peer, ToDriver::Found { token, object: held });
    }

    fn unblock(&mut self, peer: PeerId) {
        if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.waits -= 1;
        }
    }
}
