//! Tasks that did not end well.

use eagleray_core::ids::ObjectId;
use eagleray_core::message::{Opaque, Trouble};
use pyo3::exceptions::{PyRuntimeError, PySystemExit, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

/// Why a task has no result.
pub(super) enum Failure {
    /// It raised, or its code, inputs or result could not be pickled or unpickled.
    Raised(PyErr),
    /// A task of the run whose result it reads has none.
    Skipped,
    /// These inputs are nowhere.
    InputNotHere(Vec<ObjectId>),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Failure {
    /// What is reported; `again` if the task is one to be run again when it raised. The error is one that ends the
    /// process: the task asked for it, or nothing can be reported.
    pub(super) fn into_trouble(self, py: Python<'_>, again: bool) -> PyResult<Trouble> {
        match self {
            Self::Raised(error) if error.is_instance_of::<PySystemExit>(py) => Err(error),
            Self::Raised(error) => dump(py, error).map(if again { Trouble::Retry } else { Trouble::Raised }),
            Self::Skipped => Ok(Trouble::Skipped),
            Self::InputNotHere(objects) => Ok(Trouble::InputNotHere(objects)),
        }
    }
}

/// Pickles an exception with its traceback; one that cannot be pickled is replaced by its text.
fn dump(py: Python<'_>, error: PyErr) -> PyResult<Opaque> {
    static DUMP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dump = DUMP.import(py, "eagleray._pickling", "dump_error")?;
    let text = error.to_string();
    let bytes =
        dump.call1((error.into_value(py),)).or_else(|_| dump.call1((PyRuntimeError::new_err(text).value(py),)))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().into())
}

/// Whether an exception says that a task wrote to read-only memory. `NumPy`, pandas and Cython have no type of their own for
/// it.
pub(super) fn is_read_only(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyValueError>(py)
        && error.value(py).str().is_ok_and(|text| text.contains(intern!(py, "read-only")).unwrap_or(false))
}
