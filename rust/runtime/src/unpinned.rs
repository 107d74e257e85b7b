//! Blocks that a process has stopped reading, in any of its threads, until it tells who pins them.

use eagleray_store::Location;
use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unpinned {
    locations: Mutex<Vec<Location>>,
    /// Whose they are.
    process: u32,
}

impl Unpinned {
    /// None yet, of this process.
    pub(crate) fn new() -> Self {
        Self { locations: Mutex::default(), process: std::process::id() }
    }

    /// One more. True if it is the only one so far.
    pub(crate) fn add(&self, location: Location) -> bool {
        // A process that was forked has pinned nothing itself, and finds locks as they were in that moment.
        if self.process != std::process::id() {
            return false;
        }
        let mut locations = self.locations.lock();
        locations.push(location);
        locations.len() == 1
    }

    /// Those there are, to be told.
    pub(crate) fn take(&self) -> Vec<Location> {
        std::mem::take(&mut *self.locations.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCATION: Location = Location { segment: 1, offset: 64, len: 1, generation: 1 };

    #[test]
    fn the_first_is_known_as_such() {
        let unpinned = Unpinned::new();
        assert!(unpinned.add(LOCATION));
        assert!(!unpinned.add(LOCATION));
        assert_eq!(unpinned.take(), [LOCATION; 2]);
        assert!(unpinned.add(LOCATION));
    }

    #[test]
    fn another_process_adds_nothing_and_takes_no_lock() {
        let unpinned = Unpinned { process: 0, ..Unpinned::new() };
        let locked = unpinned.locations.lock();
        assert!(!unpinned.add(LOCATION));
        drop(locked);
        assert!(unpinned.take().is_empty());
    }
}
