//! Looking for an answer again and again for a moment, before sleeping until it comes.
//!
//! To wake a processor that sleeps takes as long as a short task and its report, and what runs then finds nothing in its
//! caches. So who waits for something that is likely to come at once stays awake for it, if that has proved right lately:
//! where other programs want the processors it is not worth it, and is soon given up.

use std::sync::OnceLock;

use crate::session::now_ns;

/// The environment variable that says how long is looked, in µs; 0 for not at all.
const VARIABLE: &str = "EAGLERAY_SPIN_US";

/// That, if it says nothing: as long as it takes a worker that has slept to run a short task.
const SPIN_US: u64 = 100;

/// So many times it is not tried again, at most.
const MOST_SKIPPED: u32 = 100;

/// How long is looked, in ns, and how many processors there are.
fn limits() -> (u64, usize) {
    static LIMITS: OnceLock<(u64, usize)> = OnceLock::new();
    *LIMITS.get_or_init(|| {
        let said = std::env::var(VARIABLE).ok().and_then(|us| us.parse::<u64>().ok());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (said.unwrap_or(SPIN_US).saturating_mul(1000), processors)
    })
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
        let (spin_ns, processors) = limits();
        // Somebody else has to run meanwhile, so that something comes.
        if spin_ns == 0 || busy >= processors {
            return Ok(false);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(false);
        }
        let until = now_ns().saturating_add(spin_ns);
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

    /// It has to pay some nine times out of ten.
    fn paid(&mut self, paid: bool) {
        if paid {
            self.penalty -= self.penalty.div_ceil(8);
        } else {
            self.penalty = (self.penalty * 2 + 1).min(MOST_SKIPPED);
            self.skip = self.penalty;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// How often it looks when it finds something the `at`th time.
    fn looks(spin: &mut Spin, busy: usize, at: u32) -> u32 {
        let mut looks = 0;
        let found: Result<bool, Infallible> = spin.until(busy, || {
            looks += 1;
            Ok(looks == at)
        });
        assert_eq!(found, Ok(looks == at));
        looks
    }

    #[test]
    fn it_looks_once_where_nobody_else_could_run() {
        let mut spin = Spin::default();
        assert_eq!(looks(&mut spin, usize::MAX, 2), 1);
        assert_eq!(spin.penalty, 0);
    }

    #[test]
    fn what_was_for_nothing_is_tried_ever_more_seldom_and_then_again() {
        let mut spin = Spin::default();
        let never = u32::MAX;
        let mut tries = 0;
        for _ in 0..1_000 {
            tries += u32::from(looks(&mut spin, 0, never) > 1);
        }
        assert!((10..=20).contains(&tries), "{tries}");
        while looks(&mut spin, 0, never) == 1 {}
        assert_eq!(spin.skip, MOST_SKIPPED);
        spin.skip = 0;
        // As long as it pays, it is tried each time.
        for _ in 0..40 {
            assert_eq!(looks(&mut spin, 0, 3), 3);
        }
        assert_eq!((spin.penalty, spin.skip), (0, 0));
    }
}
