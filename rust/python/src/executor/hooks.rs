//! Worker hooks: pairs of a function before and a function after each task of a graph.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::value::{self, Payload};

/// A function before and one after each task.
type Pair = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// The hooks of a graph, in their order.
pub(super) struct Hooks(Vec<Pair>);

impl Hooks {
    /// Unpickles a list of pairs `(before | None, after | None)`.
    pub(super) fn load(py: Python<'_>, payload: &Payload) -> PyResult<Self> {
        let list = value::load(py, payload)?.cast_into::<PyList>()?;
        list.iter().map(|pair| pair.extract()).collect::<PyResult<_>>().map(Self)
    }

    /// Calls each hook before a task: `before(key, inputs)`. Gives what they returned, for [`Hooks::after`].
    pub(super) fn before<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyTuple>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let call = |before: &Option<Py<PyAny>>| match before {
            Some(before) => before.bind(py).call1((key, inputs)),
            None => Ok(py.None().into_bound(py)),
        };
        self.0.iter().map(|(before, _)| call(before)).collect()
    }

    /// Calls each hook after a task that went well: `after(key, result, state)`.
    pub(super) fn after<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        result: &Bound<'py, PyAny>,
        states: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        for ((_, after), state) in self.0.iter().zip(states) {
            if let Some(after) = after {
                after.bind(py).call1((key, result, state))?;
            }
        }
        Ok(())
    }
}
