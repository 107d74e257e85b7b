//! What is over, as far as something is still known of it: graphs, runs, and values that came and went.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::head::{Edges, EndedGraph, GraphView};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::GraphKind;

use crate::program::Value;
use crate::times::Times;
use crate::wire;

/// A graph that is over.
#[derive(Debug)]
struct Past {
    graph: EndedGraph,
    names: Vec<Arc<str>>,
}

/// A run that is over, or what of it is.
#[derive(Clone, Debug)]
pub struct PastRun {
    /// Its worker.
    pub worker: u32,
    /// The worker's process.
    pub pid: u32,
    /// Its number there.
    pub seq: u32,
    /// The graph.
    pub graph: GraphId,
    /// Its tasks.
    pub tasks: Vec<u32>,
    /// Those from here on were taken back.
    pub limit: u32,
    /// When it was sent to the worker, in ns of the monotonic clock as all times here.
    pub assigned_ns: u64,
    /// When its end was heard of.
    pub ended_ns: u64,
    pub(crate) times: Vec<Bytes>,
}

impl PastRun {
    /// The tasks that ran, with beginning and end.
    pub fn ran(&self) -> impl Iterator<Item = (ObjectId, u64, u64)> + '_ {
        let times = self.times.iter().flat_map(|times| Times::read(times));
        let object = |&index: &u32| ObjectId { graph: self.graph, index };
        self.tasks.iter().map(object).zip(times).map(|(object, (begin, end))| (object, begin, end))
    }
}

/// Where the bytes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory of the node's process.
    Inline,
    /// In shared memory.
    Memory,
    /// In a file, since its owner has no more memory for it.
    File,
}

impl Store {
    /// Of a value.
    pub(crate) fn of(value: &Value) -> Self {
        match value {
            Value::Inline(_) => Self::Inline,
            Value::Sealed(block) if eagleray_store::is_file(block.location().segment) => Self::File,
            Value::Sealed(_) => Self::Memory,
        }
    }
}

/// A value that came to the node, or went to a worker.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// When.
    pub at_ns: u64,
    /// Whose value.
    pub object: ObjectId,
    /// Its bytes.
    pub size: u64,
    /// Where these are.
    pub store: Store,
    /// Who has made it or is given it.
    pub peer: PeerId,
    /// It went to a worker.
    pub sent: bool,
}

/// All that is known of what ran when.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Runs, the oldest first.
    pub runs: Vec<Arc<PastRun>>,
    /// Values that came or went.
    pub transfers: Vec<Transfer>,
    /// Ends of tasks that went on after they had been deferred.
    pub completed: Vec<(ObjectId, u64)>,
    /// What the tasks of a graph read, and what its classes are called.
    pub graphs: Vec<(Edges, Vec<Arc<str>>)>,
    /// Tasks whose times are forgotten.
    pub forgotten: u64,
}

/// The last graph is remembered if it is at most so many times as large as what is remembered.
const LARGE: u64 = 10;

/// A graph, a run and a failure take as much memory as so many tasks, or more.
const OVERHEAD: u64 = 10;

fn weight(graph: &EndedGraph) -> u64 {
    u64::from(graph.view().len()) + OVERHEAD * (1 + graph.failures() as u64)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    /// So much is remembered of graphs that are over, and of runs. A task counts one.
    most: u64,
    /// Times are recorded.
    times: bool,
    /// The oldest first, as in all of these.
    graphs: VecDeque<Arc<Past>>,
    remembered: u64,
    /// How many tasks were forgotten, and how many of them made actors.
    forgotten: (u64, u64),
    runs: VecDeque<Arc<PastRun>>,
    ran: u64,
    ran_forgotten: u64,
    transfers: Latest<Transfer>,
    completed: Latest<(ObjectId, u64)>,
}

/// The latest of many. A new one takes the place of the oldest: memory is touched at one place, not at two.
#[derive(Debug)]
struct Latest<T> {
    most: usize,
    kept: Vec<T>,
    /// The oldest, if there are as many as are kept.
    oldest: usize,
}

