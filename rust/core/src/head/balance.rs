//! Moving work: to workers that idle, away from tasks that block. And how many workers there are.

use alloc::vec::Vec;

use super::assign::GUESS_NS;
use super::{Head, Worker};
use crate::ids::{GraphId, ObjectId, RunId, WorkerId};
use crate::message::{ToNode, WHOLE, output};

/// The longest pause between two looks at a busy worker while another idles, in ns.
const SLOWEST_SAMPLE_NS: u64 = 5_000_000;

/// Tasks that take as long as this, in ns, may be moved more than once: the move is nothing beside them.
const LONG_NS: u64 = 1_000_000;

/// A task that runs this many times its estimate holds up its run.
const STUCK: u64 = 4;

impl Head {
    pub(super) fn on_tick(&mut self, now: u64) {
        let mut messages = Vec::new();
        let mut unheld = Vec::new();
        for (&id, worker) in &mut self.workers {
            if worker.sample_at.is_some_and(|at| at <= now) {
                worker.sample_at = None;
                messages.push(ToNode::Sample(id));
            }
            if worker.kill_at.is_some_and(|at| at <= now) {
                if !worker.of_pool() {
                    worker.kill_at = None;
                    unheld.push(id);
                    continue;
                }
                // Only the task that runs is to blame; a run that waits behind another graph's ends by itself.
                let stuck = worker.flights.front().is_some_and(|f| !self.graphs[&f.graph].running());
                let waits = worker.flights.iter().any(|f| !self.graphs[&f.graph].running());
                worker.kill_at = (!stuck && waits).then(|| now + self.config.grace_ns);
                if stuck {
                    messages.push(ToNode::Kill(id));
                }
            }
        }
        for message in messages {
            self.to_node(message);
        }
        for worker in unheld {
            self.end_if_unheld(worker);
        }
        while let Some(&(_, id)) = self.spreads.first().filter(|(at, _)| *at <= now) {
            self.spreads.pop_first();
            if let Some(graph) = self.graphs.get_mut(&id) {
                graph.spread = true;
                graph.spread_at = None;
            }
        }
        if self.stall_at.is_some_and(|at| at <= now) {
            self.stall_at = None;
            self.set_aside();
        }
        if self.retire_at.is_some_and(|at| at <= now) {
            self.retire_at = None;
            self.stop_spare_workers();
        }
    }

    /// Whether a worker could take work now.
    fn somebody_idles(&self) -> bool {
        self.free_cpu() >= WHOLE && self.workers.values().any(Worker::idle)
    }

    /// While somebody idles, busy workers with unfinished runs are looked at, less and less often.
    pub(super) fn watch_busy_workers(&mut self, now: u64) {
        let idles = self.somebody_idles();
        let Self { workers, graphs, .. } = self;
        for worker in workers.values_mut() {
            let left: u32 = worker.flights.iter().map(|f| f.limit - f.upto).sum();
            let spread = worker.flights.iter().any(|f| graphs[&f.graph].spread);
            if !idles || worker.blocked() || !worker.of_pool() || left < 2 || !spread {
                worker.sample_at = None;
            } else if worker.sample_at.is_none() {
                worker.sample_at = Some(now + worker.sample_every);
                worker.sample_every = (worker.sample_every * 2).min(SLOWEST_SAMPLE_NS);
            }
        }
    }

