//! Which arguments are so large that they become objects.

use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};
use rustc_hash::FxHashMap;

/// A constant of at least this many bytes goes to the object store.
const BIG: usize = 64 << 10;

/// Classes made at run time come and go: of more than this, all are forgotten and looked at again.
const MOST_CLASSES: usize = 1000;

/// How the size of an object is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// It is always small.
    Small,
    /// So many bytes for each item.
    Items(usize),
    /// It has `nbytes`.
    Bytes,
    /// It has a `shape`, of items of perhaps eight bytes.
    Shape,
}

/// Of classes, by address; the classes are kept alive.
type Sizes = FxHashMap<usize, (Size, Py<PyType>)>;

/// Of the classes of arguments met so far.
static KNOWN: Mutex<Option<Sizes>> = Mutex::new(None);

impl Size {
    /// How the size of instances of a class is found, which are neither functions nor nodes of a graph.
    pub(crate) fn of_instances(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let exactly = |other: Bound<'_, PyType>| class.is(&other);
        let containers = [
            py.get_type::<PyTuple>(),
            py.get_type::<PyList>(),
            py.get_type::<PySet>(),
            py.get_type::<PyFrozenSet>(),
            py.get_type::<PyDict>(),
        ];
        if containers.into_iter().any(exactly) {
            return Ok(Self::Items(8));
        }
        if class.is_subclass_of::<PyString>()?
            || class.is_subclass_of::<PyBytes>()?
            || class.is_subclass_of::<PyByteArray>()?
        {
            return Ok(Self::Items(1));
        }
        Ok(if class.is_subclass_of::<PyType>()? {
            Self::Small
        } else if class.hasattr(intern!(py, "nbytes"))? {
            Self::Bytes
        } else if class.hasattr(intern!(py, "shape"))? {
            Self::Shape
        } else {
            Self::Small
        })
    }

    /// Whether an object whose size is found in this way should not travel with the code of a task.
    pub(crate) fn is_big(self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(match self {
            Self::Small => false,
            Self::Items(bytes) => object.len()? >= BIG / bytes,
            Self::Bytes => bytes_of(object).is_some_and(|bytes| bytes >= BIG as f64),
            Self::Shape => items_of(object).is_some_and(|items| items >= (BIG / 8) as f64),
        })
    }
}

/// Whether an argument should not travel with the code of its task.
pub(crate) fn is_big(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
    {
        return Ok(false);
    }
    let address = object.get_type_ptr() as usize;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|known| {
        let (size, _) = known.get(&address)?;
        Some(*size)
    });
    let size = match known {
        Some(size) => size,
        None => learn(object, address)?,
    };
    size.is_big(object)
}

fn learn(object: &Bound<'_, PyAny>, address: usize) -> PyResult<Size> {
    let class = object.get_type();
    let size = Size::of_instances(&class)?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let table = known.get_or_insert_default();
    let many = if table.len() < MOST_CLASSES { None } else { Some(std::mem::take(table)) };
    let old = table.insert(address, (size, class.unbind()));
    drop(known);
    // Not under the lock: the end of a class may run Python.
    drop((many, old));
    Ok(size)
}

/// `nbytes`, if it is a number.
fn bytes_of(object: &Bound<'_, PyAny>) -> Option<f64> {
    object.getattr(intern!(object.py(), "nbytes")).ok()?.extract().ok()
}

/// How many items its `shape` says it has.
fn items_of(object: &Bound<'_, PyAny>) -> Option<f64> {
    let shape: Vec<f64> = object.getattr(intern!(object.py(), "shape")).ok()?.extract().ok()?;
    Some(shape.iter().product())
}
