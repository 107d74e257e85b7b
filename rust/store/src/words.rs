//! One page of words that two processes read and write.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use crate::StoreError;
use crate::file;
use crate::location::Backing;
use crate::map::ReadWrite;
use crate::read::check;

/// A shared page of 512 atomic words, zero at first. What they mean is between the processes that share it.
#[derive(Debug)]
pub struct Words(ReadWrite);

impl Words {
    /// Number of words in the page.
    pub const COUNT: usize = 512;
    /// Bytes of the page.
    const SIZE: u64 = Self::COUNT as u64 * 8;

    /// Makes a page, and the descriptor with which another process opens it.
    pub fn create() -> Result<(Self, OwnedFd), StoreError> {
        let fd = file::memory("eagleray-words", Self::SIZE)?;
        file::reserve(&fd, Backing::Memory, 0, Self::SIZE)?;
        Ok((Self(ReadWrite::new(fd.as_fd(), Self::SIZE)?), fd))
    }

    /// Opens the page that another process made. The descriptor is not needed afterwards.
    ///
    /// # Errors
    /// [`StoreError::BadSegment`] if it is not the descriptor of such a page.
    pub fn open(fd: impl AsFd) -> Result<Self, StoreError> {
        check(&fd, Self::SIZE, Backing::Memory)?;
        Ok(Self(ReadWrite::new(fd.as_fd(), Self::SIZE)?))
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words(0, Self::COUNT)
    }
}
