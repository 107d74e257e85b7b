//! The keys of the graphs that this process has submitted and not dropped, nor all refs to their results: workers name a
//! task by numbers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::GraphId;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph.
pub(crate) type Keys = Arc<Vec<Py<PyAny>>>;

type Graphs = FxHashMap<GraphId, Weak<Vec<Py<PyAny>>>>;

static GRAPHS: Mutex<Option<Graphs>> = Mutex::new(None);

fn graphs() -> MutexGuard<'static, Option<Graphs>> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the keys of a graph known until all who hold them have called [`forget`].
pub(crate) fn register(graph: GraphId, keys: &Keys) {
    graphs().get_or_insert_default().insert(graph, Arc::downgrade(keys));
}

/// The keys of a graph, if they are known.
pub(crate) fn of(graph: GraphId) -> Option<Keys> {
    graphs().as_ref()?.get(&graph)?.upgrade()
}

/// One who holds the keys of a graph is about to drop them. Those of a graph of the same number in a later session stay.
pub(crate) fn forget(graph: GraphId, keys: &Keys) {
    if Arc::strong_count(keys) > 1 {
        return;
    }
    if let Some(graphs) = graphs().as_mut() {
        if graphs.get(&graph).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(keys))) {
            graphs.remove(&graph);
        }
    }
}

#[pyfunction]
#[pyo3(signature = (graph, index, /))]
pub(crate) fn task_key(py: Python<'_>, graph: u64, index: u32) -> Option<Py<PyAny>> {
    let keys = of(GraphId::from_u64(graph))?;
    Some(keys.get(index as usize)?.clone_ref(py))
}
