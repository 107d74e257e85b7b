//! Values as bytes: pickle 5 with buffers out of band.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | [`MAGIC`] |
//! | 4 | number of parts, `n >= 1` |
//! | n × 16 | offset and length of each part; the length's highest bit says that the buffer was read-only |
//! | the rest | the parts; all but the first begin at a multiple of [`ALIGN`] |
//!
//! All numbers are little-endian. The first part is the pickle, the others are its buffers, in their order. A `bytes` object
//! has no buffer of its own in a pickle; a large one travels as a single buffer behind an empty pickle.

use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::buffer::{Buffer, Copied};
use crate::contained::{Contained, collecting};
use crate::raw::Contiguous;

/// Bytes somebody owns: an inline message part or a block of shared memory. They must stay in one place, unchanged,
/// as long as this is held.
pub(crate) type Payload = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The first word of an encoded value.
const MAGIC: u32 = u32::from_le_bytes(*b"erv1");

/// Parts behind the pickle begin at multiples of this, in bytes: what vector instructions and Arrow like.
const ALIGN: usize = 64;

/// From this size on, in bytes, a buffer is kept out of the pickle.
const OUT_OF_BAND: usize = 4096;

/// Marks a length.
const READ_ONLY: u64 = 1 << 63;

const PROTOCOL: u8 = 5;
const HEADER: usize = 8;
const ENTRY: usize = 16;

/// A pickled value, not yet copied to where it goes: the pickle, and the memory of the value that stands beside it. The
/// value must not be changed before [`Encoded::write_to`].
pub(crate) struct Encoded {
    /// The first is the pickle.
    sources: Vec<Contiguous>,
    /// Where each goes.
    parts: Vec<Range<usize>>,
    contained: Contained,
}

impl Encoded {
    fn new(sources: Vec<Contiguous>, contained: Contained) -> Self {
        let mut end = HEADER + ENTRY * sources.len();
        let mut parts = Vec::with_capacity(sources.len());
        for (place, source) in sources.iter().enumerate() {
            let offset = if place == 0 { end } else { end.next_multiple_of(ALIGN) };
            end = offset + source.bytes().len();
            parts.push(offset..end);
        }
        Self { sources, parts, contained }
    }

    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Writes it to the first [`Encoded::len`] bytes of `target`, which should begin at a multiple of 64. Panics if there
    /// are fewer. Gaps between parts are zeroed, so that no old bytes of a shared block get out. Needs no interpreter: a large
    /// value may be copied while other threads run Python.
    pub(crate) fn write_to(&self, target: &mut [u8]) {
        target[..4].copy_from_slice(&MAGIC.to_le_bytes());
        target[4..HEADER].copy_from_slice(&(self.parts.len() as u32).to_le_bytes());
        let mut written = HEADER;
        for (part, source) in self.parts.iter().zip(&self.sources) {
            let mark = if source.readonly() { READ_ONLY } else { 0 };
            target[written..written + 8].copy_from_slice(&(part.start as u64).to_le_bytes());
            target[written + 8..written + ENTRY].copy_from_slice(&(part.len() as u64 | mark).to_le_bytes());
            written += ENTRY;
        }
        for (part, source) in self.parts.iter().zip(&self.sources) {
            target[written..part.start].fill(0);
            target[part.clone()].copy_from_slice(source.bytes());
            written = part.end;
        }
    }

    /// The objects that it names, held as long as this is there or what was taken from it.
    pub(crate) fn take_contained(&mut self) -> Contained {
        std::mem::take(&mut self.contained)
    }

    /// Its bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.write_to(&mut bytes);
        bytes
    }
}

fn contiguous(object: &Bound<'_, PyAny>) -> PyResult<Contiguous> {
    let buffer = Contiguous::new(PyUntypedBuffer::get(object)?);
    buffer.ok_or_else(|| PyBufferError::new_err("cannot take a non-contiguous buffer out of band"))
}

/// The pickler's `buffer_callback`.
#[pyclass(frozen)]
struct Collector {
    buffers: Mutex<Vec<Contiguous>>,
    /// Writable buffers of fewer bytes stay in the pickle.
    least: usize,
}

