//! What workers say, and whether they may.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{FromNode, Place, Report};
use eagleray_store::Location;

use super::Loop;
use crate::command::Command;
use crate::history::Store;
use crate::objects::holder_of;
use crate::pool::Worker;
use crate::program::Value;
use crate::wire::{self, FromWorker, WireError};

/// What was taken in.
struct Kept {
    place: Place,
    /// The object had no value before.
    new: bool,
}

impl Loop {
    pub(super) fn read_workers(&mut self, now: u64) {
        let ids: Vec<WorkerId> = self.pool.workers.keys().copied().collect();
        for id in ids {
            loop {
                let result = match self.pool.frame(id) {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.frame(now, id, frame),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(fault) = result {
                    self.close_worker(id, fault);
                    break;
                }
            }
        }
    }

    /// A worker sent what does not fit: it is told why, and ended.
    pub(super) fn close_worker(&mut self, id: WorkerId, fault: String) {
        tracing::error!(worker = id.0, fault, "a worker is ended");
        self.pool.kill(id, Some(fault.into()));
    }

    pub(super) fn frame(&mut self, now: u64, id: WorkerId, frame: Bytes) -> Result<(), String> {
        self.shared.counters.lock().frames += 1;
        let Self { objects, .. } = self;
        // Nobody publishes what another process has written.
        let mut resolve = |location: Location| {
            if location.owner() != holder_of(id) {
                return Err(WireError::Inconsistent("a block of another process"));
            }
            objects.block(location)
        };
        let message = wire::read_from_worker(id, frame, &mut resolve).map_err(|e| e.to_string())?;
        match message {
            FromWorker::Hello { pid } => {
                self.node.hello(id).map_err(|e| e.to_string())?;
                tracing::debug!(worker = id.0, pid, "a worker is up");
                if let Some(worker) = self.pool.workers.get_mut(&id) {
                    worker.up(pid);
                }
            }
            FromWorker::Report { report, values, wakeups, times } => {
                self.node.check(&report).map_err(|e| e.to_string())?;
                self.report(now, id, report, values, wakeups, &times)?;
            }
            FromWorker::Published(object, stored) => {
                if object.graph.seq == 0 {
                    return Err("it publishes what was put".into());
                }
                let (place, contained) = match stored {
                    Some((value, contained)) => (Some(self.keep(now, id, object, value)?.place), contained),
                    None => (None, Vec::new()),
                };
                self.tell_head(now, FromNode::Published { worker: id, object, place, contained });
            }
            FromWorker::Completed(object, outcome) => {
                if !self.head.is_deferred(id, object) {
                    return Err("it completes what it has not deferred".into());
                }
                let outcome = match outcome {
                    Ok((value, contained)) => Ok((self.keep(now, id, object, value)?.place, contained)),
                    Err(trouble) => Err(trouble),
                };
                self.history.completed(now, object);
                self.tell_head(now, FromNode::Completed { worker: id, object, outcome });
            }
            FromWorker::Segment { id: segment, .. } | FromWorker::SegmentGone(segment)
                if eagleray_store::owner(segment) != holder_of(id) =>
            {
                return Err("it speaks of another process's segment".into());
            }
            FromWorker::Segment { id: segment, size } => {
                let Some(worker) = self.pool.workers.get_mut(&id) else { return Ok(()) };
                let fd = worker.reader.take_fd().map_err(|e| e.to_string())?;
                self.add_segment(segment, size, fd).map_err(|e| e.to_string())?;
            }
            FromWorker::SegmentGone(segment) => self.segment_gone(segment),
            FromWorker::Retire => {
                if self.head.has_worker(id) {
                    self.retire(id);
                } else if !self.pool.workers.get(&id).is_some_and(Worker::is_stopped) {
                    return Err("it retires before it is up".into());
                }
            }
            FromWorker::Unpin(locations) => self.objects.unpin(id, &locations, &mut self.recycled),
            FromWorker::Driver(command) => {
                if !self.head.has_worker(id) {
                    if self.pool.workers.get(&id).is_some_and(Worker::is_stopped) {
                        // What it held was released when it was let go.
                        return Ok(());
                    }
                    return Err("it submits or asks before it is up".into());
                }
                let peer = PeerId::of_worker(id);
                self.fits(peer, &command)?;
                self.command(now, peer, command);
            }
        }
        Ok(())
    }

    /// Whether a worker may say this: what the tables here hold of others is not to be touched. The rest the head checks.
    fn fits(&self, peer: PeerId, command: &Command) -> Result<(), String> {
        let fits = match command {
            Command::Submit(spec, _) => spec.id.peer == peer,
            Command::Extend { graph, .. } => graph.peer == peer,
            // Of a graph that is over, the head knows what to do.
            Command::Supply(object, ..) => {
                object.graph.peer == peer && (!self.head.has_graph(object.graph) || self.programs.has_task(*object))
            }
            Command::Put(object, ..) => object.graph == GraphId::puts(peer) && !self.objects.contains(*object),
            // Who can name a task or an actor may end it.
            Command::Hold(_)
            | Command::Release(_)
            | Command::Await { .. }
            | Command::Forget(_)
            | Command::Cancel(_)
            | Command::CancelTask { .. }
            | Command::KillActor { .. }
            | Command::FindActor { .. }
            | Command::Yield { .. }
            | Command::Next { .. }
            | Command::Ahead { .. }
            | Command::Inspect { .. } => true,
        };
        if fits { Ok(()) } else { Err("it speaks of a graph or an object that is not its own".into()) }
    }

    pub(super) fn add_segment(&mut self, id: u64, size: u64, fd: OwnedFd) -> Result<(), WireError> {
        if eagleray_store::is_file(id) && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("the object store is full: values go to files in the session directory, which is slower");
        }
        self.objects.add_segment(id, size, fd)
    }

