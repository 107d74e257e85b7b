//! What of the driver's objects the tasks of a worker may share, and what each of them gets for itself.
//!
//! A task may well change a list, a table or an estimator that it is given. Neither another task nor another run of the
//! same task may see that: each gets what the driver sent. Arrays are shared, and read-only.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};
use rustc_hash::FxHashMap;

use crate::contained::{Contained, collecting};
use crate::value;

/// Containers nested deeper are unpickled for each task.
const MOST_DEPTH: u32 = 16;

/// And so are those with more other containers in them.
const MOST_CONTAINERS: usize = 64;

/// Classes made at run time come and go: of more than this, all are forgotten and looked at again.
const MOST_KINDS: usize = 1000;

/// How tasks share an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sharing {
    /// As it is: nothing can change it.
    Whole,
    /// A built-in container of such objects. Each task gets a new container.
    Container,
    /// Built-in containers in each other, each in one place. Each task gets new containers.
    Nested,
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

/// Kinds of classes, by address; the classes are kept alive.
type Kinds = FxHashMap<usize, (Kind, Py<PyType>)>;

/// Of the classes met so far.
static KINDS: Mutex<Option<Kinds>> = Mutex::new(None);

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
    let table = kinds.get_or_insert_default();
    let many = if table.len() < MOST_KINDS { None } else { Some(std::mem::take(table)) };
    let old = table.insert(address, (kind, class.unbind()));
    drop(kinds);
    drop((many, old));
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
    Look { freezing: true, met: Vec::new() }.at(object, 0)
}

/// Whether something that is called never changes.
pub(crate) fn is_unchanging(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(Look { freezing: false, met: Vec::new() }.at(callable, 0)? == Sharing::Whole)
}

/// A look at an object and what is in it.
struct Look {
    freezing: bool,
    /// The containers met that a task may change, by address.
    met: Vec<usize>,
}

impl Look {
    fn at(&mut self, object: &Bound<'_, PyAny>, depth: u32) -> PyResult<Sharing> {
        if is_plain(object) {
            return Ok(Sharing::Whole);
        }
        if depth > MOST_DEPTH {
            return Ok(Sharing::Apart);
        }
        let depth = depth + 1;
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            let worst = self.worst(tuple.iter(), depth)?;
            return Ok(if worst == Sharing::Whole { worst } else { around(worst).max(Sharing::Nested) });
        }
        if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
            return Ok(if_whole(self.worst(set.iter(), depth)?, Sharing::Whole));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return if self.meet(object) { Ok(around(self.worst(list.iter(), depth)?)) } else { Ok(Sharing::Apart) };
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            if !self.meet(object) || self.worst(dict.iter().map(|(key, _)| key), depth)? != Sharing::Whole {
                return Ok(Sharing::Apart);
            }
            return Ok(around(self.worst(dict.iter().map(|(_, value)| value), depth)?));
        }
        if let Ok(set) = object.cast_exact::<PySet>() {
            let worst = if self.meet(object) { self.worst(set.iter(), depth)? } else { Sharing::Apart };
            return Ok(if_whole(worst, Sharing::Container));
        }
        if object.is_exact_instance_of::<PyByteArray>() {
            return Ok(if self.meet(object) { Sharing::Container } else { Sharing::Apart });
        }
        self.at_instance(object, depth)
    }

    /// The same for what is no built-in container.
    fn at_instance(&mut self, object: &Bound<'_, PyAny>, depth: u32) -> PyResult<Sharing> {
        let py = object.py();
        Ok(match kind(object)? {
            Kind::Whole => Sharing::Whole,
            Kind::Partial => {
                let parts = ["func", "args", "keywords"].into_iter().map(|name| object.getattr(name));
                let [function, args, keywords] = parts.collect::<PyResult<Vec<_>>>()?.try_into().expect("three names");
                let mut given = args.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                given.extend(keywords.cast::<PyDict>()?.values());
                given.push(function);
                if_whole(self.worst(given.into_iter(), depth)?, Sharing::Whole)
            }
            Kind::Method => if_whole(self.at(&object.getattr(intern!(py, "__self__"))?, depth)?, Sharing::Whole),
            Kind::Array => {
                static FREEZE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                if self.freezing && value::is_array(object) {
                    value::freeze(object)?;
                } else if self.freezing {
                    FREEZE.import(py, "eagleray._sharing", "freeze")?.call1((object,))?;
                }
                Sharing::Whole
            }
            Kind::Shallow => Sharing::Shallow,
            Kind::Apart => Sharing::Apart,
        })
    }

    /// Of several objects, how the one is shared that is most its task's own.
    fn worst<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: u32) -> PyResult<Sharing> {
        let mut worst = Sharing::Whole;
        for item in items {
            worst = worst.max(self.at(&item, depth)?);
            if worst > Sharing::Nested {
                break;
            }
        }
        Ok(worst)
    }

    /// Notes a container; false if it was met before, as a copy of each place would be another, or if there are many.
    fn meet(&mut self, container: &Bound<'_, PyAny>) -> bool {
        let address = container.as_ptr() as usize;
        let new = self.met.len() < MOST_CONTAINERS && !self.met.contains(&address);
        self.met.push(address);
        new
    }
}

