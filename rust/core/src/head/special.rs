//! Tasks that demand more than a CPU, or less: when one of them may start, and who waits for it meanwhile.
//!
//! Such a task gets a worker that has nothing else to do, and what it demands from the assignment of its run to the run's
//! end. One that finds too little does not hold up what comes after it, but it does not starve either. If only a worker
//! or a slot is missing, busy workers are given nothing more that comes after it: the next that is done is free for it.
//! If a resource is, or several slots at once, it is passed by for [`HeadConfig::patience_ns`](super::HeadConfig), and
//! from then on nothing that comes after it gets of what it demands (of slots, as soon as they are all it waits for).
//! Exempt is what is nested deeper than itself or than a task that is blocked: who has what it waits for may wait for that
//! in turn. So all that can go before it is what is earlier in the order of service, which is the user's priority and
//! otherwise finite, and what is computed inside tasks that have started.

use alloc::vec::Vec;

use super::Head;
use super::graph::Graph;
use super::resources::Need;
use crate::ids::{GraphId, WorkerId};
use crate::message::{GraphKind, GraphSpec, Refusal, Shortage, WHOLE};

/// What tasks that wait keep from those after them.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    /// Up to this depth, no busy worker is given more.
    queues: Option<u32>,
    /// Up to this depth, no worker starts.
    workers: Option<u32>,
    /// Resources, and up to which depth.
    others: Vec<(usize, u32)>,
}

impl Withheld {
    /// Whether a graph so deep may not have a run behind another.
    pub(super) fn queues(&self, depth: u32) -> bool {
        self.queues.is_some_and(|to| depth <= to)
    }

    /// Whether a graph so deep may not have a worker.
    pub(super) fn workers(&self, depth: u32) -> bool {
        self.workers.is_some_and(|to| depth <= to)
    }

    fn bars(&self, depth: u32, need: &Need) -> bool {
        let barred =
            |&(number, _): &(usize, u64)| self.others.iter().any(|&(other, to)| other == number && depth <= to);
        self.workers(depth) || need.others.iter().any(barred)
    }
}

impl Head {
    /// The demands of a graph, and the tasks that make one that can never be met. One of them is enough if all fail with it.
    #[allow(clippy::type_complexity, reason = "used once")]
    pub(super) fn needs(&self, spec: &GraphSpec) -> Result<(Vec<Need>, Vec<(u32, Shortage)>), Refusal> {
        let mut needs = Vec::with_capacity(spec.demands.len());
        let mut short = Vec::new();
        let most = if spec.kind == GraphKind::Independent { usize::MAX } else { 1 };
        for (number, demand) in (1u32..).zip(&spec.demands) {
            let names = || demand.others.iter().map(|(name, _)| name);
            if names().enumerate().any(|(i, name)| names().take(i).any(|other| other == name)) {
                return Err(Refusal::MalformedGraph("a demand names a resource twice"));
            }
            match self.resources.resolve(demand, self.config.slots) {
                Ok(need) => needs.push(need),
                Err(shortage) => {
                    needs.push(Need { cpu: WHOLE, others: Vec::new() });
                    let asks = |class: u32| spec.classes.get(class as usize).is_some_and(|c| c.demand == number);
                    let asking = (0u32..).zip(&spec.class).filter(|(_, class)| asks(**class));
                    short.extend(asking.map(|(task, _)| (task, shortage.clone())).take(most - short.len()));
                }
            }
        }
        Ok((needs, short))
    }

    /// Of a graph with several demands, the first in its order for which there is a worker and what it demands.
    pub(super) fn next_of_several(
        &mut self,
        now: u64,
        id: GraphId,
        free_cpu: u64,
        withheld: &mut Withheld,
    ) -> Option<(WorkerId, u32)> {
        let graph = &self.graphs[&id];
        let mut first: Vec<(u32, u32)> = (1u32..)
            .zip(&graph.special)
            .filter_map(|(demand, special)| Some((*special.ready.first()?, demand)))
            .collect();
        if graph.has_ordinary() {
            let sets = graph.ready_on.values().chain([&graph.ready]);
            first.extend(sets.filter_map(super::positions::Positions::first).min().map(|position| (position, 0)));
        }
        first.sort_unstable();
        first.into_iter().find_map(|(_, demand)| {
            let worker = match demand {
                0 => self.worker_for(id, free_cpu, withheld),
                _ => self.worker_for_special(now, id, demand, free_cpu, withheld),
            };
            worker.map(|worker| (worker, demand))
        })
    }

    /// A worker for a task of this demand, or else what the task withholds from those after it.
    fn worker_for_special(
        &mut self,
        now: u64,
        id: GraphId,
        demand: u32,
        free_cpu: u64,
        withheld: &mut Withheld,
    ) -> Option<WorkerId> {
        let graph = &self.graphs[&id];
        let depth = graph.depth;
        let need = &graph.special[demand as usize - 1].need;
        if withheld.bars(depth, need) {
            return None;
        }
        let found = self.resources.has(need);
        let slot = need.cpu <= free_cpu && self.has_room(depth, need.cpu);
        if found && slot {
            if let Some(worker) = self.idle_worker(graph) {
                return Some(worker);
            }
            let lean = |w: &super::Worker| w.of_pool() && w.busy() && w.weight() < WHOLE;
            let idles = self.workers.values().any(super::Worker::idle);
            self.short += u32::from(!idles && (need.cpu < WHOLE || self.workers.values().any(lean)));
        }
        let blocked = self.workers.values().filter(|worker| worker.blocked()).filter_map(super::Worker::depth);
        let depth = blocked.min().map_or(depth, |waits| waits.min(depth));
        let special = &mut self.graphs.get_mut(&id).expect("looked up above").special[demand as usize - 1];
        let since = *special.since.get_or_insert(now);
        let starves = now.saturating_sub(since) >= self.config.patience_ns;
        if found {
            withheld.queues = withheld.queues.max(Some(depth));
        }
        if starves {
            withheld.others.extend(special.need.others.iter().map(|(number, _)| (*number, depth)));
            if found {
                withheld.workers = withheld.workers.max(Some(depth));
            }
        }
        None
    }

    /// A worker with nothing to do that the graph may use. For an actor rather one that keeps nothing: that would end with it.
    fn idle_worker(&self, graph: &Graph) -> Option<WorkerId> {
        let may = |id: &WorkerId| graph.spread || graph.home.is_none_or(|home| home == *id);
        let mut idle = self.workers.iter().filter(|(id, worker)| worker.idle() && may(id)).peekable();
        let any = idle.peek().map(|(id, _)| **id);
        idle.find(|(_, worker)| !graph.is_actor() || worker.kept.is_empty()).map(|(id, _)| *id).or(any)
    }
}
