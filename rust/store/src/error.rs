//! What can go wrong in the store.

use rustix::io::Errno;

/// An error of [`Arena`](crate::Arena), [`ReadMap`](crate::ReadMap) or [`Words`](crate::Words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No memory, no address space or no segment number is left for a block of this many bytes.
    #[error("no room for a block of {wanted} bytes")]
    Full {
        /// Bytes that were wanted.
        wanted: u64,
    },
    /// The budget is used up, and the file system of the escape directory has no room either.
    #[error("the memory budget is used up and the disk has no room for another {wanted} bytes")]
    DiskFull {
        /// Bytes that were to be reserved on disk.
        wanted: u64,
    },
    /// No such block: it was freed, or its place is used by another one.
    #[error("the block is not here (any more)")]
    NotHere,
    /// What was received is not usable as a segment.
    #[error("not a usable segment: {0}")]
    BadSegment(&'static str),
    /// The operating system refused.
    #[error("{op}: {errno}")]
    Os {
        /// The call that failed.
        op: &'static str,
        /// Its error.
        errno: Errno,
    },
}

impl StoreError {
    /// Wraps the error of the call `op`; meant for `map_err`.
    pub(crate) fn os(op: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { op, errno }
    }
}
