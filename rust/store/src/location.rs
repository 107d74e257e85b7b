//! Where a block is: names of segments, places in them, and the header in front of every block.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Blocks start at multiples of this many bytes, and so do their payloads: a cache line, and what SIMD code likes best.
pub(crate) const ALIGN: u64 = 64;
/// Bytes of the header in front of each payload.
pub(crate) const HEADER: u64 = 64;
/// What the header of a sealed block starts with.
const MAGIC: u64 = u64::from_le_bytes(*b"eagleblk");
/// Set in the number of a segment that is backed by a file and not by memory.
const FILE_BIT: u32 = 1 << 31;

/// The place of one sealed block. Names it for ever: a place that is used again gets another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The segment, unique among all processes of a session: the owner's id in the upper 32 bits, a number in the lower.
    pub segment: u64,
    /// Start of the payload, in bytes from the start of the segment.
    pub offset: u64,
    /// Bytes of payload.
    pub len: u64,
    /// Counts the blocks of an owner; no two blocks of one owner have the same.
    pub generation: u64,
}

impl Location {
    /// The id of the process whose arena the block belongs to.
    pub fn owner(&self) -> u32 {
        owner(self.segment)
    }
}

/// Whether a segment is a file, because its owner's memory was used up.
pub fn is_file(segment: u64) -> bool {
    Backing::of(segment) == Backing::File
}

/// The owner of a segment.
pub fn owner(segment: u64) -> u32 {
    (segment >> 32) as u32
}

/// What the bytes of a segment are kept in. Part of the segment's id, so that a reader knows what to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    Memory,
    File,
}

impl Backing {
    pub(crate) fn of(segment: u64) -> Self {
        if segment as u32 & FILE_BIT != 0 { Self::File } else { Self::Memory }
    }

    /// The id of the segment with this count among those of its owner and backing; `None` if the numbers are used up.
    pub(crate) fn segment(self, owner: u32, count: u32) -> Option<u64> {
        let bit = match self {
            Self::Memory => 0,
            Self::File => FILE_BIT,
        };
        (count < FILE_BIT).then(|| u64::from(owner) << 32 | u64::from(count | bit))
    }
}

/// Bytes that a block with a payload of `len` bytes takes in its segment; `None` if no process could map that much.
pub(crate) fn block_size(len: u64) -> Option<u64> {
    let size = len.checked_next_multiple_of(ALIGN)?.checked_add(HEADER)?;
    (size <= isize::MAX as u64 / 2).then_some(size)
}

/// Makes the header say that there is no sealed block.
pub(crate) fn clear_header(words: &[AtomicU64]) {
    words[0].store(0, Ordering::Release);
}

/// Makes the header say that this block is sealed. All writes to the payload before are visible to who reads the header.
pub(crate) fn seal_header(words: &[AtomicU64], location: &Location) {
    words[1].store(location.generation, Ordering::Relaxed);
    words[2].store(location.len, Ordering::Relaxed);
    words[0].store(MAGIC, Ordering::Release);
}

/// Whether the header says that exactly this block is sealed here.
pub(crate) fn header_matches(words: &[AtomicU64], location: &Location) -> bool {
    // Relaxed and a fence, because of all atomic operations only relaxed loads are certain to work on read-only memory.
    let magic = words[0].load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    magic == MAGIC
        && words[1].load(Ordering::Relaxed) == location.generation
        && words[2].load(Ordering::Relaxed) == location.len
}
