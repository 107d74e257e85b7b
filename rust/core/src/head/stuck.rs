//! Demands that can never be met because who has what is missing waits for who wants it.
//!
//! A task that waits for a computation of its own keeps what it holds, CPUs excepted. If that computation demands the
//! same, neither can go on; nor can two such tasks that hold half of it each. The user gets an error instead.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Head, Watcher, Worker};
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{Failure, FailureKind, Shortage, WHOLE};

/// Those that go on only if another of them does.
#[derive(Debug, PartialEq, Eq)]
struct Stuck {
    graphs: BTreeSet<GraphId>,
    workers: BTreeSet<WorkerId>,
}

impl Head {
    /// Fails a graph whose demand can never be met. True if there was one; then others may go on.
    pub(super) fn fail_stuck(&mut self) -> bool {
        let keeps = |w: &Worker| w.blocked() && w.holding.as_ref().is_some_and(|h| !h.need.others.is_empty());
        if self.workers.iter().all(|(id, worker)| !keeps(worker) || self.is_served(*id)) {
            return false;
        }
        let stuck = self.stuck();
        // The innermost: what it fails, its ancestors may survive.
        let mut worst: Option<(u32, Failure)> = None;
        for &id in &stuck.graphs {
            let graph = &self.graphs[&id];
            if worst.as_ref().is_some_and(|(depth, _)| *depth >= graph.depth) {
                continue;
            }
            for special in &graph.special {
                let Some(&position) = special.ready.first() else { continue };
                let Some(resource) = self.resources.lacks_beside(&special.need, self.held_by(&stuck)) else { continue };
                let origin = ObjectId { graph: id, index: graph.at[position as usize] };
                let asked = special.need.others.iter().find(|(number, _)| *number == resource);
                let shortage = Shortage {
                    resource: self.resources.name(resource),
                    asked: asked.map_or(0, |(_, amount)| *amount),
                    offered: self.resources.offered(resource),
                    held: self.held_by(&stuck).map(|holding| holding.of(resource)).sum(),
                };
                worst = Some((graph.depth, Failure { origin, kind: FailureKind::Infeasible(Box::new(shortage)) }));
                break;
            }
        }
        let Some((_, failure)) = worst else { return false };
        self.fail_infeasible(failure.origin.graph, Vec::from([failure]));
        true
    }

    /// Whether a task runs for which a worker waits. When it has ended, that is looked at again.
    fn is_served(&self, id: WorkerId) -> bool {
        let asks = |watcher: &Watcher| match watcher {
            Watcher::Wait(wait) => self.waits.get(wait).is_some_and(|wait| wait.peer.worker() == Some(id)),
            Watcher::Graph(..) => false,
        };
        let awaited = |object: ObjectId| self.watchers.get(&object).is_some_and(|watchers| watchers.iter().any(asks));
        let runs = self.workers.values().filter(|worker| !worker.blocked()).flat_map(|worker| &worker.flights);
        let mut tasks =
            runs.flat_map(|f| f.tasks[f.upto as usize..f.limit as usize].iter().map(|&task| (f.graph, task)));
        tasks.any(|(graph, index)| awaited(ObjectId { graph, index }))
    }

    fn held_by(&self, stuck: &Stuck) -> impl Iterator<Item = &super::Holding> {
        stuck.workers.iter().filter_map(|id| self.workers[id].holding.as_ref())
    }

    /// At first everybody who waits is taken to be stuck. Who could go on without those is not, and so on until nothing
    /// changes. What could still happen from outside, an admission or a recall, counts as going on.
    fn stuck(&self) -> Stuck {
        let blocked = self.workers.iter().filter(|(_, worker)| worker.blocked()).map(|(&id, _)| id);
        let mut stuck = Stuck { graphs: self.awaited_graphs(), workers: blocked.collect() };
        loop {
            let graphs = stuck.graphs.iter().copied().filter(|&id| !self.graph_goes_on(id, &stuck)).collect();
            let workers = stuck.workers.iter().copied().filter(|&id| !self.worker_goes_on(id, &stuck)).collect();
            let less = Stuck { graphs, workers };
            if less == stuck {
                return stuck;
            }
            stuck = less;
        }
    }

    /// All graphs that blocked tasks wait for.
    fn awaited_graphs(&self) -> BTreeSet<GraphId> {
        let of_worker = |peer: PeerId| peer.worker().is_some();
        let waits = self.waits.values().filter(|wait| of_worker(wait.peer)).flat_map(|wait| &wait.objects);
        let streams = self.streams.iter().filter(|(_, stream)| stream.who_waits().any(of_worker));
        let mut open: Vec<GraphId> =
            waits.chain(streams.map(|(object, _)| object)).map(|object| object.graph).collect();
        let mut found = BTreeSet::new();
        while let Some(id) = open.pop() {
            let Some(graph) = self.graphs.get(&id).filter(|graph| self.queue.contains_key(&graph.rank)) else {
                continue;
            };
            if found.insert(id) {
                open.extend(graph.externals.iter().filter(|e| e.held && !e.available).map(|e| e.object.graph));
            }
        }
        found
    }

    fn graph_goes_on(&self, id: GraphId, stuck: &Stuck) -> bool {
        let graph = &self.graphs[&id];
        let runs = |(worker_id, worker): (&WorkerId, &Worker)| {
            // Of a worker that waits, all but the task that does has been asked back.
            let coming = |(at, f): (usize, &super::Flight)| f.graph == id && f.upto + u32::from(at == 0) < f.limit;
            let of_graph = || worker.flights.iter().any(|f| f.graph == id);
            (of_graph() && !stuck.workers.contains(worker_id)) || worker.flights.iter().enumerate().any(coming)
        };
        // At each depth only so many workers are occupied.
        let here = |id: &&WorkerId| self.workers[*id].depth() == Some(graph.depth) && !self.workers[*id].makes_room();
        let occupied: u64 = stuck.workers.iter().filter(here).map(|id| self.workers[id].weight()).sum();
        let room = occupied < u64::from(self.breadth(graph.depth)) * WHOLE;
        let fits = |special: &super::graph::Special| {
            !special.ready.is_empty() && self.resources.lacks_beside(&special.need, self.held_by(stuck)).is_none()
        };
        graph.admitted < graph.len()
            || graph.publishing > 0
            || (room && (graph.has_ordinary() || graph.special.iter().any(fits)))
            || self.workers.iter().any(runs)
            || graph.externals.iter().any(|e| e.held && !e.available && !stuck.graphs.contains(&e.object.graph))
    }

    /// Whether one of the questions that a worker asks will be answered.
    fn worker_goes_on(&self, id: WorkerId, stuck: &Stuck) -> bool {
        let next = |(stream, found): (&ObjectId, &super::streams::Stream)| {
            let asks = |question: &super::streams::Question| question.peer.worker() == Some(id);
            // Who makes parts goes on when somebody takes one, and the program may do so at any time.
            found.ahead.iter().any(asks) || (!stuck.graphs.contains(&stream.graph) && found.waiting.iter().any(asks))
        };
        if self.streams.iter().any(next) {
            return true;
        }
        self.waits.values().filter(|wait| wait.peer.worker() == Some(id)).any(|wait| {
            let open = |o: &&ObjectId| self.status(**o).is_none() && !stuck.graphs.contains(&o.graph);
            wait.ended as usize + wait.objects.iter().filter(open).count() >= wait.need as usize
        })
    }
}
