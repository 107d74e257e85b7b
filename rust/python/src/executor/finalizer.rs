//! Values whose end has effects beyond themselves.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rustc_hash::FxHashSet;

use crate::value;

/// How far below a value an attribute is looked for: `partd` nests a file four deep.
const DEPTH: u32 = 8;

/// Of an object with more attributes than this none is looked at: it is a module or a table, not a wrapper.
const MOST_ATTRIBUTES: usize = 32;

/// So many objects are looked at. A wrapper has few; what has more may have as many as a program has.
const MOST_OBJECTS: usize = 500;

/// Whether dropping a value calls a `__del__`: its own, or that of an object among its attributes.
///
/// Such a value stands for something else, for instance a directory that goes with it (`partd.File`, with which Dask
/// groups a bag and shuffles on disk). A copy in another worker names that as well, so the original must outlive the copies.
pub(super) fn has(value: &Bound<'_, PyAny>) -> bool {
    if is_plain(value) {
        return false;
    }
    let mut met = FxHashSet::default();
    let mut level = vec![value.clone()];
    for _ in 0..DEPTH {
        if level.iter().any(has_its_own) {
            return true;
        }
        let below = level.iter().filter_map(attributes).flat_map(|attributes| attributes.values());
        level = below.filter(|object| !is_plain(object) && met.insert(object.as_ptr())).collect();
        if level.is_empty() || met.len() > MOST_OBJECTS {
            break;
        }
    }
    false
}

fn has_its_own(value: &Bound<'_, PyAny>) -> bool {
    value.get_type().hasattr(intern!(value.py(), "__del__")).unwrap_or(false)
}

fn attributes<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    let attributes = value.getattr(intern!(value.py(), "__dict__")).ok()?.cast_into_exact::<PyDict>().ok()?;
    (attributes.len() <= MOST_ATTRIBUTES).then_some(attributes)
}

/// Whether a value is of one of the types that most results are of.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value::is_scalar(value)
        || value::is_array(value)
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyDict>()
}
