//! The keys of the graphs that this process has submitted, as long as it has the graph or refs of it: workers name a task by
//! numbers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::{GraphId, ObjectId};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph.
pub(crate) type Keys = Arc<Vec<Py<PyAny>>>;

type Known = Option<FxHashMap<GraphId, Weak<Vec<Py<PyAny>>>>>;

static GRAPHS: Mutex<Known> = Mutex::new(None);

fn graphs() -> MutexGuard<'static, Known> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the keys of a graph known until they are dropped or [`forget`] is called.
pub(crate) fn register(graph: GraphId, keys: &Keys) {
    graphs().get_or_insert_default().insert(graph, Arc::downgrade(keys));
}

/// A holder of the keys of a graph is about to drop them; if it is the last, they are forgotten. Those of a graph of the
/// same number in a later session stay.
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

/// The key of the task that makes an object, if somebody holds the keys of its graph.
pub(crate) fn of_object(py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
    // Out of the lock before the reference may be the last.
    let keys = graphs().as_ref()?.get(&object.graph)?.upgrade()?;
    Some(keys.get(object.index as usize)?.clone_ref(py))
}

#[pyfunction]
#[pyo3(signature = (graph, index, /))]
pub(crate) fn task_key(py: Python<'_>, graph: u64, index: u32) -> Option<Py<PyAny>> {
    of_object(py, ObjectId { graph: GraphId::from_u64(graph), index })
}