    /// A busy worker says how far it is: if what it has not begun is worth a move, part of it comes back.
    pub(super) fn on_sampled(&mut self, id: WorkerId, claimed: &[(u32, u32)], running_ns: Option<u64>) {
        if !self.somebody_idles() {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.blocked() || !worker.of_pool() {
            return;
        }
        let running_ns = running_ns.unwrap_or(0);
        let mut unclaimed_ns = 0u64;
        let mut stuck = false;
        let mut first = true;
        // The class of the task that runs.
        let mut running = None;
        // The last run with tasks that have not begun: (place in flights, first unclaimed).
        let mut last = None;
        let mut several = false;
        for (at, flight) in worker.flights.iter().enumerate() {
            let graph = &self.graphs[&flight.graph];
            let next = claimed.iter().find(|(seq, _)| *seq == flight.seq).map_or(flight.upto, |(_, next)| *next);
            let estimate = |task: u32| {
                let class = graph.class[task as usize];
                self.estimates.get(graph.classes[class as usize].fingerprint).map(|e| e.ns)
            };
            if first && next > flight.upto {
                let task = flight.tasks.get(next as usize - 1);
                running = task.map(|&t| graph.classes[graph.class[t as usize] as usize].fingerprint);
                let expected = task.and_then(|&t| estimate(t)).unwrap_or(GUESS_NS);
                stuck = running_ns > STUCK * expected && running_ns > self.config.spread_ns;
            }
            first = false;
            if next < flight.limit {
                several |= last.is_some();
                last = Some((at, next));
                for &task in &flight.tasks[next as usize..flight.limit as usize] {
                    unclaimed_ns += estimate(task).unwrap_or_else(|| running_ns.max(GUESS_NS));
                }
            }
        }
        if let Some(fingerprint) = running.filter(|_| stuck) {
            // Else all that comes back would go to the next worker in one piece.
            self.estimates.at_least(fingerprint, running_ns.saturating_mul(STUCK));
        }
        let Some((at, next)) = last else { return };
        if !stuck && unclaimed_ns < self.config.spread_ns {
            return;
        }
        let flight = &mut worker.flights[at];
        let half = next + (flight.limit - next).div_ceil(2);
        // The call whose values lie there, unless it has begun: else the last of a run could never be moved.
        let from = if stuck || several { next } else { output::begin(&flight.outputs, half) };
        let from = output::divide(&flight.outputs, from.max(next));
        if from >= flight.limit || flight.moving {
            return;
        }
        let graph = &self.graphs[&flight.graph];
        let task = flight.tasks[from as usize];
        let class = &graph.classes[graph.class[task as usize] as usize];
        let long = self.estimates.get(class.fingerprint).is_some_and(|e| e.ns >= LONG_NS);
        if !stuck && !long && graph.tasks[task as usize].moved {
            return;
        }
        // Of a chain nothing can run elsewhere: what comes back must have a task that waits for nothing here.
        let free = |task: &u32| graph.tasks[*task as usize].missing == 0;
        if !flight.tasks[from as usize..flight.limit as usize].iter().any(free) {
            return;
        }
        flight.moving = true;
        let run = RunId { worker: id, seq: flight.seq };
        self.to_node(ToNode::Recall { run, from });
    }

    /// A graph may begin: what graphs of lower priority have waiting in front of workers comes back.
    pub(super) fn make_way(&mut self, id: GraphId) {
        let priority = self.graphs[&id].rank.priority;
        if self.queue.keys().next_back().is_none_or(|last| last.priority <= priority) {
            return;
        }
        let mut runs = Vec::new();
        for (&worker, state) in self.workers.iter().filter(|(_, worker)| worker.of_pool()) {
            let waits = |f: &&super::Flight| f.limit > f.upto && self.graphs[&f.graph].rank.priority > priority;
            runs.extend(state.flights.iter().filter(waits).map(|f| RunId { worker, seq: f.seq }));
        }
        for run in runs {
            self.to_node(ToNode::Recall { run, from: 0 });
        }
    }

    /// A task waits for something: its worker's tail and its waiting runs come back, what it keeps for others is
    /// published, and its slot is free.
    pub(super) fn on_blocked(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.sample_at = None;
        let runs: Vec<u32> = worker.flights.iter().filter(|f| f.limit > f.upto).map(|f| f.seq).collect();
        // What an actor was given no other worker can run.
        let of_pool = worker.of_pool();
        for seq in runs.into_iter().filter(|_| of_pool) {
            self.to_node(ToNode::Recall { run: RunId { worker: id, seq }, from: 0 });
        }
        self.publish_kept(id);
    }

    /// Has a worker publish all that it keeps.
    pub(super) fn publish_kept(&mut self, id: WorkerId) {
        let kept: Vec<ObjectId> = self.workers.get(&id).into_iter().flat_map(|worker| &worker.kept).copied().collect();
        for object in kept {
            self.publish(object.graph, Vec::from([object.index]));
        }
    }

    /// Blocked tasks keep their workers; the pool grows by as many, within what all depths have.
    pub(super) fn ask_for_workers(&mut self) {
        let pool = || self.workers.values().filter(|w| w.of_pool());
        let blocked = pool().filter(|w| w.blocked()).count() as u32;
        let actors = self.workers.values().filter(|w| !w.of_pool() && !w.stopping).count() as u32;
        // All graphs are looked at for the depth, so not if there are enough workers in any case.
        let enough = (self.config.slots + blocked).min(self.config.max_workers).max(self.config.slots) + actors;
        if enough <= self.wanted {
            return;
        }
        self.counters.looks += self.queue.len() as u64;
        let depth = if blocked > 0 { self.deepest() } else { 0 };
        // What a task left behind, a thread that waits, blocks a worker that has no run and belongs to no depth. Who makes room
        // counts in none either.
        let beside = pool().filter(|w| w.blocked() && (!w.busy() || w.makes_room())).count() as u32;
        let most = (self.breadth_down_to(depth) + beside).min(self.config.max_workers);
        let want = (self.config.slots + blocked).min(most).max(self.config.slots) + actors;
        if want > self.wanted {
            self.wanted = want;
            self.to_node(ToNode::Want(want));
        }
    }

    /// Tasks that ask for less than a CPU each may be more than there are slots.
    pub(super) fn ask_for_more(&mut self) {
        if self.short == 0 {
            return;
        }
        let up = self.workers.values().filter(|w| !w.stopping).count() as u32;
        let actors = self.workers.values().filter(|w| !w.stopping && !w.of_pool()).count() as u32;
        let want = (up + self.short).min(self.config.max_workers + actors);
        // Where a worker is on its way, or there is none because all slots are in use, nothing more is needed.
        if want > self.wanted {
            self.wanted = want;
            self.to_node(ToNode::Want(want));
        }
    }

    /// Workers beyond the slots are stopped when they have idled for a while.
    pub(super) fn retire(&mut self, now: u64) {
        let pool = || self.workers.values().filter(|w| w.of_pool());
        let spare = pool().count() as u32 > self.config.slots && pool().all(|w| !w.blocked());
        if !spare {
            self.retire_at = None;
        } else if self.retire_at.is_none() {
            self.retire_at = Some(now + self.config.idle_ns);
        }
    }

    fn stop_spare_workers(&mut self) {
        let up = self.workers.values().filter(|w| !w.stopping).count() as u32;
        let actors = self.workers.values().filter(|w| !w.stopping && !w.of_pool()).count() as u32;
        let spare = up.saturating_sub(self.config.slots + actors) as usize;
        let idle: Vec<WorkerId> = self
            .workers
            .iter()
            .rev()
            .filter(|(_, worker)| worker.idle() && worker.kept.is_empty())
            .map(|(&id, _)| id)
            .take(spare)
            .collect();
        if idle.is_empty() {
            return;
        }
        self.wanted = up - idle.len() as u32;
        self.to_node(ToNode::Want(self.wanted));
        for id in idle {
            self.workers.get_mut(&id).expect("listed above").stopping = true;
            self.to_node(ToNode::Stop(id));
        }
    }
}
