//! A batch of constants, and what a task gets of them.

use std::sync::OnceLock;

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::sharing::{self, Sharing, Snapshot};
use crate::value::{self, Payload};

/// A constant that a task may change.
struct Changing {
    sharing: Sharing,
    /// What the tasks' own ones are made from, since the first was: the batch, if there is none.
    snapshot: OnceLock<Option<Snapshot>>,
}

/// The constants of a batch.
pub(super) struct Constants {
    objects: Box<[Py<PyAny>]>,
    /// For each object, if it is one that a task may change. Empty if none is.
    changing: Box<[Option<Changing>]>,
    /// The batch, if there are some that each task gets unpickled for it.
    payload: Option<Payload>,
    /// Something in it was not pickled as its class is, so it cannot be pickled here.
    foreign: bool,
}

impl Constants {
    /// Those that tasks share as they are.
    pub(super) fn shared(objects: Box<[Py<PyAny>]>) -> Self {
        Self { objects, changing: Box::default(), payload: None, foreign: false }
    }

    /// The encoded list that came from the driver.
    pub(super) fn load(py: Python<'_>, payload: &Payload) -> PyResult<Self> {
        let (list, foreign) =
            sharing::noting_foreign(|| Ok(value::decode(py, payload, false)?.cast_into::<PyList>()?))?;
        let (mut any, mut apart) = (false, false);
        let changing = list.iter().map(|object| {
            let sharing = sharing::freeze(&object)?;
            any |= sharing != Sharing::Whole;
            apart |= sharing == Sharing::Apart;
            Ok((sharing != Sharing::Whole).then(|| Changing { sharing, snapshot: OnceLock::new() }))
        });
        let changing = changing.collect::<PyResult<Box<[_]>>>()?;
        let objects = list.iter().map(Bound::unbind).collect();
        Ok(Self {
            objects,
            changing: if any { changing } else { Box::default() },
            payload: apart.then(|| payload.clone()),
            foreign,
        })
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
            Some(Some(changing)) if changing.sharing == Sharing::Apart => self.apart(object.bind(py), changing, place),
            Some(Some(changing)) => Ok(sharing::copy(object.bind(py), changing.sharing)?.unbind()),
            _ => Ok(object.clone_ref(py)),
        }
    }

    /// One that nobody else has.
    fn apart(&self, object: &Bound<'_, PyAny>, changing: &Changing, place: u32) -> PyResult<Py<PyAny>> {
        let py = object.py();
        let snapshot = if let Some(known) = changing.snapshot.get() {
            known
        } else {
            // Pickling may give up the GIL to a thread that does the same. Both have seen the same object.
            let made = if self.foreign { None } else { Self::snapshot(object)? };
            changing.snapshot.get_or_init(|| made)
        };
        if let Some(snapshot) = snapshot {
            return Ok(snapshot.object(py)?.unbind());
        }
        let payload = self.payload.as_ref().expect("kept, as this constant is one of those");
        let list = value::decode(py, payload, false)?.cast_into::<PyList>()?;
        let again = list.get_item(place as usize)?;
        sharing::freeze(&again)?;
        Ok(again.unbind())
    }

    /// None for what can be pickled in the driver only.
    fn snapshot(object: &Bound<'_, PyAny>) -> PyResult<Option<Snapshot>> {
        match Snapshot::new(object) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) if error.is_instance_of::<PyException>(object.py()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects, as the driver sent them.
    pub(super) fn all(&self) -> &[Py<PyAny>] {
        &self.objects
    }
}
