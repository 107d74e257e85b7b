//! Failures as Python exceptions. Their classes and texts are in `eagleray._pickling` and `eagleray.exceptions`.

use eagleray_core::message::{Death, Failure, FailureKind};
use eagleray_runtime::SessionError;
use eagleray_runtime::client::ClientError;
use eagleray_store::StoreError;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::annotations::amount;

fn death_details<'py>(py: Python<'py>, death: &Death) -> PyResult<Bound<'py, PyDict>> {
    let details = PyDict::new(py);
    match death {
        Death::Exited(code) => details.set_item("exit_code", code)?,
        Death::Signalled(signal) => details.set_item("signal", signal)?,
        Death::Protocol(text) | Death::NeverStarted(text) => details.set_item("reason", &**text)?,
    }
    Ok(details)
}

/// The exception for an object that will not be made; `key` is that of the task which failed, or `None`.
pub(crate) fn failure(py: Python<'_>, failure: &Failure, key: &Bound<'_, PyAny>) -> PyErr {
    build(py, failure, key).unwrap_or_else(|error| error)
}

fn build(py: Python<'_>, failure: &Failure, key: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let pickling = py.import("eagleray._pickling")?;
    let details = PyDict::new(py);
    let kind = match &failure.kind {
        FailureKind::Raised { error, attempts } => {
            let error = pickling.getattr("task_error")?.call1((PyBytes::new(py, error), key, *attempts))?;
            return Ok(PyErr::from_value(error));
        }
        FailureKind::WorkerDied { death, attempts } => {
            details.update(death_details(py, death)?.as_mapping())?;
            details.set_item("attempts", attempts)?;
            "worker_died"
        }
        FailureKind::Cancelled => "cancelled",
        FailureKind::Lost => "lost",
        FailureKind::NoWorkers(death) => {
            details.update(death_details(py, death)?.as_mapping())?;
            "no_workers"
        }
        FailureKind::TooDeep { depth, most } => {
            details.set_item("depth", depth)?;
            details.set_item("most", most)?;
            "too_deep"
        }
        FailureKind::Infeasible(shortage) => {
            details.set_item("resource", &*shortage.resource)?;
            details.set_item("asked", amount(shortage.asked))?;
            details.set_item("offered", amount(shortage.offered))?;
            details.set_item("held", amount(shortage.held))?;
            "infeasible"
        }
    };
    Ok(PyErr::from_value(pickling.getattr("failure")?.call1((kind, key, details))?))
}

/// The exception for a wait that took too long.
pub(crate) fn timeout(py: Python<'_>, seconds: f64) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let details = PyDict::new(py);
        details.set_item("seconds", seconds)?;
        let failure = py.import("eagleray._pickling")?.getattr("failure")?;
        Ok(PyErr::from_value(failure.call1(("timeout", py.None(), details))?))
    };
    build().unwrap_or_else(|error| error)
}

/// The exception for an error of the driver role.
pub(crate) fn client_error(py: Python<'_>, error: &ClientError) -> PyErr {
    match error {
        ClientError::Store(StoreError::Full { .. } | StoreError::DiskFull { .. }) => {
            let build = || -> PyResult<PyErr> {
                let class = py.import("eagleray.exceptions")?.getattr("ObjectStoreFullError")?;
                Ok(PyErr::from_value(class.call1((error.to_string(),))?))
            };
            build().unwrap_or_else(|_| PyMemoryError::new_err(error.to_string()))
        }
        ClientError::Session(SessionError::Start(_)) | ClientError::Link(_) => PyOSError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}
