//! Tasks to interrupt.
//!
//! A task that is claimed begins in a moment. Until its page says so a signal would hit what its worker does before, so it
//! is waited for; the page says nothing to the session by itself.

use eagleray_core::ids::RunId;

use super::Loop;

/// How long until the page is looked at again, in ns.
const PAUSE_NS: u64 = 1_000_000;

/// How often that is done: what a page says may be nonsense.
const MOST_LOOKS: u32 = 1_000;

/// A task to interrupt.
#[derive(Debug)]
pub(super) struct Interrupt {
    run: RunId,
    index: u32,
    looks: u32,
    /// When to look at the page.
    at: u64,
}

impl Interrupt {
    /// Of a run, the task at a place.
    pub(super) const fn new(run: RunId, index: u32) -> Self {
        Self { run, index, looks: 0, at: 0 }
    }
}

impl Loop {
    /// Interrupts what runs of those that shall be.
    pub(super) fn interrupt(&mut self, now: u64) {
        self.interrupts.retain_mut(|interrupt| {
            if interrupt.at > now {
                return true;
            }
            let &mut Interrupt { run, index, .. } = interrupt;
            let Some(worker) = self.pool.workers.get(&run.worker) else { return false };
            if worker.runs(run.seq, index) {
                // The signal may come when the next task runs already.
                worker.page().interrupt(run.seq, index);
                self.pool.interrupt(run.worker);
                return false;
            }
            interrupt.looks += 1;
            interrupt.at = now + PAUSE_NS;
            worker.will_run(run.seq, index) && interrupt.looks < MOST_LOOKS
        });
    }

    /// When to look at a page again.
    pub(super) fn next_interrupt(&self) -> Option<u64> {
        self.interrupts.iter().map(|interrupt| interrupt.at).min()
    }
}
