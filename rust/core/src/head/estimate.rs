//! How long a task of a class probably takes: what the length of runs is made of.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::message::Timing;

/// What was measured of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    /// Expected duration in ns.
    pub(super) ns: u64,
    /// Expected size of the result in bytes.
    pub(super) bytes: u64,
}

/// What was measured of all classes, by fingerprint. It outlives graphs: the second compute knows from the first.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    known: HashMap<u64, Estimate, FxBuildHasher>,
}

/// Classes remembered. A session that makes new ones for ever starts afresh rather than grow for ever.
const MOST_CLASSES: usize = 100_000;

impl Estimates {
    pub(super) fn get(&self, fingerprint: u64) -> Option<Estimate> {
        self.known.get(&fingerprint).copied()
    }

    /// Takes a measurement in. The longest task counts with a quarter of its length even among many short ones: a run
    /// that is too short costs a wake-up, one that is too long holds back what others wait for.
    pub(super) fn learn(&mut self, fingerprint: u64, timing: &Timing) {
        let count = u64::from(timing.count.max(1));
        let ns = (timing.total_ns / count).max(timing.max_ns / 4).max(1);
        let bytes = timing.total_bytes / count;
        if self.known.len() >= MOST_CLASSES {
            self.known.clear();
        }
        self.known
            .entry(fingerprint)
            .and_modify(|e| {
                e.ns = u64::midpoint(e.ns, ns);
                e.bytes = u64::midpoint(e.bytes, bytes);
            })
            .or_insert(Estimate { ns, bytes });
    }

    /// A task of the class is running and has taken `ns` so far: the next is not expected to take less.
    pub(super) fn at_least(&mut self, fingerprint: u64, ns: u64) {
        let estimate = self.known.entry(fingerprint).or_insert(Estimate { ns, bytes: 0 });
        estimate.ns = estimate.ns.max(ns);
    }
}
