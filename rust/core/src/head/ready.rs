//! Graphs that have tasks to assign, in the order in which they are served.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::graph::Graph;
use super::resources::Need;
use super::{Asks, Rank};
use crate::ids::GraphId;

/// A graph in its order.
pub(super) type Entry = (Rank, GraphId);

/// Graphs of equal demands and equal depth, none of which has a task without demands: if one of them finds no worker, none
/// does, and thousands of them need not be looked at. All other graphs are one lot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lot {
    demands: u32,
    depth: u32,
}

impl Lot {
    pub(super) fn of(graph: &Graph) -> Self {
        match graph.demands {
            0 => Self::default(),
            demands => Self { demands, depth: graph.depth },
        }
    }

    /// Whether its graphs are alike.
    pub(super) fn is_uniform(self) -> bool {
        self.demands > 0
    }
}

/// See the module. Who has no task to assign any more is found out when it is looked at.
#[derive(Debug, Default)]
pub(super) struct Ready {
    lots: BTreeMap<Lot, BTreeMap<Entry, Asks>>,
    /// The numbers of all demands that a graph has had.
    numbers: BTreeMap<Vec<Need>, u32>,
    /// How many of the graphs have demands of their own, and how many ask for less than a CPU in one of them.
    pub(super) demanding: u32,
    pub(super) light: u32,
}

impl Ready {
    /// The number of what the tasks of a graph demand: 0 if one of them demands nothing.
    pub(super) fn number(&mut self, graph: &Graph) -> u32 {
        let demands = |class: &u32| graph.classes[*class as usize].demand > 0;
        if graph.special.is_empty() || !graph.class.iter().all(demands) {
            return 0;
        }
        let needs: Vec<Need> = graph.special.iter().map(|special| special.need.clone()).collect();
        let next = self.numbers.len() as u32 + 1;
        *self.numbers.entry(needs).or_insert(next)
    }

    pub(super) fn insert(&mut self, id: GraphId, graph: &Graph) {
        let asks = graph.asks();
        if self.lots.entry(Lot::of(graph)).or_default().insert((graph.rank, id), asks).is_none() {
            self.demanding += u32::from(asks.special);
            self.light += u32::from(asks.light);
        }
    }

    /// Takes a graph out. True if it was in.
    pub(super) fn remove(&mut self, lot: Lot, entry: Entry) -> bool {
        let Some(graphs) = self.lots.get_mut(&lot) else { return false };
        let Some(asks) = graphs.remove(&entry) else { return false };
        if graphs.is_empty() {
            self.lots.remove(&lot);
        }
        self.demanding -= u32::from(asks.special);
        self.light -= u32::from(asks.light);
        true
    }

    /// The first graph of each lot.
    pub(super) fn firsts(&self) -> Vec<(Lot, Entry)> {
        self.lots.iter().filter_map(|(&lot, graphs)| Some((lot, *graphs.first_key_value()?.0))).collect()
    }

    /// The graph behind another of the same lot.
    pub(super) fn after(&self, lot: Lot, entry: Entry) -> Option<Entry> {
        let mut behind = self.lots.get(&lot)?.range((Bound::Excluded(entry), Bound::Unbounded));
        behind.next().map(|(entry, _)| *entry)
    }

    /// All of them, by lot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Lot, Entry, Asks)> + '_ {
        self.lots.iter().flat_map(|(&lot, graphs)| graphs.iter().map(move |(&entry, &asks)| (lot, entry, asks)))
    }

    pub(super) fn contains(&self, id: GraphId, graph: &Graph) -> bool {
        self.lots.get(&Lot::of(graph)).is_some_and(|graphs| graphs.contains_key(&(graph.rank, id)))
    }
}
