//! Actor calls: in whose turn, and into which run.
//!
//! The calls of one peer to one actor are a *lane*: they start in the order in which they were submitted, and one that
//! waits for its inputs holds up those behind it. Lanes do not wait for each other; the earliest submission goes first.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::assign::{Cut, MOST_FLIGHTS, MOST_UNKNOWN, mark_outputs};
use super::graph::{Graph, TaskState};
use super::{Head, ResultsMode, Worker};
use crate::ids::{GraphId, ObjectId, WorkerId};
use crate::message::output;
use crate::page;

impl Head {
    /// Gives actors with room for them their next calls.
    pub(super) fn assign_calls(&mut self) {
        for actor in core::mem::take(&mut self.stirred) {
            while let Some(worker) = self.callable(actor) {
                let Some(id) = self.next_call(actor) else { break };
                let max_run = self.config.max_run.min(page::MAX_RUN_LEN);
                let restarts = self.actors.get(&actor).is_some_and(|record| record.spec.max_restarts > 0);
                let graph = self.graphs.get_mut(&id).expect("a graph in a lane exists");
                let (limit, mode) = (self.config.run_ns, self.config.results);
                let mut cut = cut_calls(graph, id, limit, max_run, &self.estimates);
                mark_outputs(graph, &mut cut, mode == ResultsMode::Resident, mode == ResultsMode::Sealed, mode);
                if !restarts {
                    // Nobody can run them again.
                    cut.outputs.iter_mut().for_each(|flags| *flags &= !output::ONCE);
                }
                if graph.next_call() == graph.len() {
                    self.leave_lane(actor, id);
                }
                self.send_run(worker, id, 0, cut, Vec::new());
            }
        }
    }

    /// The worker of an actor, if it can be given a run.
    fn callable(&self, actor: ObjectId) -> Option<WorkerId> {
        let record = self.actors.get(&actor).filter(|record| record.alive)?;
        let worker = record.worker.and_then(|id| self.workers.get(&id).map(|worker| (id, worker)));
        let open = |worker: &Worker| {
            !worker.stopping && worker.flights.len() < MOST_FLIGHTS && !worker.flights.iter().any(|f| f.recalled)
        };
        worker.filter(|(_, worker)| open(worker)).map(|(id, _)| id)
    }

    /// The graph of the call that is next, if one can start.
    fn next_call(&self, actor: ObjectId) -> Option<GraphId> {
        let lanes = &self.actors.get(&actor)?.lanes;
        let firsts = lanes.values().filter_map(BTreeSet::first);
        let ready = firsts.filter(|id| {
            let graph = &self.graphs[id];
            let at = graph.at[graph.next_call() as usize];
            graph.tasks[at as usize].state == TaskState::Ready
        });
        ready.min_by_key(|id| self.graphs[id].rank.submitted).copied()
    }

    /// A graph has calls that no run has.
    pub(super) fn enter_lane(&mut self, id: GraphId) {
        let Some(graph) = self.graphs.get(&id).filter(|graph| graph.is_calls() && graph.running()) else { return };
        if graph.next_call() == graph.len() {
            return;
        }
        let actor = graph.externals[0].object;
        if let Some(record) = self.actors.get_mut(&actor) {
            record.lanes.entry(id.peer).or_default().insert(id);
            self.stirred.insert(actor);
        }
    }

    /// All its calls are in runs or have ended.
    pub(super) fn leave_lane(&mut self, actor: ObjectId, id: GraphId) {
        let Some(record) = self.actors.get_mut(&actor) else { return };
        if let Some(lane) = record.lanes.get_mut(&id.peer) {
            lane.remove(&id);
            if lane.is_empty() {
                record.lanes.remove(&id.peer);
            }
        }
        // What was behind it may be next.
        self.stirred.insert(actor);
    }

    /// Whether a call of an actor could start though nobody is to look at it.
    pub(super) fn overlooks(&self, actor: ObjectId) -> bool {
        !self.stirred.contains(&actor) && self.callable(actor).is_some() && self.next_call(actor).is_some()
    }

    /// Calls have ended without having been in a run, or came back: the lane of their graph is as it should be after this.
    pub(super) fn line_up(&mut self, id: GraphId) {
        let Some(graph) = self.graphs.get_mut(&id).filter(|graph| graph.is_calls()) else { return };
        graph.seek_call();
        let actor = graph.externals[0].object;
        if graph.running() && graph.next_call() < graph.len() {
            self.enter_lane(id);
        } else {
            self.leave_lane(actor, id);
        }
    }
}

/// Takes calls in their order, as long as they are ready and until their time adds up.
fn cut_calls(
    graph: &mut Graph,
    id: GraphId,
    target_ns: u64,
    max_run: u32,
    estimates: &super::estimate::Estimates,
) -> Cut {
    graph.cuts += 1;
    let (len, stamp) = (graph.len(), graph.cuts);
    let mut cut = Cut { tasks: Vec::new(), outputs: Vec::new(), inputs: Vec::new(), unknown: false };
    let (mut ns, mut unknown) = (0, 0);
    while graph.next_call() < len && (cut.tasks.len() as u32) < max_run && ns < target_ns && unknown < MOST_UNKNOWN {
        let position = graph.next_call();
        let task = graph.at[position as usize];
        if graph.tasks[task as usize].state != TaskState::Ready {
            break;
        }
        graph.unready(task);
        let record = &mut graph.tasks[task as usize];
        record.state = TaskState::Assigned;
        record.cut = stamp;
        graph.seek_call();
        cut.tasks.push(task);
        match estimates.get(graph.classes[graph.class[task as usize] as usize].fingerprint) {
            Some(estimate) => ns += estimate.ns,
            None => unknown += 1,
        }
        // The actor itself is not read.
        let inputs = graph.inputs.row(task).iter().filter(|&&input| input != len);
        cut.inputs.extend(inputs.map(|&input| graph.object_id(id, input)));
    }
    cut.inputs.sort_unstable();
    cut.inputs.dedup();
    cut.unknown = unknown > 0;
    cut
}
