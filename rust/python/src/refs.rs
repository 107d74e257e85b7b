//! `ObjectRef`: a reference to an object, counted.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use eagleray_core::ids::{GraphId, ObjectId};
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use crate::contained::{self, Contained};
use crate::keys::Keys;
use crate::role::{Role, raise};

/// A reference to an object of the session. As long as it lives, the object does.
#[pyclass(frozen, weakref, module = "eagleray", name = "ObjectRef")]
pub(crate) struct ObjectRef {
    role: Arc<Role>,
    object: ObjectId,
    /// The keys of the graph that makes the object, for the message if that fails.
    _keys: Option<Arc<Keys>>,
    /// What the constants of the graph name.
    named: Option<Arc<Mutex<Vec<Contained>>>>,
    /// What the object is a part of: the result of a call with several.
    whole: Option<ObjectId>,
    /// The number of the last list in which it was seen.
    seen: AtomicU64,
}

/// Refs do not keep the keys of a graph with more tasks: they are few mostly, and may live long.
const MOST_KEYS: usize = 100_000;

impl ObjectRef {
    /// A reference that is one use more.
    pub(crate) fn holding(role: &Arc<Role>, object: ObjectId) -> PyResult<Self> {
        role.client.hold(object).map_err(raise)?;
        Ok(Self::counted(role, object))
    }

    /// A reference that is counted already.
    pub(crate) fn counted(role: &Arc<Role>, object: ObjectId) -> Self {
        Self { role: Arc::clone(role), object, _keys: None, named: None, whole: None, seen: AtomicU64::default() }
    }

    /// The same as a part of a result.
    fn part_of(mut self, whole: Option<ObjectId>) -> Self {
        self.whole = whole;
        self
    }

    /// A reference, counted already, to the result of a call with these names, or to a part of a result.
    pub(crate) fn made(role: &Arc<Role>, object: ObjectId, keys: &Arc<Keys>, whole: Option<ObjectId>) -> Self {
        Self {
            role: Arc::clone(role),
            object,
            _keys: Some(Arc::clone(keys)),
            named: None,
            whole,
            seen: AtomicU64::default(),
        }
    }

    /// A reference to the result of a task of a graph with these keys, that is one use more. It keeps what is `named` by
    /// the graph.
    pub(crate) fn to_result(
        role: &Arc<Role>,
        object: ObjectId,
        keys: &Arc<Keys>,
        named: &Arc<Mutex<Vec<Contained>>>,
    ) -> PyResult<Self> {
        let keys = (keys.len() <= MOST_KEYS).then(|| Arc::clone(keys));
        role.client.hold(object).map_err(raise)?;
        Ok(Self {
            role: Arc::clone(role),
            object,
            _keys: keys,
            named: Some(Arc::clone(named)),
            whole: None,
            seen: AtomicU64::default(),
        })
    }

    /// Its object. Raises `ObjectLostError` if it is of another session than `role`.
    pub(crate) fn object(&self, role: &Role) -> PyResult<ObjectId> {
        if !std::ptr::eq(Arc::as_ptr(&self.role), role) && self.role.session != role.session {
            return Err(of_another_session(self.object));
        }
        Ok(self.object)
    }

    /// Whether it was seen in the list with this number; from now on it was.
    pub(crate) fn seen_in(&self, list: u64) -> bool {
        self.seen.swap(list, Ordering::Relaxed) == list
    }

    /// The result that it is a part of, or its object. Raises what [`ObjectRef::object`] raises.
    pub(crate) fn whole(&self, role: &Role) -> PyResult<ObjectId> {
        self.object(role).map(|object| self.whole.unwrap_or(object))
    }
}

/// A ref taken apart: session, graph, index, and graph and index of what it is a part of.
type Reduced = (String, u64, u32, Option<(u64, u32)>);

/// The id of an object as hexadecimal digits, unique in its session.
pub(crate) fn hex(object: ObjectId) -> String {
    format!("{:016x}{:08x}", object.graph.to_u64(), object.index)
}

/// An `ObjectLostError`.
fn lost(text: &str) -> PyErr {
    Python::attach(|py| {
        let class = py.import("eagleray.exceptions").and_then(|module| module.getattr("ObjectLostError"));
        class.and_then(|class| class.call1((text,))).map_or_else(|error| error, PyErr::from_value)
    })
}

