//! Values whose end has effects beyond themselves.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::value;

/// How far below a value an attribute is looked for: `partd` nests a file four deep.
const DEPTH: u32 = 8;

/// Of an object with more attributes than this none is looked at: it is a module or a table, not a wrapper.
const MOST_ATTRIBUTES: usize = 32;

/// Whether dropping a value calls a `__del__`: its own, or that of an object among its attributes.
///
/// Such a value stands for something else, for instance a directory that goes with it (`partd.File`, with which Dask
/// groups a bag and shuffles on disk). A copy in another worker names that as well, so the original must outlive the copies.
pub(super) fn has(value: &Bound<'_, PyAny>) -> bool {
    found(value, DEPTH)
}

fn found(value: &Bound<'_, PyAny>, depth: u32) -> bool {
    let py = value.py();
    if depth == 0 || is_plain(value) {
        return false;
    }
    if value.get_type().hasattr(intern!(py, "__del__")).unwrap_or(false) {
        return true;
    }
    let Ok(attributes) = value.getattr(intern!(py, "__dict__")) else { return false };
    let Ok(attributes) = attributes.cast_exact::<PyDict>() else { return false };
    attributes.len() <= MOST_ATTRIBUTES && attributes.values().iter().any(|attribute| found(&attribute, depth - 1))
}

/// Whether a value is of one of the types that most results are of.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value::is_scalar(value)
        || value::is_array(value)
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyDict>()
}
