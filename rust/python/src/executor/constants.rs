//! A batch of constants, and what a task gets of them.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::sharing::{self, Sharing, Snapshot};
use crate::value::{self, Payload};

/// A constant that a task may change.
struct Changing {
    sharing: Sharing,
    /// What the tasks' own ones are made from, since the first was.
    snapshot: OnceLock<Snapshot>,
}

/// The constants of a batch.
pub(super) struct Constants {
    objects: Box<[Py<PyAny>]>,
    /// For each object, if it is one that a task may change. Empty if none is.
    changing: Box<[Option<Changing>]>,
}

impl Constants {
    /// Those that tasks share as they are.
    pub(super) fn shared(objects: Box<[Py<PyAny>]>) -> Self {
        Self { objects, changing: Box::default() }
    }

    /// The encoded list that came from the driver.
    pub(super) fn load(py: Python<'_>, payload: &Payload) -> PyResult<Self> {
        let list = value::decode(py, payload, false)?.cast_into::<PyList>()?;
        let mut any = false;
        let changing = list.iter().map(|object| {
            let sharing = sharing::freeze(&object)?;
            any |= sharing != Sharing::Whole;
            Ok((sharing != Sharing::Whole).then(|| Changing { sharing, snapshot: OnceLock::new() }))
        });
        let changing = changing.collect::<PyResult<Box<[_]>>>()?;
        let objects = list.iter().map(Bound::unbind).collect();
        Ok(Self { objects, changing: if any { changing } else { Box::default() } })
    }

    /// The constant at a place as the driver sent it, for reading only.
    pub(super) fn original(&self, place: u32) -> Option<&Py<PyAny>> {
        self.objects.get(place as usize)
    }

    /// The constant at a place, for one use in one task.
    pub(super) fn get(&self, py: Python<'_>, place: u32) -> PyResult<Py<PyAny>> {
        let Some(object) = self.objects.get(place as usize) else {
            return Err(PyRuntimeError::new_err(format!("the task's batch has no constant {place}")));
        };
        match self.changing.get(place as usize) {
            Some(Some(changing)) => changing.get(object.bind(py)),
            _ => Ok(object.clone_ref(py)),
        }
    }

    /// All objects, as the driver sent them.
    pub(super) fn all(&self) -> &[Py<PyAny>] {
        &self.objects
    }
}

impl Changing {
    fn get(&self, object: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if self.sharing != Sharing::Apart {
            return Ok(sharing::copy(object, self.sharing)?.unbind());
        }
        let snapshot = if let Some(snapshot) = self.snapshot.get() {
            snapshot
        } else {
            // Pickling may give up the GIL to a thread that does the same. Both have seen the same object.
            let made = Snapshot::new(object)?;
            self.snapshot.get_or_init(|| made)
        };
        Ok(snapshot.object(object.py())?.unbind())
    }
}
