//! The keys of the graphs that this process has submitted, as long as the graph or a ref to one of its results is there, and a while
//! longer if they are calls: workers name a task by numbers.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::GraphId;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph. Known by the graph's number until the last who holds them drops them.
pub(crate) struct Keys {
    graph: GraphId,
    names: Vec<Py<PyAny>>,
    of: Of,
}

/// Whose the keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The tasks of a graph of the user's.
    Graph,
    /// Calls, which stand for themselves.
    Calls,
    /// The same, of an actor.
    ActorsCalls,
}

/// The names of so many calls are known longer than refs to their results: those that read a result may fail with it.
const MOST_RECENT: usize = 4096;

static RECENT: Mutex<VecDeque<Arc<Keys>>> = Mutex::new(VecDeque::new());

static GRAPHS: Mutex<Option<FxHashMap<GraphId, Weak<Keys>>>> = Mutex::new(None);

fn graphs() -> MutexGuard<'static, Option<FxHashMap<GraphId, Weak<Keys>>>> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// Makes the keys of a graph known.
    pub(crate) fn register(graph: GraphId, keys: Vec<Py<PyAny>>) -> Arc<Self> {
        Self::enter(Self { graph, names: keys, of: Of::Graph })
    }

    /// Makes the names of calls known, which are a graph.
    pub(crate) fn of_calls(graph: GraphId, names: Vec<Py<PyAny>>, of: Of) -> Arc<Self> {
        let keys = Self::enter(Self { graph, names, of });
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        let old = if recent.len() < MOST_RECENT { None } else { recent.pop_front() };
        recent.push_back(Arc::clone(&keys));
        drop(recent);
        // Not under the lock: it may be the last who holds them.
        drop(old);
        keys
    }

    /// Whose they are.
    pub(crate) fn whose(&self) -> Of {
        self.of
    }

    fn enter(keys: Self) -> Arc<Self> {
        let graph = keys.graph;
        let keys = Arc::new(keys);
        graphs().get_or_insert_default().insert(graph, Arc::downgrade(&keys));
        keys
    }

    /// Those of a graph, if they are known.
    pub(crate) fn of(graph: GraphId) -> Option<Arc<Self>> {
        graphs().as_ref()?.get(&graph)?.upgrade()
    }
}

impl Deref for Keys {
    type Target = [Py<PyAny>];

    fn deref(&self) -> &[Py<PyAny>] {
        &self.names
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(graphs) = graphs().as_mut() {
            // Those of a graph of the same number in a later session stay.
            if graphs.get(&self.graph).is_some_and(|known| std::ptr::eq(known.as_ptr(), self)) {
                graphs.remove(&self.graph);
            }
        }
    }
}

#[pyfunction]
#[pyo3(signature = (graph, index, /))]
pub(crate) fn task_key(py: Python<'_>, graph: u64, index: u32) -> Option<Py<PyAny>> {
    let keys = Keys::of(GraphId::from_u64(graph))?;
    Some(keys.get(index as usize)?.clone_ref(py))
}
