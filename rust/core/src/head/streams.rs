//! What tasks make bit by bit: the parts, and who waits for the next.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Flight, Head, Worker};
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{Refusal, ToDriver};

/// What a peer asks about parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) peer: PeerId,
    token: u64,
    /// Which part, or how many taken ones, it waits for.
    wanted: u32,
    /// It takes the part.
    take: bool,
}

/// The parts of one task's result, each held by it until somebody asks for the next.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Those from `over` on.
    pub(super) parts: VecDeque<ObjectId>,
    /// How many were let go.
    over: u32,
    /// How many were taken. Who only looks whether one is there takes none.
    taken: u32,
    /// Who waits for a part that is not there.
    pub(super) waiting: Vec<Question>,
    /// Who waits until so many were taken.
    pub(super) ahead: Vec<Question>,
}

impl Stream {
    /// How many were made.
    fn made(&self) -> u32 {
        self.over + self.parts.len() as u32
    }

    fn part(&self, index: u32) -> Option<ObjectId> {
        self.parts.get(index.checked_sub(self.over)? as usize).copied()
    }

    /// Who waits for something.
    pub(super) fn who_waits(&self) -> impl Iterator<Item = PeerId> {
        self.waiting.iter().chain(&self.ahead).map(|question| question.peer)
    }
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
        if self.streams.get(&stream).map_or(0, Stream::made) != index || !self.add_holder(part) {
            return;
        }
        let found = self.streams.entry(stream).or_default();
        found.parts.push_back(part);
        let waiting = found.waiting.extract_if(.., |question| question.wanted == index).collect::<Vec<_>>();
        if waiting.iter().any(|question| question.take) {
            self.take(stream, index);
        }
        for Question { peer, token, .. } in waiting {
            self.unblock(peer);
            self.found(peer, token, Some(part));
        }
    }

    /// Somebody asks for a part: those before are had or not wanted.
    fn let_go_before(&mut self, stream: ObjectId, index: u32) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let over = index.min(found.made()).saturating_sub(found.over);
        self.loose.extend(found.parts.drain(..over as usize));
        found.over += over;
    }

    /// A part is given to who takes it.
    fn take(&mut self, stream: ObjectId, index: u32) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.taken = found.taken.max(index + 1);
        let taken = found.taken;
        let ahead = found.ahead.extract_if(.., |question| question.wanted <= taken).collect();
        self.answer_ahead(ahead);
    }

    /// Answers that there is no part.
    fn answer_without(&mut self, questions: Vec<Question>) {
        for Question { peer, token, .. } in questions {
            self.unblock(peer);
            self.found(peer, token, None);
        }
    }

    /// Answers who was ahead.
    fn answer_ahead(&mut self, questions: Vec<Question>) {
        for Question { peer, .. } in &questions {
            if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
                worker.ahead -= 1;
            }
        }
        self.answer_without(questions);
    }

    pub(super) fn on_next(
        &mut self,
        peer: PeerId,
        token: u64,
        stream: ObjectId,
        (index, take): (u32, bool),
    ) -> Result<(), Refusal> {
        self.let_go_before(stream, index);
        let found = self.streams.get(&stream);
        let part = found.and_then(|found| found.part(index));
        let is_over = found.is_some_and(|found| index < found.over);
        if part.is_some() || is_over || self.status(stream).is_some() {
            if let Some(part) = part {
                if take {
                    self.take(stream, index);
                }
                self.hold(peer, part)?;
            }
            self.to_driver(peer, ToDriver::Found { token, object: part });
            return Ok(());
        }
        let question = Question { peer, token, wanted: index, take };
        self.streams.entry(stream).or_default().waiting.push(question);
        self.publish_if_kept(stream);
        self.block(peer);
        if let Some(id) = peer.worker() {
            self.deepen_for(stream.graph, id);
        }
        Ok(())
    }

    /// Who makes parts asks whether so many were taken, before it makes more.
    pub(super) fn on_ahead(&mut self, peer: PeerId, token: u64, stream: ObjectId, taken: u32) {
        let wanted = self.status(stream).is_none();
        match self.streams.get_mut(&stream).filter(|found| wanted && found.taken < taken) {
            Some(found) => {
                found.ahead.push(Question { peer, token, wanted: taken, take: false });
                if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
                    worker.ahead += 1;
                }
                self.block(peer);
            }
            // Parts that nobody will take are gone at once: they need no room.
            None => self.to_driver(peer, ToDriver::Found { token, object: None }),
        }
    }

    /// Nothing more comes.
    pub(super) fn end_stream(&mut self, stream: ObjectId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        let (waiting, ahead) = (core::mem::take(&mut found.waiting), core::mem::take(&mut found.ahead));
        self.answer_without(waiting);
        self.answer_ahead(ahead);
        self.forget_stream_if_empty(stream);
    }

    /// A question about parts is withdrawn. True if there was one.
    pub(super) fn forget_next(&mut self, peer: PeerId, token: u64) -> bool {
        let is_it = |question: &mut Question| (question.peer, question.token) == (peer, token);
        let mut asked = self.streams.iter_mut().filter_map(|(&stream, found)| {
            let waiting: Vec<Question> = found.waiting.extract_if(.., is_it).collect();
            let ahead: Vec<Question> = found.ahead.extract_if(.., is_it).collect();
            (!waiting.is_empty() || !ahead.is_empty()).then_some((stream, waiting, ahead))
        });
        let Some((stream, waiting, ahead)) = asked.next() else { return false };
        self.answer_without(waiting);
        self.answer_ahead(ahead);
        self.forget_stream_if_empty(stream);
        true
    }

    /// The graphs of the streams of which a worker waits for a part.
    pub(super) fn awaited_streams(&self, worker: WorkerId) -> Vec<GraphId> {
        let waits = |found: &Stream| found.waiting.iter().any(|question| question.peer.worker() == Some(worker));
        let awaited = self.streams.iter().filter(|(_, found)| waits(found)).map(|(stream, _)| stream.graph);
        let mut awaited: Vec<GraphId> = awaited.collect();
        awaited.sort_unstable();
        awaited
    }

    /// A peer is gone, and asks no more.
    pub(super) fn forget_nexts_of(&mut self, peer: PeerId) {
        let streams: Vec<ObjectId> = self.streams.keys().copied().collect();
        for stream in streams {
            let found = self.streams.get_mut(&stream).expect("listed above");
            found.waiting.retain(|question| question.peer != peer);
            found.ahead.retain(|question| question.peer != peer);
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

    /// One of which parts were made is known as long as somebody may ask: another attempt makes none twice.
    fn forget_stream_if_empty(&mut self, stream: ObjectId) {
        if self.streams.get(&stream).is_some_and(|found| found.made() == 0 && found.who_waits().next().is_none()) {
            self.streams.remove(&stream);
        }
    }

    fn found(&mut self, peer: PeerId, token: u64, part: Option<ObjectId>) {
        let held = part.filter(|part| self.hold(peer, *part).is_ok());
        self.to_driver(peer, ToDriver::Found { token, object: held });
    }

    fn block(&mut self, peer: PeerId) {
        let Some(id) = peer.worker() else { return };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.waits += 1;
        }
        self.on_blocked(id);
    }

    fn unblock(&mut self, peer: PeerId) {
        if let Some(worker) = peer.worker().and_then(|worker| self.workers.get_mut(&worker)) {
            worker.answered();
        }
    }
}
