//! Tasks that are blocked and keep others from starting, though they may wait for just those.
//!
//! What a task waits for is nested deeper, as far as the head sees it, and a task occupies a worker of its own depth only. But
//! for what a call of an actor waits the head cannot see: it may be for an item in a queue, which another task is to
//! put there. So when nothing goes on any more, one blocked task after the other is *set aside*: it does not count in its
//! depth until it goes on. One at a time, as it may be that only time has to pass.

use super::{Head, Worker};
use crate::ids::{GraphId, WorkerId};

/// For so long nothing goes on before a task is set aside, in ns. Another worker is started in a fraction of it.
const STALL_NS: u64 = 20_000_000;

impl Head {
    /// Looks whether nothing goes on, and since when.
    pub(super) fn watch_stall(&mut self, now: u64) {
        self.stall_at = self.in_the_way().map(|_| self.stall_at.unwrap_or(now + STALL_NS));
    }

    /// Nothing has gone on for a while.
    pub(super) fn set_aside(&mut self) {
        if let Some(worker) = self.in_the_way().and_then(|id| self.workers.get_mut(&id)) {
            worker.aside = true;
        }
    }

    /// A worker whose task is blocked and keeps another from starting, while nothing else goes on.
    fn in_the_way(&self) -> Option<WorkerId> {
        let occupies = |w: &Worker| w.of_pool() && w.blocked() && w.busy() && !w.makes_room();
        if !self.workers.values().any(occupies) || self.workers.values().any(|w| w.busy() && !w.blocked()) {
            return None;
        }
        let pool = self.workers.values().filter(|w| w.of_pool() && !w.stopping).count() as u32;
        if pool >= self.config.max_workers && !self.workers.values().any(Worker::idle) {
            return None;
        }
        let waits = |id: &GraphId| self.graphs.get(id).filter(|graph| graph.has_ready()).map(|graph| graph.depth);
        self.ready.iter().filter_map(|(_, (_, id), _)| waits(&id)).find_map(|depth| {
            let here = |(_, w): &(&WorkerId, &Worker)| occupies(w) && w.depth() == Some(depth);
            self.workers.iter().find(here).map(|(&id, _)| id)
        })
    }
}
