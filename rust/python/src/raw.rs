//! What only `unsafe` can do, behind functions that are safe to call. The other place is `buffer`, where the interpreter
//! asks for bytes.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::Error;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

unsafe extern "C" {
    /// Part of the stable ABI from 3.12 on only, which is why `pyo3` does not declare it for us, but 3.11 exports the same
    /// function. It spares a tuple for each call.
    fn PyObject_Vectorcall(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        kwnames: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;

    static stdout: *mut c_void;
    fn setvbuf(stream: *mut c_void, buffer: *mut c_char, mode: c_int, size: usize) -> c_int;
}

/// The callee may change `args[-1]` for the time of the call, so that a bound method needs no copy of its arguments.
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

/// Calls `frame[0]` with the rest of the frame as its arguments, the last of which have these names. The names must be
/// strings. Raises what the callee raises, or `RuntimeError` for a frame that is too short.
pub(crate) fn call(py: Python<'_>, frame: &mut [Py<PyAny>], names: Option<&Bound<'_, PyTuple>>) -> PyResult<Py<PyAny>> {
    let named = names.map_or(0, PyTupleMethods::len);
    let Some(positional) = frame.len().checked_sub(1 + named) else {
        return Err(PyRuntimeError::new_err("a call has fewer arguments than it names"));
    };
    let names = names.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // A `Py` is a pointer to its object and nothing else.
    let frame: *mut *mut ffi::PyObject = frame.as_mut_ptr().cast();
    // SAFETY: the frame holds the callable and, behind it, `positional + named` arguments: that it is long enough was
    // checked. It is borrowed mutably, so nobody else touches it until the call returns, and the callee restores what it
    // changes. The names are a tuple of `named` objects. The result is ours, or null with an exception set.
    unsafe {
        let result = PyObject_Vectorcall(*frame, frame.add(1), positional | ARGUMENTS_OFFSET, names);
        Bound::from_owned_ptr_or_err(py, result).map(Bound::unbind)
    }
}

/// A buffer whose bytes lie in a row, in whatever order of dimensions.
pub(crate) struct Contiguous(PyUntypedBuffer);

impl Contiguous {
    /// The buffer, or nothing if its bytes do not lie in a row.
    pub(crate) fn new(buffer: PyUntypedBuffer) -> Option<Self> {
        (buffer.is_c_contiguous() || buffer.is_fortran_contiguous()).then_some(Self(buffer))
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Whether its exporter lets nobody write through it.
    pub(crate) fn readonly(&self) -> bool {
        self.0.readonly()
    }

    /// Its bytes. Nobody may write to them meanwhile: [`crate::value::Encoded`] asks that of its user.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the exporter keeps these bytes in place while the buffer is held, and they are contiguous, as `new` has
        // seen. That nobody writes to them for the moment is what this function asks for.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast_const().cast(), self.len()) }
    }
}

/// Takes a file descriptor over. It must be open and nobody else's. Raises `ValueError` for a negative number.
pub(crate) fn own(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(PyValueError::new_err(format!("{fd} is no file descriptor")));
    }
    // SAFETY: it is not negative; the caller gives it up. A number that is not open makes later calls fail with EBADF.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What C code prints is seen when it prints it, though the worker's output is no terminal.
pub(crate) fn buffer_lines_of_c() {
    const LINES: c_int = 1;
    // SAFETY: the stream is the C library's own, which locks it, and its buffer is left to it.
    unsafe { setvbuf(stdout, std::ptr::null_mut(), LINES, 0) };
}

/// Python handles SIGINT soon, on the main thread, as if the process had received it.
pub(crate) fn signal_interrupt() {
    // SAFETY: it may be called from any thread, with or without the GIL; it only notes that the signal is to be handled.
    unsafe { ffi::PyErr_SetInterrupt() }
}

/// Has the process of this command inherit none of the descriptors from 3 on.
///
/// Python and Rust open files so that children do not inherit them, but libraries in C often do not: HDF5 locks a file
/// through its descriptor, and the lock would last as long as some child has it.
///
/// A kernel older than 5.11 does not know the request, and a container whose rules are older than it forbids it; there it
/// inherits what is not marked otherwise.
pub(crate) fn inherit_standard_streams_only(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec in a copy of a process with threads. It makes one system call, and
    // neither allocates nor takes a lock. The call only marks descriptors of that copy: they are closed by its exec, not now,
    // so that the pipe by which it reports a failed exec still works.
    unsafe {
        command.pre_exec(|| {
            const FIRST: c_uint = 3;
            let marked = libc::syscall(libc::SYS_close_range, FIRST, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if marked == 0 {
                return Ok(());
            }
            let error = Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EINVAL | libc::EPERM) => Ok(()),
                _ => Err(error),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Stdio;

    use rustix::io::{FdFlags, fcntl_setfd};

    use super::*;

    #[test]
    fn a_file_that_any_child_would_inherit_is_not_inherited() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let is_open = |restricted: bool| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("test -e /proc/self/fd/{}", file.as_raw_fd())]).stdin(Stdio::null());
            if restricted {
                inherit_standard_streams_only(&mut command);
            }
            command.status().unwrap().success()
        };
        assert!(is_open(false));
        assert!(!is_open(true));
    }

    /// Has the request answered as by a container that does not know it.
    fn forbid_close_range(command: &mut Command) {
        let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        let answer = |k| step((libc::BPF_RET | libc::BPF_K) as u16, k, 0, 0);
        let mut steps = [
            // The number of the call comes first.
            step((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
            step((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, libc::SYS_close_range as u32, 0, 1),
            answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            answer(libc::SECCOMP_RET_ALLOW),
        ];
        // SAFETY: between fork and exec, only system calls are made; the program lies in the closure, which outlives them.
        unsafe {
            command.pre_exec(move || {
                let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
                let set = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0;
                if set { Ok(()) } else { Err(Error::last_os_error()) }
            });
        }
    }

    #[test]
    fn where_it_is_forbidden_the_process_starts_all_the_same() {
        let mut command = Command::new("/bin/true");
        forbid_close_range(&mut command);
        inherit_standard_streams_only(&mut command);
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_program_that_does_not_exist_is_still_reported() {
        let mut command = Command::new("/nonexistent/program");
        inherit_standard_streams_only(&mut command);
        assert_eq!(command.spawn().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
