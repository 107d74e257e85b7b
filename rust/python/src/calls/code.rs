//! What is called, pickled once for many calls.

use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use rustc_hash::FxHasher;

use crate::contained::Contained;
use crate::failures::Names;
use crate::pickles::dump_function;

/// So many tuples of keyword names are kept. Most functions are called with one or two.
const MOST_NAMES: usize = 16;

/// See `_native.pyi`.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct RemoteCode {
    /// For messages.
    pub(super) target: Py<PyAny>,
    pub(super) pickle: Bytes,
    /// The refs in it are held as long as it is there.
    pub(super) contained: Contained,
    /// The same for the same pickle.
    pub(super) fingerprint: u64,
    /// Keyword names of earlier calls, and their pickles.
    names: Mutex<Vec<(Py<PyTuple>, Bytes)>>,
}

impl RemoteCode {
    /// The pickle of the tuple of these keyword names.
    pub(super) fn names(&self, names: &Bound<'_, PyTuple>) -> PyResult<Bytes> {
        // Names are interned strings nearly always, so their addresses mostly tell.
        let same = |known: &Py<PyTuple>| {
            let known = known.bind(names.py());
            known.len() == names.len() && known.iter_borrowed().zip(names.iter_borrowed()).all(|(a, b)| a.is(&*b))
        };
        let mut kept = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pickle)) = kept.iter().find(|(known, _)| same(known)) {
            return Ok(pickle.clone());
        }
        drop(kept);
        let (pickle, _) = dump_function(names.as_any())?;
        kept = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_NAMES {
            kept.push((names.clone().unbind(), pickle.clone()));
        }
        Ok(pickle)
    }

    /// A call of it, as messages take one apart.
    pub(super) fn as_called<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Py<PyAny>> {
        let py = args.py();
        let partial = py.import("functools")?.getattr("partial")?;
        let all = PyTuple::new(py, [self.target.bind(py)])?.add(args)?;
        Ok(partial.call(all.cast::<PyTuple>()?, Some(kwargs))?.unbind())
    }
}

#[pymethods]
impl RemoteCode {
    #[new]
    #[pyo3(signature = (target, shown=None, /))]
    fn new<'py>(target: &Bound<'py, PyAny>, shown: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        let py = target.py();
        let (pickle, contained) = dump_function(target).map_err(|cause| {
            let target = shown.unwrap_or(target);
            // Where a call of the target would stand, so that it is called the function.
            let refused = || -> PyResult<PyErr> {
                let name = match target.getattr_opt(intern!(py, "__qualname__"))? {
                    Some(name) => name,
                    None => target.get_type().qualname()?.into_any(),
                };
                let call = PyTuple::new(py, [target])?.into_any().unbind();
                let names = Names { keys: &[name.unbind()], nodes: &[call], externals: [&[], &[]] };
                Ok(names.not_picklable(target, cause))
            };
            refused().unwrap_or_else(|error| error)
        })?;
        let mut hasher = FxHasher::default();
        hasher.write(&pickle);
        let fingerprint = hasher.finish();
        Ok(Self {
            target: shown.unwrap_or(target).clone().unbind(),
            pickle,
            contained,
            fingerprint,
            names: Mutex::default(),
        })
    }
}

/// The pickle of the function that takes a part of a result.
pub(super) fn part_function(py: Python<'_>) -> PyResult<&Bytes> {
    static PART: PyOnceLock<Bytes> = PyOnceLock::new();
    PART.get_or_try_init(py, || Ok(dump_function(&py.import("eagleray._remote_parts")?.getattr("part")?)?.0))
}
