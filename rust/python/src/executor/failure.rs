//! Tasks that did not end well.

use eagleray_core::ids::ObjectId;
use eagleray_core::message::{Opaque, Trouble};
use pyo3::exceptions::{PyException, PyRuntimeError, PySystemExit, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::io::RunIo;

/// Why a task has no result.
pub(super) enum Failure {
    /// It raised, or its code or inputs could not be unpickled.
    Raised(PyErr),
    /// Its result could not be pickled. It is kept.
    Unsendable(PyErr),
    /// A task of the run whose result it reads has none.
    Skipped,
    /// These inputs are nowhere.
    InputNotHere(Vec<ObjectId>),
    /// It goes on.
    Deferred,
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Failure {
    /// What is reported; `again` if the task is one to be run again when it raised, and `inputs` gives the values that it
    /// had. The error is one that ends the process: the task asked for it, or nothing can be reported.
    pub(super) fn into_trouble(
        self,
        py: Python<'_>,
        io: &dyn RunIo,
        again: bool,
        inputs: impl FnOnce() -> Option<Inputs>,
    ) -> PyResult<Trouble> {
        match self {
            Self::Raised(error) if error.is_instance_of::<PySystemExit>(py) => Err(error),
            Self::Raised(error) => {
                io.raised(py, error, inputs()).map(if again { Trouble::Retry } else { Trouble::Raised })
            }
            Self::Unsendable(error) => io.raised(py, error, inputs()).map(Trouble::Unsendable),
            Self::Skipped => Ok(Trouble::Skipped),
            Self::InputNotHere(objects) => Ok(Trouble::InputNotHere(objects)),
            Self::Deferred => Ok(Trouble::Deferred),
        }
    }
}

/// The distinct inputs of a task, with their numbers in the graph (see `GraphSpec::inputs`).
pub(crate) type Inputs = Vec<(u32, Py<PyAny>)>;

/// Pickles an exception with its traceback, and what the inputs are, or that it is one of a call if there are none; one that
/// cannot be pickled is replaced by its text.
pub(crate) fn dump(py: Python<'_>, error: PyErr, inputs: Option<Inputs>) -> PyResult<Opaque> {
    let dump = py.import("eagleray._errors")?.getattr("dump_error")?;
    let text = error.to_string();
    let call = inputs.is_none();
    let inputs = PyList::new(py, inputs.unwrap_or_default())?;
    let bytes = dump
        .call1((error.into_value(py), &inputs, call))
        .or_else(|_| dump.call1((PyRuntimeError::new_err(text).value(py), &inputs, call)))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().into())
}

/// The error of a task whose result cannot be pickled.
pub(crate) fn not_picklable(py: Python<'_>, result: &Bound<'_, PyAny>, cause: PyErr) -> PyErr {
    // What ends a process or was meant for its user is passed on.
    if !cause.is_instance_of::<PyException>(py) {
        return cause;
    }
    let build = || -> PyResult<PyErr> {
        let error = py.import("eagleray._arguments")?.getattr("not_picklable_result")?;
        Ok(PyErr::from_value(error.call1((result, cause.value(py)))?))
    };
    build().unwrap_or(cause)
}

/// What to raise when what was sent cannot be loaded: the reason, and it says so if that is a module.
pub(super) fn not_loaded(py: Python<'_>, error: PyErr) -> PyErr {
    let explain = || -> PyResult<PyErr> {
        let explain = py.import("eagleray._modules")?.getattr("not_loaded")?;
        Ok(PyErr::from_value(explain.call1((error.value(py),))?))
    };
    explain().unwrap_or(error)
}

/// Whether an exception says that a task wrote to read-only memory. `NumPy`, pandas and Cython have no type of their own for
/// it.
pub(super) fn is_read_only(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyValueError>(py)
        && error.value(py).str().is_ok_and(|text| text.contains(intern!(py, "read-only")).unwrap_or(false))
}
