//! What was learned before a run: functions, templates, batches of constants and hooks.
//!
//! Everything pickled is loaded at its first use. No lock is held while Python runs, nor while a Python object is dropped:
//! both may come back here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eagleray_core::ids::GraphId;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use rustc_hash::FxHashMap;

use super::constants::Constants;
use super::failure::not_loaded;
use super::hooks::Hooks;
use super::shape::{BadProgram, Op, Shape};
use crate::refs;
use crate::value::{self, Payload};

/// Locks; what a panicking thread left behind is a whole table, as no table is changed in more than one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is loaded at its first use.
enum Lazy<T> {
    Pickled(Payload),
    Loaded(T),
}

impl<T> Lazy<Arc<T>> {
    fn share(&self) -> Self {
        match self {
            Self::Pickled(payload) => Self::Pickled(payload.clone()),
            Self::Loaded(object) => Self::Loaded(object.clone()),
        }
    }
}

#[derive(Default)]
struct Graph {
    /// The blob of each function.
    functions: FxHashMap<u32, u32>,
    templates: FxHashMap<u32, Arc<Shape>>,
    batches: FxHashMap<u32, Lazy<Arc<Constants>>>,
    hooks: Option<Lazy<Arc<Hooks>>>,
    /// By class, after which exceptions its tasks are run again: the pickle of a tuple, or after any.
    retry_filters: FxHashMap<u32, Option<Payload>>,
    /// Results that live as long as the graph.
    held: Vec<Py<PyAny>>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Library {
    /// Pickled functions, by their number in the session: many graphs have them in common.
    blobs: Mutex<FxHashMap<u32, Lazy<Arc<Py<PyAny>>>>>,
    graphs: Mutex<FxHashMap<GraphId, Graph>>,
}

impl Library {
    pub(super) fn add_blob(&self, blob: u32, bytes: Payload) {
        lock(&self.blobs).entry(blob).or_insert(Lazy::Pickled(bytes));
    }

    pub(super) fn add_loaded_blob(&self, blob: u32, object: Py<PyAny>) {
        let old = lock(&self.blobs).insert(blob, Lazy::Loaded(Arc::new(object)));
        drop(old);
    }

    pub(super) fn drop_blob(&self, blob: u32) {
        let old = lock(&self.blobs).remove(&blob);
        drop(old);
    }

    pub(super) fn add_function(&self, graph: GraphId, id: u32, blob: u32) {
        lock(&self.graphs).entry(graph).or_default().functions.insert(id, blob);
    }

    pub(super) fn add_template(&self, graph: GraphId, id: u32, shape: Shape) {
        let old = lock(&self.graphs).entry(graph).or_default().templates.insert(id, Arc::new(shape));
        drop(old);
    }

    pub(super) fn add_batch(&self, graph: GraphId, id: u32, bytes: Payload) {
        let old = lock(&self.graphs).entry(graph).or_default().batches.insert(id, Lazy::Pickled(bytes));
        drop(old);
    }

    pub(super) fn add_loaded_batch(&self, graph: GraphId, id: u32, objects: Box<[Py<PyAny>]>) {
        let constants = Lazy::Loaded(Arc::new(Constants::shared(objects)));
        let old = lock(&self.graphs).entry(graph).or_default().batches.insert(id, constants);
        drop(old);
    }

    pub(super) fn set_hooks(&self, graph: GraphId, bytes: Payload) {
        let old = lock(&self.graphs).entry(graph).or_default().hooks.replace(Lazy::Pickled(bytes));
        drop(old);
    }

    /// Keeps a result until the graph is forgotten.
    pub(super) fn hold(&self, graph: GraphId, value: Py<PyAny>) {
        lock(&self.graphs).entry(graph).or_default().held.push(value);
    }

    pub(super) fn add_retry_filter(&self, graph: GraphId, classes: &[u32], exceptions: Option<&Payload>) {
        let mut graphs = lock(&self.graphs);
        let filters = &mut graphs.entry(graph).or_default().retry_filters;
        filters.extend(classes.iter().map(|class| (*class, exceptions.cloned())));
    }

    /// Whether a task of this class that raised this is one to be run again. Not if that cannot be told.
    pub(super) fn retries_for(&self, py: Python<'_>, graph: GraphId, class: u32, error: &PyErr) -> bool {
        let known = lock(&self.graphs).get(&graph).and_then(|graph| graph.retry_filters.get(&class).cloned());
        let payload = match known {
            None => return false,
            Some(None) => return true,
            Some(Some(payload)) => payload,
        };
        let listed = value::load(py, &payload).and_then(|classes| error.value(py).is_instance(&classes));
        listed.unwrap_or_else(|error| {
            tracing::warn!(%error, "after which exceptions a task is run again cannot be loaded");
            false
        })
    }

    pub(super) fn forget(&self, graph: GraphId) {
        let old = lock(&self.graphs).remove(&graph);
        drop(old);
    }

    pub(super) fn template(&self, graph: GraphId, id: u32) -> Result<Arc<Shape>, BadProgram> {
        let graphs = lock(&self.graphs);
        let shape = graphs.get(&graph).and_then(|graph| graph.templates.get(&id));
        shape.cloned().ok_or(BadProgram::UnknownTemplate(id))
    }

