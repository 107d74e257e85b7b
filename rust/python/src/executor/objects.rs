//! Values that live longer than one task of one run: kept results and published inputs.

use std::sync::Mutex;

use eagleray_core::ids::{GraphId, ObjectId};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::failure::not_loaded;
use super::library::lock;
use crate::sharing::{self, Sharing};
use crate::value::{self, Payload};

struct Input {
    payload: Payload,
    /// Once a task has read it: views of the payload, and how tasks share them.
    decoded: Option<(Py<PyAny>, Sharing)>,
    /// How many runs that name it have not ended.
    runs: u32,
}

/// Whether an object is one that a driver put.
pub(super) fn is_put(object: ObjectId) -> bool {
    object.graph == GraphId::puts(object.graph.peer)
}

/// A value for a task.
pub(super) struct Found {
    pub(super) value: Py<PyAny>,
    /// Whether other tasks may have the same one.
    pub(super) shared: bool,
}

/// See the module. No lock is held while Python runs, nor while a Python object is dropped.
#[derive(Default)]
pub(super) struct Objects {
    kept: Mutex<FxHashMap<ObjectId, Py<PyAny>>>,
    inputs: Mutex<FxHashMap<ObjectId, Input>>,
}

impl Objects {
    pub(super) fn keep(&self, object: ObjectId, value: Py<PyAny>) {
        let old = lock(&self.kept).insert(object, value);
        drop(old);
    }

    pub(super) fn kept(&self, py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
        lock(&self.kept).get(&object).map(|value| value.clone_ref(py))
    }

    pub(super) fn drop_kept(&self, object: ObjectId) {
        let old = lock(&self.kept).remove(&object);
        drop(old);
    }

    /// Each call is for one run, and undone by one [`Objects::end_input`].
    pub(super) fn add_input(&self, object: ObjectId, payload: Payload) {
        lock(&self.inputs).entry(object).or_insert(Input { payload, decoded: None, runs: 0 }).runs += 1;
    }

    pub(super) fn end_input(&self, object: ObjectId) {
        let mut inputs = lock(&self.inputs);
        let Some(input) = inputs.get_mut(&object) else { return };
        input.runs -= 1;
        let old = if input.runs == 0 { inputs.remove(&object) } else { None };
        drop(inputs);
        drop(old);
    }

    /// Whoever reads this input next gets a value of its own.
    pub(super) fn decode_again(&self, object: ObjectId) {
        let old = lock(&self.inputs).get_mut(&object).and_then(|input| input.decoded.take());
        drop(old);
    }

    /// A kept value, or an input, decoded; `None` if it is neither. An error is that of the unpickler.
    pub(super) fn find(&self, py: Python<'_>, object: ObjectId) -> PyResult<Option<Found>> {
        if let Some(value) = self.kept(py, object) {
            return Ok(Some(Found { value, shared: true }));
        }
        let known = lock(&self.inputs).get(&object).map(|input| {
            let decoded = input.decoded.as_ref().map(|(value, sharing)| (value.clone_ref(py), *sharing));
            (input.payload.clone(), decoded)
        });
        let Some((payload, decoded)) = known else { return Ok(None) };
        let (value, sharing) = match decoded {
            Some((value, sharing)) => (value.into_bound(py), sharing),
            None => self.decode(py, object, &payload)?,
        };
        Ok(Some(match sharing {
            Sharing::Whole => Found { value: value.unbind(), shared: true },
            Sharing::Container | Sharing::Nested | Sharing::Shallow => {
                Found { value: sharing::copy(&value, sharing)?.unbind(), shared: false }
            }
            Sharing::Apart => Found { value: value.unbind(), shared: false },
        }))
    }

    /// Decodes an input, and remembers it unless the next task must have another.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        object: ObjectId,
        payload: &Payload,
    ) -> PyResult<(Bound<'py, PyAny>, Sharing)> {
        let value = value::decode(py, payload, false).map_err(|error| not_loaded(py, error))?;
        // Tasks share what another task made, as they do when it has not left the worker.
        let sharing = if is_put(object) { sharing::freeze(&value)? } else { Sharing::Whole };
        if sharing != Sharing::Apart {
            let mut inputs = lock(&self.inputs);
            let decoded = (value.clone().unbind(), sharing);
            let old = inputs.get_mut(&object).and_then(|input| input.decoded.replace(decoded));
            drop(inputs);
            drop(old);
        }
        Ok((value, sharing))
    }
}
