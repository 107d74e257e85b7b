//! The keys of the graphs that this process has submitted, as long as the graph or a ref to one of its results is there, and a
//! while longer if they are calls: workers name a task by numbers.

use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eagleray_core::ids::{GraphId, ObjectId};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// The key of each task of a graph. Known by the graph's number until the last who holds them drops them.
pub(crate) struct Keys {
    graph: GraphId,
    names: Vec<Py<PyAny>>,
    of: Of,
    /// The names of calls, which become one graph, as far as they are known.
    calls: Mutex<Vec<Option<Py<PyAny>>>>,
}

/// Whose the keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The tasks of a graph of the user's.
    Graph,
    /// Calls, which stand for themselves.
    Calls,
    /// The call that makes an actor. It has the name of the actor's class.
    Actor {
        /// How often the actor may be made again; `u32::MAX` for ever.
        max_restarts: u32,
    },
    /// Calls of this actor.
    ActorsCalls(ObjectId),
}

/// The names of so many graphs of calls are known longer than refs to their results: those that read a result may fail with it.
const MOST_RECENT: usize = 1024;

static RECENT: Mutex<VecDeque<Arc<Keys>>> = Mutex::new(VecDeque::new());

static GRAPHS: Mutex<Option<FxHashMap<GraphId, Weak<Keys>>>> = Mutex::new(None);

fn graphs() -> MutexGuard<'static, Option<FxHashMap<GraphId, Weak<Keys>>>> {
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing is known any more: a session begins, and numbers its graphs as the one before did, of which refs may be left.
pub(crate) fn forget() {
    let recent = std::mem::take(&mut *RECENT.lock().unwrap_or_else(PoisonError::into_inner));
    *graphs() = None;
    // Not under a lock: they may be the last who hold them.
    drop(recent);
}

impl Keys {
    /// Makes the keys of a graph known.
    pub(crate) fn register(graph: GraphId, keys: Vec<Py<PyAny>>) -> Arc<Self> {
        Self::enter(Self { graph, names: keys, of: Of::Graph, calls: Mutex::default() })
    }

    /// Makes the name of calls known that are tasks of a graph and stand for themselves.
    pub(crate) fn of_calls(py: Python<'_>, graph: GraphId, tasks: Range<u32>, name: &Py<PyAny>, of: Of) -> Arc<Self> {
        let keys = Self::of(graph).unwrap_or_else(|| {
            let keys = Self::enter(Self { graph, names: Vec::new(), of, calls: Mutex::default() });
            let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
            let old = if recent.len() < MOST_RECENT { None } else { recent.pop_front() };
            recent.push_back(Arc::clone(&keys));
            drop(recent);
            // Not under the lock: it may be the last who holds them.
            drop(old);
            keys
        });
        let mut calls = keys.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() < tasks.end as usize {
            calls.resize_with(tasks.end as usize, || None);
        }
        for task in tasks {
            calls[task as usize] = Some(name.clone_ref(py));
        }
        drop(calls);
        keys
    }

    /// Whose they are.
    pub(crate) fn whose(&self) -> Of {
        self.of
    }

    /// The key of a task, or the name of a call.
    pub(crate) fn key(&self, py: Python<'_>, task: u32) -> Option<Py<PyAny>> {
        if self.of == Of::Graph {
            return self.names.get(task as usize).map(|key| key.clone_ref(py));
        }
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(task as usize)?.as_ref().map(|name| name.clone_ref(py))
    }

    /// The name of the class of the actor that an object is, or of which a call makes it.
    pub(crate) fn class_of_actor(py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
        let keys = Self::of(object.graph)?;
        match keys.of {
            Of::Actor { .. } => keys.key(py, 0),
            Of::ActorsCalls(actor) => Self::of(actor.graph)?.key(py, 0),
            Of::Graph | Of::Calls => None,
        }
    }

    /// Whether the actor that a call was for is made again when it dies after so many restarts.
    pub(crate) fn comes_back(call: ObjectId, restarts: u32) -> bool {
        let Some(Of::ActorsCalls(actor)) = Self::of(call.graph).map(|keys| keys.of) else { return false };
        match Self::of(actor.graph).map(|keys| keys.of) {
            Some(Of::Actor { max_restarts }) => max_restarts == u32::MAX || restarts < max_restarts,
            _ => false,
        }
    }

    /// A session begins: its graphs have the numbers that those of an earlier one had.
    pub(crate) fn forget_all() {
        let recent = std::mem::take(&mut *RECENT.lock().unwrap_or_else(PoisonError::into_inner));
        *graphs() = None;
        // Not under the locks: each may be the last who holds them.
        drop(recent);
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
    keys.key(py, index)
}
