//! The keys of the graphs that this process has submitted, as long as the graph or a ref to one of its results is there:
//! workers name a task by numbers.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::GraphId;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph. Known by the graph's number until the last who holds them drops them.
pub(crate) struct Keys {
    graph: GraphId,
    keys: Vec<Py<PyAny>>,
    of_calls: bool,
}

static GRAPHS: Mutex<Option<FxHashMap<GraphId, Weak<Keys>>>> = Mutex::new(None);

fn graphs() -> MutexGuard<'static, Option<FxHashMap<GraphId, Weak<Keys>>>> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// Makes the keys of a graph known.
    pub(crate) fn register(graph: GraphId, keys: Vec<Py<PyAny>>) -> Arc<Self> {
        Self::enter(Self { graph, keys, of_calls: false })
    }

    /// Makes the names of calls known, which are a graph and stand for themselves.
    pub(crate) fn of_calls(graph: GraphId, names: Vec<Py<PyAny>>) -> Arc<Self> {
        Self::enter(Self { graph, keys: names, of_calls: true })
    }

    /// Whether each task stands for itself.
    pub(crate) fn are_of_calls(&self) -> bool {
        self.of_calls
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
        &self.keys
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
