//! The keys of graphs that this process has submitted: workers name a task by numbers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::GraphId;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph.
pub(crate) type Keys = Arc<Vec<Py<PyAny>>>;

/// Of graphs that nobody has in hand while their tasks may run on, so many are known, and
const MOST_GRAPHS: usize = 32;

/// so many of their keys.
const MOST_KEYS: usize = 200_000;

#[derive(Default)]
struct Known {
    graphs: FxHashMap<GraphId, Weak<Vec<Py<PyAny>>>>,
    /// Those that nobody has in hand, oldest first.
    running_on: VecDeque<(GraphId, Keys)>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

fn known() -> MutexGuard<'static, Option<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// Forgets the keys of a graph, unless they are those of one of the same number in a later session.
    fn remove(&mut self, graph: GraphId, keys: &Keys) {
        if self.graphs.get(&graph).is_some_and(|found| std::ptr::eq(found.as_ptr(), Arc::as_ptr(keys))) {
            self.graphs.remove(&graph);
        }
    }
}

/// Makes the keys of a graph known until [`forget`].
pub(crate) fn register(graph: GraphId, keys: &Keys) {
    known().get_or_insert_default().graphs.insert(graph, Arc::downgrade(keys));
}

/// A graph is dropped. If its tasks may run on, its keys stay known for a while.
pub(crate) fn forget(graph: GraphId, keys: &Keys, runs_on: bool) {
    let mut dropped = Vec::new();
    if let Some(known) = known().as_mut() {
        if !runs_on || keys.len() > MOST_KEYS {
            known.remove(graph, keys);
            return;
        }
        known.running_on.push_back((graph, Arc::clone(keys)));
        let mut count: usize = known.running_on.iter().map(|(_, keys)| keys.len()).sum();
        while known.running_on.len() > MOST_GRAPHS || count > MOST_KEYS {
            let Some((graph, keys)) = known.running_on.pop_front() else { break };
            count -= keys.len();
            known.remove(graph, &keys);
            dropped.push(keys);
        }
    }
    // Without the lock: it runs Python.
    drop(dropped);
}

#[pyfunction]
#[pyo3(signature = (graph, index, /))]
pub(crate) fn task_key(py: Python<'_>, graph: u64, index: u32) -> Option<Py<PyAny>> {
    let keys = known().as_ref()?.graphs.get(&GraphId::from_u64(graph))?.upgrade()?;
    Some(keys.get(index as usize)?.clone_ref(py))
}
