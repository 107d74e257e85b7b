//! Reading blocks of a segment, one's own or another process's.

use std::any::Any;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};

use crate::location::{ALIGN, Backing, HEADER, header_matches};
use crate::map::ReadOnly;
use crate::{Location, StoreError};

/// A whole segment, mapped for reading. Unmapped when the last [`Block`] and the last `Arc` of it are gone.
#[derive(Debug)]
pub struct ReadMap {
    segment: u64,
    map: ReadOnly,
}

impl ReadMap {
    /// Maps a segment of `size` bytes. The descriptor is not needed afterwards.
    ///
    /// # Errors
    /// [`StoreError::BadSegment`] if touching the mapping could raise SIGBUS: the file is shorter than `size`, or it is
    /// a memory segment by its id and not sealed against shrinking. [`StoreError::Full`] if no address space is left.
    pub fn open(fd: impl AsFd, segment: u64, size: u64) -> Result<Arc<Self>, StoreError> {
        let fd = fd.as_fd();
        check(fd, size, Backing::of(segment))?;
        Ok(Arc::new(Self { segment, map: ReadOnly::new(fd, size)? }))
    }

    /// The id of the segment.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The sealed block at `location`, which the caller has pinned.
    ///
    /// # Errors
    /// [`StoreError::NotHere`] if the header there is not that of this very block: it was recycled, was never sealed, or
    /// the location is not one of this segment.
    pub fn block(self: &Arc<Self>, location: Location) -> Result<Block, StoreError> {
        let Location { segment, offset, len, .. } = location;
        let placed = segment == self.segment
            && offset >= HEADER
            && offset.is_multiple_of(ALIGN)
            && self.map.contains(offset, len)
            && header_matches(self.map.words(offset - HEADER, 3), &location);
        if placed { Ok(Block { map: Arc::clone(self), location, guard: None }) } else { Err(StoreError::NotHere) }
    }
}

/// Checks that all of the first `size` bytes of `fd` can be touched, now and later.
pub(crate) fn check(fd: impl AsFd, size: u64, backing: Backing) -> Result<(), StoreError> {
    let stat = fstat(&fd).map_err(StoreError::os("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(StoreError::BadSegment("not a file"));
    }
    if size == 0 {
        return Err(StoreError::BadSegment("empty"));
    }
    if u64::try_from(stat.st_size).is_ok_and(|there| there < size) {
        return Err(StoreError::BadSegment("shorter than announced"));
    }
    // A file on disk cannot be sealed. It has no name, and its owner is the only one who has it open for writing.
    if backing == Backing::Memory {
        let seals = fcntl_get_seals(&fd).map_err(|_| StoreError::BadSegment("not a memfd"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(StoreError::BadSegment("not sealed against shrinking"));
        }
    }
    Ok(())
}

/// The bytes of a sealed block, readable for as long as this or a clone of it lives.
#[derive(Clone)]
pub struct Block {
    map: Arc<ReadMap>,
    location: Location,
    guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl Block {
    /// Attaches `guard`, which is dropped with the last clone: so whoever pinned the block learns when to unpin it.
    /// Replaces a guard attached before.
    #[must_use]
    pub fn with_guard(self, guard: Arc<dyn Any + Send + Sync>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Where the block is.
    pub fn location(&self) -> Location {
        self.location
    }
}

impl AsRef<[u8]> for Block {
    /// The payload; starts at a multiple of 64 bytes.
    fn as_ref(&self) -> &[u8] {
        self.map.map.bytes(self.location.offset, self.location.len)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("location", &self.location)
            .field("guarded", &self.guard.is_some())
            .finish_non_exhaustive()
    }
}
