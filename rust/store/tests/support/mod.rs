//! What several tests need.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use eagleray_store::{Arena, ArenaConfig, Location, Writer};

/// A directory that goes when this is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// An arena of owner 7 that puts its files here.
    pub(crate) fn arena(&self, budget: u64, segment_size: u64) -> Arena {
        Arena::new(ArenaConfig { owner: 7, budget, segment_size, escape_dir: self.0.clone() })
    }

    pub(crate) fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.entries(), 0, "files have lost their names");
        }
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Fills a block with bytes that tell it from others, and seals it.
pub(crate) fn seal(mut writer: Writer, seed: u64) -> Location {
    let bytes = writer.bytes();
    let pattern = pattern(seed, bytes.len());
    bytes.copy_from_slice(&pattern);
    writer.seal()
}

pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at * 31) >> 16) as u8).collect()
}