/// How a list or dict is shared of whose items this is the worst.
fn around(worst: Sharing) -> Sharing {
    match worst {
        Sharing::Whole => Sharing::Container,
        Sharing::Container | Sharing::Nested => Sharing::Nested,
        Sharing::Shallow | Sharing::Apart => Sharing::Apart,
    }
}

/// How something is shared that is `otherwise` if what is in it is shared as it is.
fn if_whole(worst: Sharing, otherwise: Sharing) -> Sharing {
    if worst == Sharing::Whole { otherwise } else { Sharing::Apart }
}

/// A copy for one task of an object that is shared in this way, which is none of the two that need no copy.
pub(crate) fn copy<'py>(object: &Bound<'py, PyAny>, sharing: Sharing) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    match sharing {
        Sharing::Nested => return copy_nested(object),
        Sharing::Shallow => return object.call_method1(intern!(py, "copy"), (false,)),
        Sharing::Whole | Sharing::Container | Sharing::Apart => {}
    }
    if let Ok(list) = object.cast_exact::<PyList>() {
        return Ok(list.get_slice(0, list.len()).into_any());
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        return Ok(dict.copy()?.into_any());
    }
    object.call_method0(intern!(py, "copy"))
}

/// Containers anew, and what else is in them as it is.
fn copy_nested<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    if let Ok(list) = object.cast_exact::<PyList>() {
        let copy = list.get_slice(0, list.len());
        for (place, item) in list.iter().enumerate().filter(|(_, item)| !is_plain(item)) {
            copy.set_item(place, copy_nested(&item)?)?;
        }
        return Ok(copy.into_any());
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        let copy = dict.copy()?;
        for (key, value) in dict.iter().filter(|(_, value)| !is_plain(value)) {
            copy.set_item(key, copy_nested(&value)?)?;
        }
        return Ok(copy.into_any());
    }
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        let copy = |item: Bound<'py, PyAny>| if is_plain(&item) { Ok(item) } else { copy_nested(&item) };
        let items = tuple.iter().map(copy).collect::<PyResult<Vec<_>>>()?;
        let same = tuple.iter().zip(&items).all(|(old, new)| old.is(new));
        return Ok(if same { object.clone() } else { PyTuple::new(py, items)?.into_any() });
    }
    if object.is_exact_instance_of::<PySet>() || object.is_exact_instance_of::<PyByteArray>() {
        return object.call_method0(intern!(py, "copy"));
    }
    Ok(object.clone())
}

thread_local! {
    /// Of what this thread decodes.
    static FOREIGN: Cell<bool> = const { Cell::new(false) };
}

/// Decodes something; tells as well whether a deserializer of the user's made some of it.
pub(crate) fn noting_foreign<T>(decode: impl FnOnce() -> PyResult<T>) -> PyResult<(T, bool)> {
    // What is decoded may decode something else meanwhile.
    let outer = FOREIGN.replace(false);
    let decoded = decode();
    let foreign = FOREIGN.replace(outer);
    Ok((decoded?, foreign))
}

#[pyfunction]
pub(crate) fn note_foreign() {
    FOREIGN.set(true);
}

/// An object from which each task gets one of its own.
pub(crate) struct Snapshot {
    pickle: Py<PyAny>,
    /// The memory of its arrays, if there are any.
    buffers: Option<Py<PyAny>>,
    /// The objects that it names.
    _contained: Contained,
}

impl Snapshot {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        static TAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let take = TAKE.import(object.py(), "eagleray._sharing", "snapshot")?;
        let (taken, contained) = collecting(|| take.call1((object,)))?;
        let (pickle, buffers) = taken.extract()?;
        Ok(Self { pickle, buffers, _contained: contained })
    }

    pub(crate) fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let loads = LOADS.import(py, "pickle", "loads")?;
        let Some(buffers) = &self.buffers else { return loads.call1((&self.pickle,)) };
        let options = PyDict::new(py);
        options.set_item(intern!(py, "buffers"), buffers)?;
        loads.call((&self.pickle,), Some(&options))
    }
}
