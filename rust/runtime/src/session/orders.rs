//! What the head has the node do.

use eagleray_core::head::HeadEvent;
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::{FromDriver, FromNode, Report, Run, ToHead, ToNode, output};

use super::Loop;
use super::interrupts::Interrupt;
use crate::program::RunProgram;
use crate::wire::{self, ToWorker};

impl Loop {
    pub(super) fn start_worker(&mut self, id: WorkerId) {
        if self.zero.is_some() {
            // Nobody there: the worker is an idea.
            let _ = self.node.hello(id);
        } else if !self.by_session && self.pool.needs_template() {
            self.postponed.push(id);
        } else if let Err(death) = self.pool.start(id) {
            tracing::error!(?death, "a worker does not start");
            self.node.exited(id, death, None);
        }
    }

    pub(super) fn to_node(&mut self, now: u64, message: ToNode) {
        match message {
            ToNode::Assign(run) if self.zero.is_some() => self.pretend(now, run),
            ToNode::Assign(run) => self.assign(now, run),
            ToNode::Recall { run, from } => {
                let Some(worker) = self.pool.workers.get_mut(&run.worker) else { return };
                if let Some(limit) = worker.recall(run.seq, from) {
                    tracing::debug!(worker = run.worker.0, run = run.seq, from = limit, "tasks are recalled");
                    self.tell_head(now, FromNode::Recalled { run, limit });
                }
            }
            ToNode::Publish { worker, objects, seal } => {
                self.request(worker, &ToWorker::Publish { objects, seal });
            }
            ToNode::Drop { worker, objects } => self.request(worker, &ToWorker::Drop(objects)),
            ToNode::Free(objects) => {
                for object in objects {
                    self.objects.remove(object, &mut self.recycled);
                }
            }
            ToNode::Forget(graph) => self.forget(graph),
            ToNode::Want(workers) => self.node.want(workers),
            ToNode::Stop(id) => {
                tracing::debug!(worker = id.0, "a worker is not needed any more");
                self.node.stopping(id);
                if let Some(worker) = self.pool.workers.get_mut(&id) {
                    worker.stop();
                }
            }
            ToNode::Kill(id) => {
                tracing::debug!(worker = id.0, "a worker is killed: what it runs shall end");
                self.pool.kill(id, None);
            }
            ToNode::Sample(id) => {
                let Some(worker) = self.pool.workers.get(&id) else { return };
                let sampled = worker.sample(id, now);
                self.tell_head(now, sampled);
            }
            ToNode::Interrupt { run, index } => self.interrupts.push(Interrupt::new(run, index)),
            ToNode::CancelDeferred { worker, object } => self.request(worker, &ToWorker::Cancel(object)),
        }
    }

    /// Sends what a worker should read before its next task.
    pub(super) fn request(&mut self, id: WorkerId, message: &ToWorker) {
        if let Some(worker) = self.pool.workers.get_mut(&id) {
            worker.send_urgently(message);
        }
    }

    pub(super) fn forget(&mut self, graph: GraphId) {
        tracing::debug!(peer = graph.peer.0, graph = graph.seq, "a graph is over");
        let forgotten = self.programs.forget(graph);
        if let Some(ended) = self.head.take_ended() {
            self.history.add(ended, forgotten.names);
        }
        for id in forgotten.workers {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                worker.send(&ToWorker::Forget(graph));
            }
        }
        for (id, blobs) in forgotten.blobs {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                worker.send(&ToWorker::DropBlobs(blobs));
            }
        }
    }

    pub(super) fn assign(&mut self, now: u64, run: Run) {
        let id = run.id.worker;
        if !self.node.assigned(&run) {
            return;
        }
        let (code, intros) = match self.programs.for_run(&run) {
            Ok(found) => found,
            Err(error) => {
                // The graph's driver sent a program that does not hold together.
                self.refuse(run.graph.peer, error.to_string());
                let (peer, message) = (run.graph.peer, ToHead::Cancel { graph: run.graph });
                self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message }));
                self.close_worker(id, error.to_string());
                return;
            }
        };
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        let mut inputs = Vec::with_capacity(run.inputs.len());
        for &object in &run.inputs {
            // One that is not there is left out: the worker answers with what it misses.
            let Some((value, segment)) = self.objects.for_worker(object, id) else { continue };
            worker.introduce(segment);
            self.history.sent(now, object, &value, id);
            inputs.push((object, value));
        }
        let (seq, graph, tasks) = (run.id.seq, run.graph.seq, run.tasks.len());
        tracing::trace!(worker = id.0, run = seq, graph, tasks, inputs = inputs.len(), "a run is assigned");
        worker.open(now, &run);
        worker.send(&ToWorker::Run(RunProgram { run, code, intros, inputs }));
    }

    /// Zero-worker mode: all tasks of a run end at once.
    pub(super) fn pretend(&mut self, now: u64, run: Run) {
        let Some(value) = self.zero.clone() else { return };
        if !self.node.assigned(&run) || self.programs.for_run(&run).is_err() {
            return;
        }
        let place = wire::place_of(&value);
        let mut published = Vec::new();
        for (index, &task) in run.tasks.iter().enumerate() {
            if run.outputs[index] & (output::PUBLISH | output::KEEP) != 0 {
                let object = ObjectId { graph: run.graph, index: task };
                if self.objects.insert(object, value.clone(), &mut self.recycled).is_err() {
                    continue;
                }
                published.push((index as u32, place));
            }
        }
        let upto = run.tasks.len() as u32;
        let timings = Vec::new();
        let (troubles, contained) = (Vec::new(), Vec::new());
        let report = Report { run: run.id, upto, ended: true, troubles, published, contained, timings };
        if self.node.check(&report).is_ok() {
            self.tell_head(now, FromNode::Report(report));
        }
    }
}
