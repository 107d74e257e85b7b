//! Graphs that are over, as far as something is still known of them.

use std::collections::VecDeque;
use std::sync::Arc;

use eagleray_core::head::{EndedGraph, GraphView};
use eagleray_core::message::GraphKind;

/// So many tasks of graphs that are over are remembered. A graph of more than these is forgotten at once.
const MOST_TASKS: u64 = 100_000;

#[derive(Debug)]
struct Past {
    graph: EndedGraph,
    names: Vec<Arc<str>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The oldest first.
    graphs: VecDeque<Past>,
    tasks: u64,
    /// How many tasks were forgotten, and how many of them made actors.
    forgotten: (u64, u64),
}

impl History {
    /// A graph is over. Its classes are called so.
    pub(crate) fn add(&mut self, graph: EndedGraph, names: Vec<Arc<str>>) {
        let tasks = u64::from(graph.view().len());
        self.tasks += tasks;
        self.graphs.push_back(Past { graph, names });
        while self.tasks > MOST_TASKS {
            let Some(oldest) = self.graphs.pop_front() else { break };
            let tasks = u64::from(oldest.graph.view().len());
            self.tasks -= tasks;
            self.forgotten.0 += tasks;
            self.forgotten.1 += u64::from(matches!(oldest.graph.view().kind(), GraphKind::Actor(_)));
        }
    }

    /// The last graph first, each with the names of its classes.
    pub(crate) fn graphs(&self) -> impl Iterator<Item = (GraphView<'_>, &[Arc<str>])> + '_ {
        self.graphs.iter().rev().map(|past| (past.graph.view(), &past.names[..]))
    }

    /// How many tasks were forgotten, and how many of them made actors.
    pub(crate) fn forgotten(&self) -> (u64, u64) {
        self.forgotten
    }
}
