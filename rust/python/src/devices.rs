//! Which GPUs a task sees.

use pyo3::prelude::*;
use pyo3::types::PyAny;

const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// While it is there, CUDA finds only some of the GPUs that this process was started with.
pub(crate) struct Visible<'py> {
    environ: Bound<'py, PyAny>,
    before: Option<String>,
}

impl<'py> Visible<'py> {
    /// Shows the GPUs with these numbers, counted among those that were visible so far. `None` if there are none: then
    /// nothing is changed.
    pub(crate) fn only(py: Python<'py>, gpus: &[u32]) -> PyResult<Option<Self>> {
        if gpus.is_empty() {
            return Ok(None);
        }
        let environ = py.import("os")?.getattr("environ")?;
        let before: Option<String> = environ.call_method1("get", (VARIABLE,))?.extract()?;
        let names: Vec<&str> = before.as_deref().unwrap_or_default().split(',').map(str::trim).collect();
        let name = |&gpu: &u32| match names.get(gpu as usize) {
            Some(name) if !name.is_empty() => (*name).to_owned(),
            _ => gpu.to_string(),
        };
        let visible: Vec<String> = gpus.iter().map(name).collect();
        environ.set_item(VARIABLE, visible.join(","))?;
        Ok(Some(Self { environ, before }))
    }

    /// Shows what was visible before.
    pub(crate) fn restore(self) -> PyResult<()> {
        match self.before {
            Some(before) => self.environ.set_item(VARIABLE, before),
            None => self.environ.call_method1("pop", (VARIABLE, self.environ.py().None())).map(drop),
        }
    }
}