/// The error for an object of a session that has ended.
pub(crate) fn of_another_session(object: ObjectId) -> PyErr {
    lost(&format!("ObjectRef({}) is of a session that has ended, and its objects with it.", hex(object)))
}

/// What to know for somebody who took a ref for its value.
const NOT_ITS_VALUE: &str = "it only names a value. Get that with eagleray.get(ref); compute a collection that was \
                             persisted with eagleray with scheduler=ray_dask_get.";

impl Drop for ObjectRef {
    fn drop(&mut self) {
        if self.role.is_mine() {
            // When the session has ended there is nothing to release.
            let _ = self.role.client.release(&[self.object]);
        }
    }
}

#[pymethods]
impl ObjectRef {
    /// The id as hexadecimal digits, unique in the session.
    fn hex(&self) -> String {
        hex(self.object)
    }

    /// The same as bytes.
    fn binary<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.object.graph.to_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.object.index.to_be_bytes());
        PyBytes::new(py, &bytes)
    }

    /// The id of the task that makes the object.
    fn task_id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("eagleray._runtime_context")?.getattr("Id")?.call1((self.hex(),))
    }

    /// A `concurrent.futures.Future` that has the value or the error when it is there.
    fn future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("eagleray._futures")?.getattr("future")?.call1((slf,))
    }

    /// Waits for the value in an asyncio loop.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("eagleray._futures")?.getattr("awaited")?.call1((slf,))
    }

    /// `ObjectRef[int]`, for annotations.
    #[classmethod]
    #[pyo3(signature = (of, /))]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, of: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.getattr("GenericAlias")?.call1((class, of))
    }

    /// A copy of a ref is the ref: it never changes.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (_memo, /))]
    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __repr__(&self) -> String {
        format!("ObjectRef({})", self.hex())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.object.hash(&mut hasher);
        hasher.finish()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.object == other.object && self.role.session == other.role.session
        })
    }

    /// A ref that is part of an encoded value is held with that. Any other that was pickled may come back at any time, so it
    /// is held to the end of the session.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Reduced)> {
        static REBUILD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if self.role.is_mine() {
            if !contained::note(&self.role, self.object)? {
                self.role.client.hold(self.object).map_err(raise)?;
            }
            let is_named = |named: &Mutex<Vec<_>>| !named.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if self.named.as_deref().is_some_and(is_named) {
                // The graph may go on when no ref is left here.
                std::mem::forget(self.named.clone());
            }
        }
        let rebuild = REBUILD.import(py, "eagleray._native", "_rebuild_ref")?.clone();
        let whole = self.whole.map(|whole| (whole.graph.to_u64(), whole.index));
        Ok((rebuild, (self.role.session.clone(), self.object.graph.to_u64(), self.object.index, whole)))
    }

    /// Without this, `numpy` would silently make an array of objects of it.
    #[pyo3(signature = (*_args, **_kwargs))]
    fn __array__(
        _slf: &Bound<'_, Self>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(PyTypeError::new_err(format!("An ObjectRef is no array: {NOT_ITS_VALUE}")))
    }

    /// Called for what there is not.
    fn __getattr__(_slf: &Bound<'_, Self>, name: &str) -> PyResult<()> {
        Err(PyAttributeError::new_err(format!("An ObjectRef has no attribute {name:?}: {NOT_ITS_VALUE}")))
    }

    /// Dask asks for this. The same ref is the same token.
    fn __dask_tokenize__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, ["eagleray.ObjectRef", &self.role.session, &self.hex()])
    }
}

thread_local! {
    static REBUILT: Cell<u64> = const { Cell::new(0) };
}

/// How many refs were unpickled on this thread.
pub(crate) fn rebuilt() -> u64 {
    REBUILT.get()
}

/// A ref from its pickle.
#[pyfunction]
#[pyo3(signature = (session, graph, index, whole=None))]
pub(crate) fn _rebuild_ref(session: &str, graph: u64, index: u32, whole: Option<(u64, u32)>) -> PyResult<ObjectRef> {
    let role = Role::current()?;
    if role.session != session {
        return Err(lost("The ObjectRef is of a session that has ended, or of another one."));
    }
    let object = |(graph, index)| ObjectId { graph: GraphId::from_u64(graph), index };
    REBUILT.set(REBUILT.get() + 1);
    let made = ObjectRef::holding(&role, object((graph, index)))?;
    Ok(made.part_of(whole.map(object)))
}
