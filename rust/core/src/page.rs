//! The control page: one shared page of words between a worker and its node.
//!
//! A worker *claims* the tasks of a run one after the other; the node *recalls* those not yet claimed by lowering the
//! run's limit. Both change one word with compare-and-swap, so that a task is either claimed or recalled, never both,
//! and the node knows at once which ones came back, without a message. A run has its own word, keyed by its number, so
//! that a run the worker has not even read yet can be recalled too.
//!
//! The page also says what the worker is doing: after a crash it names the task that ran and how far each run got.
//!
//! | word | content | written by |
//! |---|---|---|
//! | 0 | running task: `valid:1 ‖ seq:24 ‖ index:20`, 0 when none | worker |
//! | 1 | when it started, ns of the monotonic clock | worker |
//! | 2 | requests: grows when a frame waits that should be served between two tasks | node |
//! | 3 | task to interrupt: as word 0. The node writes it before it sends the signal, which may come late | node |
//! | 8 + s | ring slot `s = seq % 8`: `seq:24 ‖ next:20 ‖ limit:20` | both |

use core::sync::atomic::{AtomicU64, Ordering};

use crate::message::output;

/// How many words a page has.
pub const WORDS: usize = 16;

/// How many runs can be in flight to one worker.
pub const RING: u32 = 8;

/// The longest run.
pub const MAX_RUN_LEN: u32 = (1 << 20) - 1;

const RUNNING: usize = 0;
const STARTED: usize = 1;
const REQUESTS: usize = 2;
const INTERRUPT: usize = 3;
const SLOTS: usize = 8;

const INDEX_BITS: u32 = 20;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const SEQ_MASK: u32 = (1 << 24) - 1;
const VALID: u64 = 1 << 63;

fn pack(seq: u32, next: u32, limit: u32) -> u64 {
    (u64::from(seq & SEQ_MASK) << (2 * INDEX_BITS)) | (u64::from(next) << INDEX_BITS) | u64::from(limit)
}

fn pack_task(seq: u32, index: u32) -> u64 {
    VALID | (u64::from(seq & SEQ_MASK) << INDEX_BITS) | u64::from(index)
}

fn unpack(word: u64) -> (u32, u32, u32) {
    (
        (word >> (2 * INDEX_BITS)) as u32 & SEQ_MASK,
        ((word >> INDEX_BITS) & INDEX_MASK) as u32,
        (word & INDEX_MASK) as u32,
    )
}

/// A view of the page's words. Made by either side over the same shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    words: &'a [AtomicU64],
}

/// What a page says a worker is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The run's number, modulo 2^24.
    pub seq: u32,
    /// The task's place in it.
    pub index: u32,
    /// When it started, in ns of the monotonic clock.
    pub started_ns: u64,
}

impl<'a> Page<'a> {
    /// A view; `None` if there are fewer than [`WORDS`] words.
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() >= WORDS).then_some(Self { words })
    }

    fn slot(&self, seq: u32) -> &'a AtomicU64 {
        &self.words[SLOTS + (seq % RING) as usize]
    }

    /// Node: opens a run of `len` tasks. The slot's earlier run must have ended.
    pub fn open(&self, seq: u32, len: u32) {
        debug_assert!(len <= MAX_RUN_LEN);
        self.slot(seq).store(pack(seq, 0, len), Ordering::Release);
    }

    /// Worker: claims the next task of a run. `None` when all are claimed or recalled.
    pub fn claim(&self, seq: u32) -> Option<u32> {
        let slot = self.slot(seq);
        let mut word = slot.load(Ordering::Acquire);
        loop {
            let (s, next, limit) = unpack(word);
            if s != seq & SEQ_MASK || next >= limit {
                return None;
            }
            match slot.compare_exchange_weak(word, pack(s, next + 1, limit), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(now) => word = now,
            }
        }
    }

    /// Node: takes back all tasks of a run from `from` on that are not claimed, or from where it may be divided according to
    /// its `outputs` ([`output::WITH_LAST`]). Returns the new limit: the tasks from there on came back. Returns `None` if the
    /// slot holds another run.
    pub fn recall(&self, seq: u32, from: u32, outputs: &[u8]) -> Option<u32> {
        let slot = self.slot(seq);
        let mut word = slot.load(Ordering::Acquire);
        loop {
            let (s, next, limit) = unpack(word);
            if s != seq & SEQ_MASK {
                return None;
            }
            let to = output::divide(outputs, from.max(next)).min(limit);
            match slot.compare_exchange_weak(word, pack(s, next, to), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(to),
                Err(now) => word = now,
            }
        }
    }

    /// How many tasks of a run are claimed, and its limit. `None` if the slot holds another run.
    pub fn progress(&self, seq: u32) -> Option<(u32, u32)> {
        let (s, next, limit) = unpack(self.slot(seq).load(Ordering::Acquire));
        (s == seq & SEQ_MASK).then_some((next, limit))
    }

    /// Worker: says that a claimed task starts.
    pub fn start(&self, seq: u32, index: u32, now_ns: u64) {
        self.words[STARTED].store(now_ns, Ordering::Relaxed);
        self.words[RUNNING].store(pack_task(seq, index), Ordering::Release);
    }

    /// Worker: says that no task runs.
    pub fn rest(&self) {
        self.words[RUNNING].store(0, Ordering::Release);
    }

    /// What runs, if anything does.
    pub fn running(&self) -> Option<Running> {
        let word = self.words[RUNNING].load(Ordering::Acquire);
        (word & VALID != 0).then(|| Running {
            seq: (word >> INDEX_BITS) as u32 & SEQ_MASK,
            index: (word & INDEX_MASK) as u32,
            started_ns: self.words[STARTED].load(Ordering::Relaxed),
        })
    }

    /// Node: names the task that is to be interrupted by the signal that follows. It counts for no other.
    pub fn interrupt(&self, seq: u32, index: u32) {
        self.words[INTERRUPT].store(pack_task(seq, index), Ordering::Release);
    }

    /// Worker: whether the node has named this task.
    pub fn is_to_interrupt(&self, seq: u32, index: u32) -> bool {
        self.words[INTERRUPT].load(Ordering::Acquire) == pack_task(seq, index)
    }

    /// Node: asks the worker to read its socket before its next task.
    pub fn request(&self) {
        self.words[REQUESTS].fetch_add(1, Ordering::AcqRel);
    }

    /// Worker: how many requests there were. A change means that a frame waits.
    pub fn requests(&self) -> u64 {
        self.words[REQUESTS].load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_is_to_be_interrupted() {
        let words = [const { AtomicU64::new(0) }; WORDS];
        let page = Page::new(&words).unwrap();
        assert!(!page.is_to_interrupt(0, 0));
        page.interrupt(SEQ_MASK + 8, 5);
        assert!(page.is_to_interrupt(SEQ_MASK + 8, 5));
        assert!(!page.is_to_interrupt(SEQ_MASK + 8, 6) && !page.is_to_interrupt(8, 5));
        page.start(7, 5, 1);
        let running = page.running().unwrap();
        assert!(page.is_to_interrupt(running.seq, running.index), "numbers are told modulo 2^24");
    }
}
