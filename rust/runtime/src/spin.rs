//! Looking for an answer again and again for a moment, before sleeping until it comes.
//!
//! To wake a core that sleeps takes some 25 µs, as long as a short task and its report. So who waits for something that is
//! likely to come at once stays awake for it, if that has proved right lately: where other programs want the processors,
//! it is not worth it, and is soon given up.

use std::sync::OnceLock;

use crate::session::now_ns;

/// How long is looked, in ns.
const SPIN_NS: u64 = 100_000;

/// So many times it is not tried again, at most.
const MOST_SKIPPED: u32 = 100;

/// Whether there is a processor that could do meanwhile what is waited for.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Whether it is worth while to look again and again.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// How often it is not tried after the next time that it was for nothing.
    penalty: u32,
    /// How often it is not tried from now on.
    skip: u32,
}

impl Spin {
    /// Looks again and again, for a moment, if that is promising. `busy` processors are in use beside this thread's. True
    /// if `look` has found something.
    pub(crate) fn until<E>(&mut self, busy: usize, mut look: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if look()? {
            return Ok(true);
        }
        if busy >= processors() {
            return Ok(false);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(false);
        }
        let until = now_ns() + SPIN_NS;
        while now_ns() < until {
            std::hint::spin_loop();
            if look()? {
                self.paid(true);
                return Ok(true);
            }
        }
        self.paid(false);
        Ok(false)
    }

    /// It has to pay five times out of six.
    fn paid(&mut self, paid: bool) {
        if paid {
            self.penalty -= self.penalty.div_ceil(8);
        } else {
            self.penalty = (self.penalty * 2 + 1).min(MOST_SKIPPED);
            self.skip = self.penalty;
        }
    }
}
