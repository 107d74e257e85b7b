//! What driver roles ask for, and what they are answered.

use eagleray_core::head::HeadEvent;
use eagleray_core::ids::{ObjectId, PeerId};
use eagleray_core::message::{Failure, FailureKind, FromDriver, Place, ToHead};

use super::Loop;
use crate::command::{Answer, Command, Ended};
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
            Command::Supply(object, value) => {
                let place = wire::place_of(&value);
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                ToHead::Supply { object, place }
            }
            Command::Put(object, value) => {
                let place = wire::place_of(&value);
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                ToHead::Put { object, place }
            }
            Command::Hold(objects) => ToHead::Hold(objects),
            Command::Release(objects) => ToHead::Release(objects),
            Command::Await { token, objects, need, fail_fast } => ToHead::Await { token, objects, need, fail_fast },
            Command::Forget(token) => ToHead::Forget { token },
            Command::Cancel(graph) => {
                tracing::debug!(peer = graph.peer.0, graph = graph.seq, "a graph is cancelled");
                ToHead::Cancel { graph }
            }
        };
        self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message }));
    }

    pub(super) fn refuse(&mut self, peer: PeerId, why: String) {
        match peer.worker() {
            None => {
                tracing::error!(why, "a message of the driver was refused");
                self.shared.end(SessionError::Refused(why.into()));
            }
            Some(worker) => {
                if let Some(process) = self.pool.workers.get_mut(&worker) {
                    process.send(&ToWorker::Refused(why.clone()));
                }
                self.close_worker(worker, why);
            }
        }
    }

    pub(super) fn answer(&mut self, peer: PeerId, token: u64, found: Vec<(ObjectId, Result<Place, Failure>)>) {
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
                self.answers.push((token, ended));
            }
            Some(id) => {
                let Some(worker) = self.pool.workers.get_mut(&id) else { return };
                let mut ended: Ended = Vec::with_capacity(found.len());
                for (object, outcome) in found {
                    let value = outcome.and_then(|_| {
                        let (value, segment) = self.objects.for_worker(object, id).ok_or_else(|| lost(object))?;
                        worker.introduce(segment);
                        Ok(value)
                    });
                    ended.push((object, value));
                }
                worker.send(&ToWorker::Awaited(Answer { token, ended }));
            }
        }
    }
}
