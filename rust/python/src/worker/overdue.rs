//! Results that wait for a task which takes longer than the last one of its class did: a thread reports them meanwhile.
//!
//! Between tasks the main thread reports what is due. Before a task it reports what is awaited only if the task may be
//! long, since a report for each would cost more than small tasks do. How long a call takes depends on its arguments, so
//! that guess may be wrong by any time, and who waits for what is done would wait for what is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use eagleray_runtime::session::now_ns;

use super::{REPORT_NS, Worker, lock, this_worker};

/// The thread looks this often, while it is awake.
const LOOKS: Duration = Duration::from_millis(5);
/// After so many looks for nothing it sleeps: to be woken for each run would cost more than to look.
const IDLE: u32 = 40;

/// Whether the thread is there and awake.
#[derive(Default)]
pub(super) struct Overdue {
    awake: AtomicBool,
    started: Mutex<bool>,
    bell: Condvar,
}

impl Overdue {
    /// Has the thread look for what is overdue. False if there cannot be one.
    pub(super) fn watch(&self) -> bool {
        self.awake.load(Ordering::SeqCst) || self.wake()
    }

    #[cold]
    fn wake(&self) -> bool {
        let mut started = lock(&self.started);
        if !*started {
            let Some(worker) = this_worker() else { return false };
            let thread = thread::Builder::new().name("eagleray-overdue".to_owned()).spawn(|| worker.look_for_overdue());
            if thread.is_err() {
                return false;
            }
            *started = true;
        }
        self.awake.store(true, Ordering::SeqCst);
        self.bell.notify_one();
        true
    }

    /// Waits until it is to look.
    fn sleep(&self) {
        let mut started = lock(&self.started);
        while !self.awake.load(Ordering::SeqCst) {
            started = self.bell.wait(started).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Worker {
    /// The thread's life, which is that of the process.
    fn look_for_overdue(&self) {
        loop {
            self.overdue.sleep();
            let mut idle = 0;
            while idle < IDLE {
                thread::sleep(LOOKS);
                idle = if self.report_overdue() { 0 } else { idle + 1 };
            }
            self.overdue.awake.store(false, Ordering::SeqCst);
            // Who has begun a task just now may have seen that it was awake.
            if self.report_overdue() {
                self.overdue.awake.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Reports what has waited long enough for the task that runs. Whether there is something that waits.
    fn report_overdue(&self) -> bool {
        let unreported = lock(&self.unreported);
        let Some((_, state)) = unreported.as_ref().filter(|(_, state)| state.is_pending()) else { return false };
        if now_ns() >= state.since_ns + REPORT_NS {
            // If the node is gone, the main thread will find that out.
            let _ = self.report_locked(unreported, false);
        }
        true
    }
}