#[pymethods]
impl Collector {
    /// Takes a buffer out of band, or answers `True`: it shall stay in the pickle. A small read-only buffer is taken too,
    /// because in the pickle it would become `bytes`, and nobody could decode it to writable data. (In the pickle, a
    /// writable one becomes a `bytearray`.)
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> bool {
        // An array without dimensions has a buffer without a shape, which PyO3 does not take.
        let Ok(buffer) = contiguous(buffer) else { return true };
        if buffer.len() < self.least && !buffer.readonly() {
            return true;
        }
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        false
    }
}

/// Pickles a value: with plain pickle, or with cloudpickle what that refuses and what names `__main__`, which is another
/// module in another process. The error is that of the pickler.
pub(crate) fn encode(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        if bytes.as_bytes().len() >= OUT_OF_BAND {
            let no_pickle = PyBytes::new(py, &[]);
            let sources = vec![contiguous(&no_pickle)?, contiguous(value)?];
            return Ok(Encoded::new(sources, Contained::default()));
        }
    }
    if is_scalar(value) {
        static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let plain = DUMPS.import(py, "pickle", "dumps")?;
        let pickle = plain.call1((value, PROTOCOL))?;
        return Ok(Encoded::new(vec![contiguous(&pickle)?], Contained::default()));
    }
    dump(value, OUT_OF_BAND)
}

/// Pickles as [`encode`] does, with all buffers out of band: decoded without `copy`, every array is read-only, however small
/// and wherever it is in the value.
pub(crate) fn encode_to_share(value: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    dump(value, 0)
}

fn dump(value: &Bound<'_, PyAny>, least: usize) -> PyResult<Encoded> {
    let (sources, contained) = collecting(|| dump_parts(value, least))?;
    Ok(Encoded::new(sources, contained))
}

fn dump_parts(value: &Bound<'_, PyAny>, least: usize) -> PyResult<Vec<Contiguous>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static CLOUD_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

    let py = value.py();
    match dump_with(DUMPS.import(py, "pickle", "dumps")?, value, least) {
        Ok((pickle, sources)) if !names_main(&pickle)? => return Ok(sources),
        Err(error) if !error.is_instance_of::<PyException>(py) => return Err(error),
        _ => {}
    }
    Ok(dump_with(CLOUD_DUMPS.import(py, "cloudpickle", "dumps")?, value, least)?.1)
}

