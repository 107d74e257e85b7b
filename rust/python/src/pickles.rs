//! Objects that go as plain pickles, and encoded values as payloads.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_runtime::client::{Client, ClientError};
use eagleray_runtime::program::Value;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

use crate::role::raise;
use crate::value::{self, Encoded, Payload};

/// The pickle of something that tasks call: with plain pickle, or with cloudpickle what that refuses and what names
/// `__main__`.
pub(crate) fn dump_function(function: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    static DUMP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dump = DUMP.import(function.py(), "eagleray._pickling", "dump_function")?;
    let bytes = dump.call1((function,))?;
    Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()))
}

/// Encodes constants of tasks, which are to be read-only in workers.
pub(crate) fn dump_constants(constants: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    Ok(value::encode_to_share(constants)?.to_vec().into())
}

/// A value's bytes, for decoding.
pub(crate) fn payload(value: Value) -> Payload {
    match value {
        Value::Inline(bytes) => Arc::new(bytes),
        Value::Sealed(block) => Arc::new(block),
    }
}

/// Encodes an object and stores it where this process keeps what it publishes.
pub(crate) fn store(client: &Client, object: &Bound<'_, PyAny>) -> PyResult<Value> {
    let encoded = value::encode(object.py(), object)?;
    store_encoded(client, &encoded).map_err(raise)
}

/// The same for what is encoded already.
pub(crate) fn store_encoded(client: &Client, encoded: &Encoded) -> Result<Value, ClientError> {
    client.store(encoded.len(), &mut |target| encoded.write_to(target))
}