    /// The loaded function entries of a template. An error is that of an unpickler, or a `RuntimeError` for a function
    /// that was not added.
    pub(super) fn functions<'a>(&self, py: Python<'_>, graph: GraphId, shape: &'a Shape) -> PyResult<&'a [Py<PyAny>]> {
        if let Some(loaded) = shape.loaded.get() {
            return Ok(loaded);
        }
        let entries = shape.functions.iter().map(|&id| {
            let blob = lock(&self.graphs).get(&graph).and_then(|graph| graph.functions.get(&id).copied());
            self.blob(py, blob.ok_or_else(|| unknown("function", id))?)
        });
        let entries = entries.collect::<PyResult<Box<[_]>>>()?;
        check_names(py, shape, &entries)?;
        // Loading one of them may have led to a nested run that loaded them all: then its objects stay.
        Ok(shape.loaded.get_or_init(|| entries))
    }

    fn blob(&self, py: Python<'_>, blob: u32) -> PyResult<Py<PyAny>> {
        let known = lock(&self.blobs).get(&blob).map(Lazy::share);
        let payload = match known.ok_or_else(|| unknown("function blob", blob))? {
            Lazy::Loaded(object) => return Ok(object.clone_ref(py)),
            Lazy::Pickled(payload) => payload,
        };
        let before = refs::rebuilt();
        let object = value::load(py, &payload).map_err(|error| not_loaded(py, error))?.unbind();
        if refs::rebuilt() != before {
            // It has refs in it, which are not to be held any longer than the graph is known.
            return Ok(object);
        }
        let old = lock(&self.blobs).insert(blob, Lazy::Loaded(Arc::new(object.clone_ref(py))));
        drop(old);
        Ok(object)
    }

    /// The constants of a batch. An error is that of the unpickler, or a `RuntimeError` for a batch that was not added.
    pub(super) fn batch(&self, py: Python<'_>, graph: GraphId, id: u32) -> PyResult<Arc<Constants>> {
        let known = lock(&self.graphs).get(&graph).and_then(|graph| graph.batches.get(&id)).map(Lazy::share);
        let payload = match known.ok_or_else(|| unknown("batch", id))? {
            Lazy::Loaded(constants) => return Ok(constants),
            Lazy::Pickled(payload) => payload,
        };
        let before = refs::rebuilt();
        let constants = Arc::new(Constants::load(py, &payload).map_err(|error| not_loaded(py, error))?);
        if refs::rebuilt() != before {
            // It has refs in it, which are not to be held any longer than the run lasts.
            return Ok(constants);
        }
        let mut graphs = lock(&self.graphs);
        // Not put back if the graph was forgotten meanwhile.
        let place = graphs.get_mut(&graph).and_then(|graph| graph.batches.get_mut(&id));
        let old = place.map(|place| std::mem::replace(place, Lazy::Loaded(constants.clone())));
        drop(graphs);
        drop(old);
        Ok(constants)
    }

    /// Whether tasks of a graph have hooks.
    pub(super) fn has_hooks(&self, graph: GraphId) -> bool {
        lock(&self.graphs).get(&graph).is_some_and(|graph| graph.hooks.is_some())
    }

    /// The hooks of a graph that has some. An error is that of the unpickler.
    pub(super) fn hooks(&self, py: Python<'_>, graph: GraphId) -> PyResult<Arc<Hooks>> {
        let known = lock(&self.graphs).get(&graph).and_then(|graph| graph.hooks.as_ref().map(Lazy::share));
        let payload = match known.ok_or_else(|| PyRuntimeError::new_err("the hooks of this graph are gone"))? {
            Lazy::Loaded(hooks) => return Ok(hooks),
            Lazy::Pickled(payload) => payload,
        };
        let hooks = Arc::new(Hooks::load(py, &payload)?);
        let mut graphs = lock(&self.graphs);
        let place = graphs.get_mut(&graph).and_then(|graph| graph.hooks.as_mut());
        let old = place.map(|place| std::mem::replace(place, Lazy::Loaded(hooks.clone())));
        drop(graphs);
        drop(old);
        Ok(hooks)
    }
}

fn unknown(what: &str, id: u32) -> PyErr {
    PyRuntimeError::new_err(format!("{what} {id} was not sent to this process"))
}

/// Every entry that names keyword arguments must be a tuple of so many strings: the call relies on it.
fn check_names(py: Python<'_>, shape: &Shape, entries: &[Py<PyAny>]) -> PyResult<()> {
    for op in &shape.ops {
        let &Op::CallNamed { named, names, .. } = op else { continue };
        let fits = entries[names as usize].bind(py).cast_exact::<PyTuple>().is_ok_and(|names| {
            names.len() == named as usize && names.iter().all(|name| name.is_exact_instance_of::<PyString>())
        });
        if !fits {
            return Err(PyTypeError::new_err("keyword names are not a tuple of that many strings"));
        }
    }
    Ok(())
}
