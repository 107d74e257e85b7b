//! What many calls have in common beside what they call.

use std::sync::Arc;

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::annotations::{self, TaskSpec, tries};

/// How a call is named, placed and tried. See `_native.pyi`.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct RemoteOptions {
    name: Py<PyString>,
    /// The same for the session.
    pub(super) label: Arc<str>,
    /// A call has a worker to itself, and is the only one of its run.
    pub(super) alone: bool,
    /// How many refs it gives.
    pub(super) num_returns: u32,
    pub(super) spec: TaskSpec,
}

impl RemoteOptions {
    /// How many parts the result has, if it is taken apart.
    pub(super) fn parts(&self) -> u32 {
        if self.num_returns > 1 { self.num_returns } else { 0 }
    }

    /// What its tasks are called in messages.
    pub(super) fn key(&self, py: Python<'_>) -> Py<PyAny> {
        self.name.clone_ref(py).into_any()
    }
}

#[pymethods]
impl RemoteOptions {
    #[new]
    #[pyo3(signature = (
        name, *, num_returns=1, max_retries=3, retries=0, retry_exceptions=None, resources=None, priority=0, alone=false,
    ))]
    fn new(
        py: Python<'_>,
        name: Py<PyString>,
        num_returns: u32,
        max_retries: i64,
        retries: i64,
        retry_exceptions: Option<&Bound<'_, PyTuple>>,
        resources: Option<&Bound<'_, PyDict>>,
        priority: i32,
        alone: bool,
    ) -> PyResult<Self> {
        if num_returns > MOST_RETURNS {
            return Err(PyValueError::new_err(format!(
                "num_returns must be at most {MOST_RETURNS}, not {num_returns}"
            )));
        }
        let pickle = |classes: &Bound<'_, PyTuple>| -> PyResult<Bytes> {
            let pickle = py.import("eagleray._pickling")?.getattr("dump")?.call1((classes,))?;
            Ok(Bytes::copy_from_slice(pickle.cast::<PyBytes>()?.as_bytes()))
        };
        let spec = TaskSpec {
            retries: tries("retries", retries, u16::MAX)?,
            max_retries: tries("max_retries", max_retries, u8::MAX)?,
            retry_exceptions: retry_exceptions.map(pickle).transpose()?,
            priority,
            demand: resources.map(annotations::demand).transpose()?.flatten(),
            fingerprint: 0,
        };
        let label = name.bind(py).to_string_lossy().as_ref().into();
        Ok(Self { name, label, alone, num_returns, spec: spec.settled() })
    }
}

/// Each is a task of the call's graph.
const MOST_RETURNS: u32 = 1 << 20;
