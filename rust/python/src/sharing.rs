//! What of the driver's objects the tasks of a worker may share, and what each of them gets for itself.
//!
//! A task may well change a list, a table or an estimator that it is given. Neither another task nor another run of the
//! same task may see that: each gets what the driver sent. Arrays are shared, and read-only.

use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};
use rustc_hash::FxHashMap;

use crate::value;

/// Tuples nested deeper are unpickled for each task.
const MOST_DEPTH: u32 = 16;

/// How tasks share an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sharing {
    /// As it is: nothing can change it.
    Whole,
    /// A built-in container of such objects. Each task gets a new container.
    Container,
    /// Each task gets a copy that has the data in common with it.
    Shallow,
    /// Each task gets one that is unpickled for it.
    Apart,
}

/// What `eagleray._sharing.kind` says.
#[derive(Clone, Copy)]
enum Kind {
    Whole,
    Partial,
    Method,
    Array,
    Shallow,
    Apart,
}

/// The kinds of the classes met so far, by address; the classes are kept alive.
static KINDS: Mutex<Option<FxHashMap<usize, (Kind, Py<PyType>)>>> = Mutex::new(None);

fn kind(object: &Bound<'_, PyAny>) -> PyResult<Kind> {
    static ASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let address = object.get_type_ptr() as usize;
    let known = KINDS.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|kinds| {
        let (kind, _) = kinds.get(&address)?;
        Some(*kind)
    });
    if let Some(kind) = known {
        return Ok(kind);
    }
    let class = object.get_type();
    let kind = match ASK.import(object.py(), "eagleray._sharing", "kind")?.call1((&class,))?.extract()? {
        0 => Kind::Whole,
        1 => Kind::Partial,
        2 => Kind::Method,
        3 => Kind::Array,
        4 => Kind::Shallow,
        _ => Kind::Apart,
    };
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    let old = kinds.get_or_insert_default().insert(address, (kind, class.unbind()));
    drop(kinds);
    drop(old);
    Ok(kind)
}

/// Whether an object is of a type that nothing can change, as far as that is seen at once.
fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyBytes>()
}

/// How tasks share what the driver sent. Arrays in it, as far as they are found at once, are made read-only.
pub(crate) fn freeze(object: &Bound<'_, PyAny>) -> PyResult<Sharing> {
    look(object, 0, true)
}

/// Whether something that is called never changes.
pub(crate) fn is_unchanging(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(look(callable, 0, false)? == Sharing::Whole)
}

fn look(object: &Bound<'_, PyAny>, depth: u32, freezing: bool) -> PyResult<Sharing> {
    if is_plain(object) {
        return Ok(Sharing::Whole);
    }
    if depth > MOST_DEPTH {
        return Ok(Sharing::Apart);
    }
    let all_whole = |items: &mut dyn Iterator<Item = Bound<'_, PyAny>>| -> PyResult<bool> {
        for item in items {
            if look(&item, depth + 1, freezing)? != Sharing::Whole {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let (whole, sharing) = if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        (all_whole(&mut tuple.iter())?, Sharing::Whole)
    } else if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
        (all_whole(&mut set.iter())?, Sharing::Whole)
    } else if let Ok(list) = object.cast_exact::<PyList>() {
        (all_whole(&mut list.iter())?, Sharing::Container)
    } else if let Ok(dict) = object.cast_exact::<PyDict>() {
        (all_whole(&mut dict.iter().flat_map(|(key, value)| [key, value]))?, Sharing::Container)
    } else if let Ok(set) = object.cast_exact::<PySet>() {
        (all_whole(&mut set.iter())?, Sharing::Container)
    } else if object.is_exact_instance_of::<PyByteArray>() {
        (true, Sharing::Container)
    } else {
        let py = object.py();
        match kind(object)? {
            Kind::Whole => (true, Sharing::Whole),
            Kind::Partial => {
                let parts = ["func", "args", "keywords"].into_iter().map(|name| object.getattr(name));
                let [function, args, keywords] = parts.collect::<PyResult<Vec<_>>>()?.try_into().expect("three names");
                let mut given = args.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                given.extend(keywords.cast::<PyDict>()?.values());
                given.push(function);
                (all_whole(&mut given.into_iter())?, Sharing::Whole)
            }
            Kind::Method => {
                let of = object.getattr(intern!(py, "__self__"))?;
                (all_whole(&mut std::iter::once(of))?, Sharing::Whole)
            }
            Kind::Array if freezing => {
                static FREEZE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                if value::is_array(object) {
                    value::freeze(object)?;
                } else {
                    FREEZE.import(py, "eagleray._sharing", "freeze")?.call1((object,))?;
                }
                (true, Sharing::Whole)
            }
            Kind::Array => (true, Sharing::Whole),
            Kind::Shallow => (true, Sharing::Shallow),
            Kind::Apart => (false, Sharing::Apart),
        }
    };
    Ok(if whole { sharing } else { Sharing::Apart })
}

/// A copy for one task of an object that is shared as a container or shallowly.
pub(crate) fn copy<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    if let Ok(list) = object.cast_exact::<PyList>() {
        return Ok(list.get_slice(0, list.len()).into_any());
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        return Ok(dict.copy()?.into_any());
    }
    if object.is_exact_instance_of::<PySet>() || object.is_exact_instance_of::<PyByteArray>() {
        return object.call_method0(intern!(py, "copy"));
    }
    object.call_method1(intern!(py, "copy"), (false,))
}

/// An object from which each task gets one of its own.
pub(crate) struct Snapshot {
    pickle: Py<PyAny>,
    /// The memory of its arrays.
    buffers: Py<PyAny>,
}

impl Snapshot {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        static TAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (pickle, buffers) =
            TAKE.import(object.py(), "eagleray._sharing", "snapshot")?.call1((object,))?.extract()?;
        Ok(Self { pickle, buffers })
    }

    pub(crate) fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let options = PyDict::new(py);
        options.set_item(intern!(py, "buffers"), &self.buffers)?;
        LOADS.import(py, "pickle", "loads")?.call((&self.pickle,), Some(&options))
    }
}
