//! Objects that go as plain pickles, and encoded values as payloads.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::ids::ObjectId;
use eagleray_runtime::client::{Client, ClientError};
use eagleray_runtime::program::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};

use crate::contained::{Contained, collecting};
use crate::role::{Role, raise};
use crate::value::{self, Encoded, Payload};

/// The longest pickle that goes with a run, in bytes. A frame takes several, and is refused if it is longer than 1 GiB.
const MOST_BYTES: usize = 512 << 20;

fn check_length(bytes: usize) -> PyResult<()> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "it has {:.1} MiB when pickled, and at most {} MiB travel with the code of tasks. Put large data into the object store \
         with eagleray.put() and pass the ref: the task sees the value.",
        bytes as f64 / f64::from(1 << 20),
        MOST_BYTES >> 20
    )))
}

/// The pickle of something that tasks call: with plain pickle, or with cloudpickle what that refuses and what names
/// `__main__`. With the objects that it names.
pub(crate) fn dump_function(function: &Bound<'_, PyAny>) -> PyResult<(Bytes, Contained)> {
    static DUMP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dump = DUMP.import(function.py(), "eagleray._pickling", "dump_function")?;
    let (bytes, contained) = collecting(|| dump.call1((function,)))?;
    let bytes = bytes.cast::<PyBytes>()?.as_bytes();
    check_length(bytes.len())?;
    Ok((Bytes::copy_from_slice(bytes), contained))
}

/// Encodes constants of tasks, which are to be read-only in workers. With the objects that they name.
pub(crate) fn dump_constants(constants: &Bound<'_, PyAny>) -> PyResult<(Bytes, Contained)> {
    let mut encoded = value::encode_to_share(constants)?;
    check_length(encoded.len())?;
    Ok((encoded.to_vec().into(), encoded.take_contained()))
}

/// Encodes the constants of a batch; if that fails, `explain` makes the error for the one that is the reason.
pub(crate) fn dump_batch(
    py: Python<'_>,
    constants: &[Py<PyAny>],
    explain: impl Fn(&Bound<'_, PyAny>, PyErr) -> PyErr,
) -> PyResult<(Bytes, Contained)> {
    dump_constants(PyList::new(py, constants)?.as_any()).map_err(|error| {
        let culprit = |constant: &Py<PyAny>| {
            let constant = constant.bind(py);
            Some(explain(constant, dump_constants(constant).err()?))
        };
        constants.iter().find_map(culprit).unwrap_or(error)
    })
}

/// A value's bytes, for decoding.
pub(crate) fn payload(value: Value) -> Payload {
    match value {
        Value::Inline(bytes) => Arc::new(bytes),
        Value::Sealed(block) => Arc::new(block),
    }
}

/// Stores a value where this process keeps what it publishes.
pub(crate) fn store(client: &Client, encoded: &Encoded) -> Result<Value, ClientError> {
    client.store(encoded.len(), &mut |target| encoded.write_to(target))
}

/// Makes an encoded value an object, which is held once.
pub(crate) fn put(role: &Role, mut value: Encoded) -> PyResult<ObjectId> {
    let contained = value.take_contained();
    let stored = store(&role.client, &value).map_err(raise)?;
    role.client.put(stored, contained.objects()).map_err(raise)
}

/// The same for a constant of a graph.
pub(crate) fn put_literal(role: &Role, mut value: Encoded) -> PyResult<ObjectId> {
    let contained = value.take_contained();
    let stored = store(&role.client, &value).map_err(raise)?;
    role.client.put_literal(stored, contained.objects()).map_err(raise)
}
