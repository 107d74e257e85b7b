//! Mappings of shared files: the one place with `unsafe`.
//!
//! Creating a mapping is safe (`memmap2` hands out a raw pointer); making references into it is what needs care. Every
//! mapping here is of a file whose size was checked and does not shrink while it is mapped (sealed, or unlinked and
//! resized by nobody), so that all of it can be touched. Each range handed out is checked against the mapping's length.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use crate::StoreError;

/// The first `size` bytes of a file, mapped shared and for reading only.
#[derive(Debug)]
pub(crate) struct ReadOnly(MmapRaw);

impl ReadOnly {
    pub(crate) fn new(fd: BorrowedFd<'_>, size: u64) -> Result<Self, StoreError> {
        MmapOptions::new().len(length(size)?).map_raw_read_only(fd.as_raw_fd()).map(Self).map_err(|e| refused(&e, size))
    }

    /// Whether `len` bytes from `offset` on are in the mapping.
    pub(crate) fn contains(&self, offset: u64, len: u64) -> bool {
        contains(&self.0, offset, len)
    }

    /// Bytes of a sealed block. Panics if they are not in the mapping.
    ///
    /// Nobody may write to them while the slice lives: see the crate's documentation for how this is kept.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> &[u8] {
        assert!(contains(&self.0, offset, len), "a block outside its segment");
        // SAFETY: the range is in the mapping, which lives as long as `self`, is readable, and holds initialised bytes
        // (a file has no others). That nobody writes to a sealed block which is in use is the processes' protocol: an
        // owner recycles a block only when no reader has it pinned.
        unsafe { slice::from_raw_parts(self.0.as_ptr().add(offset as usize), len as usize) }
    }

    /// Words that others may write to. Only relaxed loads are allowed on them. Panics if they are not in the mapping.
    pub(crate) fn words(&self, offset: u64, count: usize) -> &[AtomicU64] {
        words(&self.0, offset, count)
    }
}

/// The first `size` bytes of a file, mapped shared, for reading and writing.
#[derive(Debug)]
pub(crate) struct ReadWrite(MmapRaw);

impl ReadWrite {
    pub(crate) fn new(fd: BorrowedFd<'_>, size: u64) -> Result<Self, StoreError> {
        MmapOptions::new().len(length(size)?).map_raw(fd.as_raw_fd()).map(Self).map_err(|e| refused(&e, size))
    }

    /// Words that others may read and write too. Panics if they are not in the mapping.
    pub(crate) fn words(&self, offset: u64, count: usize) -> &[AtomicU64] {
        words(&self.0, offset, count)
    }
}

/// Bytes of a writable mapping that nobody else reads or writes.
#[derive(Debug)]
pub(crate) struct Span {
    map: Arc<ReadWrite>,
    offset: u64,
    len: u64,
}

impl Span {
    /// Takes `len` bytes from `offset` on. Panics if they are not in the mapping.
    ///
    /// The caller has them for itself: no two spans that exist at one time overlap, and no sealed block is in them.
    /// The arena keeps this by making spans only of what [`Space`](crate::space::Space) has just given out.
    pub(crate) fn new(map: Arc<ReadWrite>, offset: u64, len: u64) -> Self {
        assert!(contains(&map.0, offset, len), "a span outside its segment");
        Self { map, offset, len }
    }

    pub(crate) fn map(&self) -> &ReadWrite {
        &self.map
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `new` checked that the range is in the mapping, which `self` keeps alive, and every byte of a file is
        // initialised. `new`'s caller promised that nothing else refers to the range, and `&mut self` that this is the
        // only slice made from the span.
        unsafe { slice::from_raw_parts_mut(self.map.0.as_mut_ptr().add(self.offset as usize), self.len as usize) }
    }
}

#[expect(clippy::cast_ptr_alignment, reason = "checked: a mapping starts at a page")]
fn words(map: &MmapRaw, offset: u64, count: usize) -> &[AtomicU64] {
    assert!(offset.is_multiple_of(8) && contains(map, offset, count as u64 * 8), "words outside their mapping");
    // SAFETY: the range is in the mapping, which the result borrows. A mapping starts at a page and the offset is a
    // multiple of 8, so it is aligned. Any bytes are valid words, and atomics may be written to by others at any time.
    unsafe { slice::from_raw_parts(map.as_ptr().add(offset as usize).cast::<AtomicU64>(), count) }
}

fn contains(map: &MmapRaw, offset: u64, len: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= map.len() as u64)
}

fn length(size: u64) -> Result<usize, StoreError> {
    usize::try_from(size).map_err(|_| StoreError::Full { wanted: size })
}

/// No address space left is `Full`; anything else is the system's own error.
fn refused(error: &std::io::Error, size: u64) -> StoreError {
    match Errno::from_io_error(error) {
        Some(Errno::NOMEM) => StoreError::Full { wanted: size },
        errno => StoreError::Os { op: "mmap", errno: errno.unwrap_or(Errno::INVAL) },
    }
}