    fn report(
        &mut self,
        now: u64,
        id: WorkerId,
        report: Report,
        values: Vec<(u32, Value, Vec<ObjectId>)>,
        wakeups: u32,
        times: &Bytes,
    ) -> Result<(), String> {
        self.keep_results(now, id, report.run.seq, values)?;
        let (upto, troubles) = (report.upto, report.troubles.len());
        tracing::trace!(worker = id.0, run = report.run.seq, upto, ended = report.ended, troubles, "report");
        self.shared.counters.lock().wakeups += u64::from(wakeups);
        let tasks: u64 = report.timings.iter().map(|t| u64::from(t.count)).sum();
        let worker = self.pool.workers.get_mut(&id);
        let over = worker.is_some_and(|worker| {
            if let Some(run) = worker.progressed(now, tasks, times, report.ended) {
                self.history.add_run(run);
            }
            worker.is_stopped() && worker.is_idle()
        });
        self.tell_head(now, FromNode::Report(report));
        if over {
            self.let_go(id);
        }
        Ok(())
    }

    /// Takes in what a report brings: all of it, or nothing. What its values name is in the report.
    fn keep_results(
        &mut self,
        now: u64,
        id: WorkerId,
        seq: u32,
        values: Vec<(u32, Value, Vec<ObjectId>)>,
    ) -> Result<(), String> {
        let mut new = Vec::new();
        for (index, value, _) in values {
            let object = self.pool.workers.get(&id).and_then(|worker| worker.object(seq, index));
            let kept = match object {
                Some(object) => self.keep(now, id, object, value).map(|kept| (object, kept)),
                None => Err("it reports a result of no task".into()),
            };
            match kept {
                Ok((object, Kept { new: true, .. })) => new.push(object),
                Ok(_) => {}
                Err(fault) => {
                    // The head will never hear of these.
                    for object in new {
                        self.objects.remove(object, &mut self.recycled);
                    }
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Takes in the value of an object that a worker has published.
    fn keep(&mut self, now: u64, id: WorkerId, object: ObjectId, value: Value) -> Result<Kept, String> {
        let (place, store) = (wire::place_of(&value), Store::of(&value));
        let mut counters = self.shared.counters.lock();
        match value {
            Value::Inline(_) => counters.inline += 1,
            Value::Sealed(_) => counters.sealed += 1,
        }
        drop(counters);
        let new = self.objects.insert(object, value, &mut self.recycled).map_err(|e| e.to_string())?;
        self.history.stored(now, object, place.len(), store, PeerId::of_worker(id));
        Ok(Kept { place, new })
    }
}