/// Whether a pickle may refer to the module `__main__`, or to another that is sent by value. Text that only says so costs a second pickling.
fn names_main(pickle: &Bound<'_, PyAny>) -> PyResult<bool> {
    static MAIN: PyOnceLock<Py<PyBytes>> = PyOnceLock::new();
    let py = pickle.py();
    if pickle.contains(MAIN.get_or_init(py, || PyBytes::new(py, b"__main__").unbind()))? {
        return Ok(true);
    }
    let others = BY_VALUE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for name in &*others {
        if pickle.contains(PyBytes::new(py, name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names of modules that other processes cannot import.
static BY_VALUE: LazyLock<Mutex<Arc<Vec<Vec<u8>>>>> = LazyLock::new(Mutex::default);

/// What refers to this module is pickled by value from now on.
pub(crate) fn name_by_value(name: Vec<u8>) {
    let mut names = BY_VALUE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::make_mut(&mut names).push(name);
}

/// Whether a value is of a type that has neither buffers nor a module.
pub(crate) fn is_scalar(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_none()
}

/// The pickle, and all parts of the encoded value, which begin with it.
fn dump_with<'py>(
    dumps: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    least: usize,
) -> PyResult<(Bound<'py, PyAny>, Vec<Contiguous>)> {
    let py = value.py();
    let collector = Bound::new(py, Collector { buffers: Mutex::default(), least })?;
    let options = PyDict::new(py);
    options.set_item(intern!(py, "protocol"), PROTOCOL)?;
    options.set_item(intern!(py, "buffer_callback"), &collector)?;
    let pickle = dumps.call((value,), Some(&options))?;
    let mut sources = vec![contiguous(&pickle)?];
    sources.append(&mut collector.get().buffers.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((pickle, sources))
}

/// Unpickles what [`encode`] has made: onto read-only views of the payload, or with `copy` onto private writable data. The
/// error is that of the unpickler, or a `ValueError` for bytes that are no encoded value.
pub(crate) fn decode<'py>(py: Python<'py>, payload: &Payload, copy: bool) -> PyResult<Bound<'py, PyAny>> {
    let bytes = (**payload).as_ref();
    let parts = parts(bytes).ok_or_else(malformed)?;
    let (pickle, beside) = parts.split_first().ok_or_else(malformed)?;
    if pickle.range.is_empty() {
        let [only] = beside else { return Err(malformed()) };
        return Ok(PyBytes::new(py, &bytes[only.range.clone()]).into_any());
    }
    let buffers = PyList::empty(py);
    for part in beside {
        if !copy {
            buffers.append(view(py, payload, part.range.clone())?)?;
            continue;
        }
        let copied = PyByteArray::new(py, &bytes[part.range.clone()]);
        if part.read_only {
            buffers.append(Bound::new(py, Copied(copied.unbind()))?)?;
        } else {
            buffers.append(copied)?;
        }
    }
    let value = unpickle(py, view(py, payload, pickle.range.clone())?, &buffers)?;
    if !copy {
        freeze(&value)?;
    }
    Ok(value)
}

fn malformed() -> PyErr {
    PyValueError::new_err("not an encoded value")
}

struct Part {
    range: Range<usize>,
    read_only: bool,
}

/// Where the parts are, if every number is in order: there is a pickle, and no part begins before the one in front of it
/// ends or ends behind the payload.
fn parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let (&magic, rest) = bytes.split_first_chunk::<4>()?;
    let (&count, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(count)).ok()?;
    // Also bounds what is allocated below by the payload's own size.
    let table = rest.get(..count.checked_mul(ENTRY)?)?;
    if u32::from_le_bytes(magic) != MAGIC || count == 0 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let mut end = HEADER + table.len();
    let mut parts = Vec::with_capacity(count);
    for entry in table.chunks_exact(ENTRY) {
        let start = usize::try_from(number(&entry[..8])?).ok()?;
        let len = number(&entry[8..])?;
        if start < end {
            return None;
        }
        end = start.checked_add(usize::try_from(len & !READ_ONLY).ok()?)?;
        if end > bytes.len() {
            return None;
        }
        parts.push(Part { range: start..end, read_only: len & READ_ONLY != 0 });
    }
    Some(parts)
}

fn view<'py>(py: Python<'py>, payload: &Payload, range: Range<usize>) -> PyResult<Bound<'py, Buffer>> {
    let buffer = Buffer::new(payload, range).ok_or_else(malformed)?;
    Bound::new(py, buffer)
}

fn unpickle<'py>(
    py: Python<'py>,
    pickle: Bound<'py, Buffer>,
    buffers: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(py, "pickle", "loads")?;
    if buffers.is_empty() {
        return loads.call1((pickle,));
    }
    let options = PyDict::new(py);
    options.set_item(intern!(py, "buffers"), buffers)?;
    loads.call((pickle,), Some(&options))
}

/// Unpickles a plain pickle, without buffers beside it. The error is that of the unpickler.
pub(crate) fn load<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    let range = 0..(**payload).as_ref().len();
    unpickle(py, view(py, payload, range)?, &PyList::empty(py))
}

/// The type `numpy.ndarray`, if this process has imported `NumPy`.
fn ndarray(py: Python<'_>) -> Option<&Bound<'_, PyAny>> {
    static NDARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Some(known) = NDARRAY.get(py) {
        return Some(known.bind(py));
    }
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.import(py, "sys", "modules").ok()?;
    let numpy = modules.get_item(intern!(py, "numpy")).ok()??;
    // It may be half imported; then there is no array yet either.
    let found = numpy.getattr(intern!(py, "ndarray")).ok()?;
    Some(NDARRAY.get_or_init(py, || found.unbind()).bind(py))
}

/// Whether a value is a `numpy.ndarray` and of no subclass.
pub(crate) fn is_array(value: &Bound<'_, PyAny>) -> bool {
    ndarray(value.py()).is_some_and(|known| std::ptr::eq(known.as_ptr().cast(), value.get_type_ptr()))
}

/// Makes an array read-only. Anything else stays as it is.
pub(crate) fn freeze(value: &Bound<'_, PyAny>) -> PyResult<()> {
    if is_array(value) {
        value.call_method1(intern!(value.py(), "setflags"), (false,))?;
    }
    Ok(())
}
