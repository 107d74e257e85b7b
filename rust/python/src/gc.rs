//! Suspending cyclic garbage collection while many objects are made that form no cycles.

use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

struct State {
    guards: usize,
    was_enabled: bool,
}

const IDLE: State = State { guards: 0, was_enabled: false };

static STATE: Mutex<State> = Mutex::new(IDLE);

/// A function of the module `gc`. To be fetched before the lock is taken: what interns a name may give up the GIL.
fn function<'py>(name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    name.py().import(intern!(name.py(), "gc"))?.getattr(name)
}

fn suspend(py: Python<'_>) -> PyResult<()> {
    let is_enabled = function(intern!(py, "isenabled"))?;
    let disable = function(intern!(py, "disable"))?;
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.guards == 0 {
        state.was_enabled = is_enabled.call0()?.is_truthy()?;
        disable.call0()?;
    }
    state.guards += 1;
    Ok(())
}

fn resume(py: Python<'_>) -> PyResult<()> {
    let enable = function(intern!(py, "enable"))?;
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.guards = state.guards.saturating_sub(1);
    if state.guards == 0 && std::mem::take(&mut state.was_enabled) {
        enable.call0()?;
    }
    Ok(())
}

/// In a forked child: threads that have suspended collection are not here to let it go on.
#[pyfunction]
pub(crate) fn gc_after_fork(py: Python<'_>) -> PyResult<()> {
    let enable = function(intern!(py, "enable"))?;
    let State { guards, was_enabled } =
        std::mem::replace(&mut *STATE.lock().unwrap_or_else(PoisonError::into_inner), IDLE);
    if guards > 0 && was_enabled {
        enable.call0()?;
    }
    Ok(())
}

/// Suspends collection as long as it lives.
pub(crate) struct Suspended<'py>(Python<'py>);

impl<'py> Suspended<'py> {
    pub(crate) fn new(py: Python<'py>) -> PyResult<Self> {
        suspend(py)?;
        Ok(Self(py))
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        // `gc.enable` does not fail; if the module is gone, the interpreter is too.
        let _ = resume(self.0);
    }
}

/// Suspends cyclic garbage collection. Counted; never enables what was disabled before.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct GcGuard;

#[pymethods]
impl GcGuard {
    #[new]
    fn new() -> Self {
        Self
    }

    fn __enter__(slf: Py<Self>, py: Python<'_>) -> PyResult<Py<Self>> {
        suspend(py)?;
        Ok(slf)
    }

    #[pyo3(signature = (kind=None, error=None, traceback=None, /))]
    #[expect(clippy::unused_self, reason = "a method of Python's")]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, error, traceback);
        resume(py)
    }
}
