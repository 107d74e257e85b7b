//! How large a result is, as far as that is known cheaply.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// What an object takes of which nothing is known, in bytes.
const SMALL: u64 = 64;

/// What an element of a container or table takes, in bytes.
const ELEMENT: u64 = 8;

/// The size of a value in bytes, a guess. What a container's elements refer to is not counted.
pub(super) fn guess(value: &Bound<'_, PyAny>) -> u64 {
    let py = value.py();
    let elements = |len: usize| SMALL + ELEMENT * len as u64;
    if value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_none()
    {
        SMALL
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        SMALL + text.len().unwrap_or(0) as u64
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        SMALL + bytes.as_bytes().len() as u64
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        elements(tuple.len())
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        elements(list.len())
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        elements(dict.len())
    } else {
        let number = |name| value.getattr(name).ok()?.extract::<u64>().ok();
        // Arrays, and columns of tables, know it; a table only says how many cells it has.
        let bytes = number(intern!(py, "nbytes"));
        bytes.or_else(|| number(intern!(py, "size"))?.checked_mul(ELEMENT)).map_or(SMALL, |bytes| bytes.max(SMALL))
    }
}
