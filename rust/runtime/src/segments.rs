//! Segments of others that this process has mapped, and the blocks in them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use eagleray_store::{Block, Location, ReadMap};
use rustc_hash::FxHashMap;

use crate::wire::WireError;

/// Mapped segments by id.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    maps: FxHashMap<u64, Arc<ReadMap>>,
}

fn unreadable(error: impl std::fmt::Display) -> WireError {
    WireError::Block(error.to_string().into())
}

impl Segments {
    /// Maps a segment that another process sent.
    pub(crate) fn open(&mut self, id: u64, size: u64, fd: &OwnedFd) -> Result<(), WireError> {
        if self.maps.contains_key(&id) {
            return Err(WireError::Inconsistent("a segment is introduced twice"));
        }
        let map = ReadMap::open(fd, id, size).map_err(unreadable)?;
        self.maps.insert(id, map);
        Ok(())
    }

    /// Forgets a segment. Blocks in it stay readable as long as they are held.
    pub(crate) fn close(&mut self, id: u64) {
        self.maps.remove(&id);
    }

    pub(crate) fn block(&self, location: Location) -> Result<Block, WireError> {
        let map = self.maps.get(&location.segment).ok_or_else(|| unreadable("its segment is unknown"))?;
        map.block(location).map_err(unreadable)
    }
}
