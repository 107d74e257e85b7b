//! What a process that is started takes over of its parent's descriptors: the standard three alone.
//!
//! Python and Rust open files so that children do not inherit them, but libraries in C often do not: HDF5 locks a file
//! through its descriptor, and the lock would last as long as some child has it.

use std::ffi::c_uint;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the process of this command inherit none of the descriptors from 3 on.
///
/// A kernel older than 5.11 does not know the request; there it inherits what is not marked otherwise.
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
                Some(libc::ENOSYS | libc::EINVAL) => Ok(()),
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

    #[test]
    fn a_program_that_does_not_exist_is_still_reported() {
        let mut command = Command::new("/nonexistent/program");
        inherit_standard_streams_only(&mut command);
        assert_eq!(command.spawn().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
