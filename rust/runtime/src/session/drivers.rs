//! What driver roles ask for, and what they are answered.

use eagleray_core::head::HeadEvent;
use eagleray_core::ids::{ObjectId, PeerId};
use eagleray_core::message::{Failure, FailureKind, FromDriver, Place, ToDriver, ToHead};

use super::Loop;
use super::inspect::Inspection;
use crate::command::{Answer, Command, Ended};
use crate::history::Store;
use crate::program::Value;
use crate::shared::SessionError;
use crate::wire::{self, ToWorker};

impl Loop {
    pub(super) fn command(&mut self, now: u64, peer: PeerId, command: Command) {
        let message = match command {
            Command::Submit(spec, program) => {
                let (graph, tasks) = (spec.id.seq, spec.inputs.len());
                tracing::debug!(peer = peer.0, graph, tasks, "a graph is submitted");
                self.node.nudge();
                let submitted =
                    self.programs.submit(spec.id, spec.inputs.len() as u32, spec.externals.clone(), *program);
                if let Err(error) = submitted {
                    self.refuse(peer, error.to_string());
                    return;
                }
                let graph = spec.id;
                self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message: ToHead::Submit(spec) }));
                if !self.head.has_graph(graph) {
                    self.programs.forget(graph);
                }
                return;
            }
            Command::Extend { graph, part, admit_upto } => {
                self.shared.counters.lock().pickles += (part.functions.len() + part.batches.len()) as u64;
                self.programs.extend(graph, part);
                ToHead::Admit { graph, upto: admit_upto }
            }
            Command::Supply(object, value, contained) => {
                let place = wire::place_of(&value);
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                ToHead::Supply { object, place, contained }
            }
            Command::Put(object, value, contained) => {
                let (place, store) = (wire::place_of(&value), Store::of(&value));
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                self.history.stored(now, object, place.len(), store, peer);
                ToHead::Put { object, place, contained }
            }
            Command::Hold(objects) => ToHead::Hold(objects),
            Command::Release(objects) => ToHead::Release(objects),
            Command::Await { token, objects, need, fail_fast } => ToHead::Await { token, objects, need, fail_fast },
            Command::Forget(token) => ToHead::Forget { token },
            Command::Cancel(graph) => {
                tracing::debug!(peer = graph.peer.0, graph = graph.seq, "a graph is cancelled");
                ToHead::Cancel { graph }
            }
            Command::CancelTask { object, force, recursive } => {
                let (owner, graph, task) = (object.graph.peer.0, object.graph.seq, object.index);
                tracing::debug!(peer = peer.0, owner, graph, task, force, recursive, "a task is cancelled");
                ToHead::CancelTask { object, force, recursive }
            }
            Command::KillActor { actor, restart } => {
                let (owner, graph) = (actor.graph.peer.0, actor.graph.seq);
                tracing::debug!(peer = peer.0, owner, graph, restart, "an actor is killed");
                ToHead::KillActor { actor, restart }
            }
            Command::FindActor { token, name } => ToHead::FindActor { token, name },
            Command::Yield { stream, index, part } => ToHead::Yield { stream, index, part },
            Command::Next { token, stream, index, take } => ToHead::Next { token, stream, index, take },
            Command::Ahead { token, stream, taken } => ToHead::Ahead { token, stream, taken },
            Command::Inspect { token, look } => {
                self.inspections.push(Inspection::Peer(look, peer, token));
                return;
            }
        };
        self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message }));
    }

    pub(super) fn refuse(&mut self, peer: PeerId, why: String) {
        match peer.worker() {
            None => {
                tracing::error!(why, "a message of the driver was refused");
                self.shared.seat.end(SessionError::Refused(why.into()));
            }
            Some(worker) => {
                if let Some(process) = self.pool.workers.get_mut(&worker) {
                    process.send(&ToWorker::Refused(why.clone()));
                }
                self.close_worker(worker, why);
            }
        }
    }

    /// Carries out what the head says to a driver role.
    pub(super) fn to_driver(&mut self, now: u64, peer: PeerId, message: ToDriver) {
        match message {
            ToDriver::Awaited { token, ended } => self.answer(now, peer, token, ended),
            ToDriver::Found { token, object } => {
                // What is said of an actor is known as long as it is: the head has not said forget.
                let meta = |object: ObjectId| self.programs.actor_meta(object.graph).unwrap_or_default();
                let ended = object.map(|object| (object, Ok(Value::Inline(meta(object))))).into_iter().collect();
                self.send_answer(peer, token, ended);
            }
            ToDriver::Refused(why) => self.refuse(peer, why.to_string()),
        }
    }

    pub(super) fn send_answer(&mut self, peer: PeerId, token: u64, ended: Ended) {
        match peer.worker() {
            None => self.answers.push((token, ended)),
            Some(id) => {
                if let Some(worker) = self.pool.workers.get_mut(&id) {
                    worker.send(&ToWorker::Awaited(Answer { token, ended }));
                }
            }
        }
    }

    fn answer(&mut self, now: u64, peer: PeerId, token: u64, found: Vec<(ObjectId, Result<Place, Failure>)>) {
        let lost = |object| Failure { origin: object, kind: FailureKind::Lost };
        match peer.worker() {
            None => {
                let ended: Ended = found
                    .into_iter()
                    .map(|(object, outcome)| {
                        let value = outcome.and_then(|_| self.objects.for_driver(object).ok_or_else(|| lost(object)));
                        (object, value)
                    })
                    .collect();
                self.send_answer(peer, token, ended);
            }
            Some(id) => {
                let Some(worker) = self.pool.workers.get_mut(&id) else { return };
                let mut ended: Ended = Vec::with_capacity(found.len());
                for (object, outcome) in found {
                    let value = outcome.and_then(|_| {
                        let (value, segment) = self.objects.for_worker(object, id).ok_or_else(|| lost(object))?;
                        worker.introduce(segment);
                        self.history.sent(now, object, &value, id);
                        Ok(value)
                    });
                    ended.push((object, value));
                }
                self.send_answer(peer, token, ended);
            }
        }
    }
}