impl<T: Copy> Latest<T> {
    fn new(most: u64) -> Self {
        Self { most: most as usize, kept: Vec::new(), oldest: 0 }
    }

    fn add(&mut self, one: T) {
        if self.kept.len() < self.most {
            self.kept.push(one);
        } else if let Some(place) = self.kept.get_mut(self.oldest) {
            *place = one;
            self.oldest = (self.oldest + 1) % self.most;
        }
    }

    /// The oldest first.
    fn to_vec(&self) -> Vec<T> {
        let (later, earlier) = self.kept.split_at(self.oldest);
        [earlier, later].concat()
    }
}

impl History {
    /// One that remembers so many tasks, and the times of as many if `times`.
    pub(crate) fn new(most: u64, times: bool) -> Self {
        Self {
            most,
            times,
            graphs: VecDeque::new(),
            remembered: 0,
            forgotten: (0, 0),
            runs: VecDeque::new(),
            ran: 0,
            ran_forgotten: 0,
            transfers: Latest::new(most),
            completed: Latest::new(most),
        }
    }

    /// A graph is over. Its classes are called so.
    pub(crate) fn add(&mut self, graph: EndedGraph, names: Vec<Arc<str>>) {
        self.remembered += weight(&graph);
        self.graphs.push_back(Arc::new(Past { graph, names }));
        // One that alone is too large is the one that people look at.
        while self.remembered > self.most && (self.graphs.len() > 1 || self.remembered > self.most * LARGE) {
            let Some(oldest) = self.graphs.pop_front() else { break };
            let view = oldest.graph.view();
            self.remembered -= weight(&oldest.graph);
            self.forgotten.0 += u64::from(view.len());
            self.forgotten.1 += u64::from(matches!(view.kind(), GraphKind::Actor(_)));
        }
    }

    /// A run is over.
    pub(crate) fn add_run(&mut self, run: PastRun) {
        if !self.times {
            return;
        }
        self.ran += run.tasks.len() as u64 + OVERHEAD;
        self.runs.push_back(Arc::new(run));
        while self.ran > self.most {
            let Some(oldest) = self.runs.pop_front() else { break };
            self.ran -= oldest.tasks.len() as u64 + OVERHEAD;
            self.ran_forgotten += oldest.tasks.len() as u64;
        }
    }

    /// A value came from a peer.
    pub(crate) fn stored(&mut self, at_ns: u64, object: ObjectId, size: u64, store: Store, peer: PeerId) {
        self.transfer(Transfer { at_ns, object, size, store, peer, sent: false });
    }

    /// A value went to a worker.
    pub(crate) fn sent(&mut self, at_ns: u64, object: ObjectId, value: &Value, worker: WorkerId) {
        let (size, store) = (wire::place_of(value).len(), Store::of(value));
        self.transfer(Transfer { at_ns, object, size, store, peer: PeerId::of_worker(worker), sent: true });
    }

    fn transfer(&mut self, transfer: Transfer) {
        if self.times {
            self.transfers.add(transfer);
        }
    }

    /// A deferred task has ended.
    pub(crate) fn completed(&mut self, at_ns: u64, object: ObjectId) {
        if self.times {
            self.completed.add((object, at_ns));
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

    /// What ran when; `None` if that is not recorded.
    pub(crate) fn timeline(&self) -> Option<Timeline> {
        self.times.then(|| Timeline {
            runs: self.runs.iter().cloned().collect(),
            transfers: self.transfers.to_vec(),
            completed: self.completed.to_vec(),
            graphs: self.graphs.iter().map(|past| (past.graph.view().edges(), past.names.clone())).collect(),
            forgotten: self.ran_forgotten,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_in_order() {
        let mut latest = Latest::new(3);
        for (one, kept) in [(1, &[1][..]), (2, &[1, 2]), (3, &[1, 2, 3]), (4, &[2, 3, 4]), (5, &[3, 4, 5])] {
            latest.add(one);
            assert_eq!(latest.to_vec(), kept);
        }
        let mut none = Latest::new(0);
        none.add(1);
        assert!(none.to_vec().is_empty());
    }
}
