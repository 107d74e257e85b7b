//! Bytes of a payload as Python buffers: views and copies.

use std::ffi::c_int;
use std::ops::Range;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::value::Payload;

/// A part of a payload, read-only. Whoever looks at it through the buffer protocol keeps the payload alive: an array
/// that was made of it may outlive everything else.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct Buffer {
    payload: Payload,
    /// Within the payload; checked when this was made.
    range: Range<usize>,
}

impl Buffer {
    /// The bytes `range` of `payload`; `None` if it does not have them.
    pub(crate) fn new(payload: &Payload, range: Range<usize>) -> Option<Self> {
        (**payload).as_ref().get(range.clone())?;
        Some(Self { payload: payload.clone(), range })
    }

    fn bytes(&self) -> &[u8] {
        &(*self.payload).as_ref()[self.range.clone()]
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.range.len()
    }

    /// # Safety
    ///
    /// Called by the interpreter, with a `view` it may fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().bytes();
        let len = ffi::Py_ssize_t::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("buffer too large"))?;
        // SAFETY: the view gets a reference to `slf`, which is frozen and holds the payload, so the bytes stay where they
        // are until the view is released. It is marked read-only, so nobody writes through it.
        let status =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes.as_ptr().cast_mut().cast(), len, 1, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A private copy of a buffer that was read-only where it was pickled, but should be writable here.
///
/// The unpickler makes such a buffer read-only again, unless it finds it so: it asks for any view and looks. Therefore this
/// exports a writable view only to who asks for one, as `NumPy` does when it makes an array of it.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct Copied(pub(crate) Py<PyByteArray>);

#[pymethods]
impl Copied {
    /// # Safety
    ///
    /// Called by the interpreter, with a `view` it may fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: the view is passed on to the bytearray, which fills it and holds itself in it. To say less than what it
        // allows is always right.
        unsafe {
            if ffi::PyObject_GetBuffer(slf.get().0.as_ptr(), view, flags) != 0 {
                return Err(PyErr::fetch(slf.py()));
            }
            if flags & ffi::PyBUF_WRITABLE != ffi::PyBUF_WRITABLE {
                (*view).readonly = 1;
            }
        }
        Ok(())
    }
}
