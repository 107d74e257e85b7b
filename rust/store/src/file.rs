//! The files behind segments: memfds, and unlinked files where memory may not grow any more.
//!
//! All of them are sparse, and no part is touched before [`reserve`] has made the kernel commit to it. Writing to a hole
//! of a mapped file raises SIGBUS if there is neither memory nor disk for it at that moment; after a reservation it
//! cannot happen, and lack of room is an error of a system call instead. Two things stay beyond our reach: a machine
//! (or control group) short of memory may kill processes rather than fail the reservation, and a copy-on-write file
//! system such as btrfs may need new room for what it has promised.
//!
//! A reservation does not zero the memory, that happens at the first touch as ever; so it costs nothing on the whole.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, fstatvfs, ftruncate,
    memfd_create,
};
use rustix::io::{Errno, pwrite, retry_on_intr};

use crate::StoreError;
use crate::location::Backing;

/// Bytes reserved by one system call. A signal makes `fallocate` undo the whole call; were it all in one, a process
/// whose profiling timer fires often would never get through.
const STEP: u64 = 32 << 20;

/// A memfd of `size` bytes that can neither shrink nor grow; sparse.
pub(crate) fn memory(name: &str, size: u64) -> Result<OwnedFd, StoreError> {
    let fd =
        memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(StoreError::os("memfd_create"))?;
    truncate(&fd, size)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(StoreError::os("fcntl(F_ADD_SEALS)"))?;
    Ok(fd)
}

/// A file of `size` bytes in `directory` that has lost its name already; sparse. `None` if there is a file `name`.
pub(crate) fn unlinked(directory: &Path, name: &str, size: u64) -> Result<Option<OwnedFd>, StoreError> {
    let path = directory.join(name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::EXIST) => return Ok(None),
        opened => opened.map_err(disk(size, "open in the escape directory"))?,
    };
    fs::unlink(&path).map_err(StoreError::os("unlink"))?;
    truncate(&fd, size)?;
    Ok(Some(fd))
}

/// Another descriptor of the file, open for reading only: who gets it cannot map the segment writable by mistake.
pub(crate) fn read_only(fd: BorrowedFd<'_>) -> Result<OwnedFd, StoreError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(StoreError::os("open of /proc/self/fd"))
}

/// Makes the kernel commit to `len` bytes from `offset` on, so that writing to them cannot fail.
///
/// # Errors
/// [`StoreError::DiskFull`] for a file, [`StoreError::Full`] for memory that there is not. Some of it may be reserved then.
pub(crate) fn reserve(fd: &OwnedFd, backing: Backing, offset: u64, len: u64) -> Result<(), StoreError> {
    let lacking = |op| {
        move |errno| match backing {
            Backing::Memory if matches!(errno, Errno::NOMEM | Errno::NOSPC) => StoreError::Full { wanted: len },
            Backing::Memory => StoreError::Os { op, errno },
            Backing::File => disk(len, op)(errno),
        }
    };
    if backing == Backing::File {
        // Asked first, because a reservation that fails half way has filled the disk for a moment. Some file systems
        // do not tell: they claim to have no blocks at all.
        let stat = fstatvfs(fd).map_err(StoreError::os("fstatvfs"))?;
        if stat.f_blocks > 0 && stat.f_bavail.saturating_mul(stat.f_frsize) < len {
            return Err(StoreError::DiskFull { wanted: len });
        }
    }
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let step = STEP.min(end - at);
        match retry_on_intr(|| fallocate(fd, FallocateFlags::empty(), at, step)) {
            Err(Errno::OPNOTSUPP) if backing == Backing::File => {
                write_zeros(fd, at, step).map_err(lacking("write to the escape directory"))?;
            }
            reserved => reserved.map_err(lacking("fallocate"))?,
        }
        at += step;
    }
    Ok(())
}

/// Gives `len` bytes from `offset` on back to the system; they are a hole again and read as zeros.
pub(crate) fn punch(fd: &OwnedFd, offset: u64, len: u64) -> Result<(), StoreError> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry_on_intr(|| fallocate(fd, mode, offset, len)).map_err(StoreError::os("fallocate(PUNCH_HOLE)"))
}

/// The reservation of file systems that know no `fallocate`. For ranges that hold nothing yet.
fn write_zeros(fd: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    let zeros = vec![0; len.min(1 << 20) as usize];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let part = zeros.len().min((end - at) as usize);
        at += retry_on_intr(|| pwrite(fd, &zeros[..part], at))? as u64;
    }
    Ok(())
}

fn truncate(fd: impl AsFd, size: u64) -> Result<(), StoreError> {
    ftruncate(fd, size).map_err(disk(size, "ftruncate"))
}

fn disk(wanted: u64, op: &'static str) -> impl FnOnce(Errno) -> StoreError {
    move |errno| match errno {
        // A file larger than the file system (or a limit of the process) allows: there is no room for it, either.
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreError::DiskFull { wanted },
        errno => StoreError::Os { op, errno },
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::fstat;

    use super::*;

    const SIZE: u64 = 1 << 20;

    /// Bytes the system has committed to a file.
    fn committed(fd: &OwnedFd) -> u64 {
        fstat(fd).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn memory_is_sparse_until_reserved_and_after_it_was_given_back() {
        let fd = memory("eagleray-test", SIZE).unwrap();
        assert_eq!(committed(&fd), 0);
        reserve(&fd, Backing::Memory, SIZE / 2, SIZE / 4).unwrap();
        assert_eq!(committed(&fd), SIZE / 4);
        punch(&fd, SIZE / 2, SIZE / 8).unwrap();
        assert_eq!(committed(&fd), SIZE / 8);
        punch(&fd, 0, SIZE).unwrap();
        assert_eq!(committed(&fd), 0);
    }

    #[test]
    fn writing_zeros_reserves_too() {
        let fd = memory("eagleray-test", 4 * SIZE).unwrap();
        write_zeros(&fd, SIZE, 2 * SIZE + SIZE / 2).unwrap();
        assert_eq!(committed(&fd), 2 * SIZE + SIZE / 2);
        assert_eq!(fstat(&fd).unwrap().st_size as u64, 4 * SIZE);
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("eagleray-file-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("taken"), "theirs").unwrap();
        assert!(unlinked(&directory, "taken", SIZE).unwrap().is_none());
        assert_eq!(std::fs::read(directory.join("taken")).unwrap(), b"theirs");
        let fd = unlinked(&directory, "free", SIZE).unwrap().unwrap();
        let stat = fstat(&fd).unwrap();
        assert_eq!((stat.st_mode & 0o777, stat.st_nlink, stat.st_size as u64), (0o600, 0, SIZE));
        std::fs::remove_file(directory.join("taken")).unwrap();
        std::fs::remove_dir(&directory).unwrap();
    }
}
