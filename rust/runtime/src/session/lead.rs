//! Running the loop: by the session's own thread, or by a thread of the driver that waits.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Loop, Session, now_ns};
use crate::command::Answer;
use crate::seat::{Next, Term};
use crate::shared::{SessionError, Shared};

/// A leader that is busy looks at the sockets after so many ns at the latest.
const LOOK_NS: u64 = 100_000;

/// How long what can wait does.
const NAP: Duration = Duration::from_millis(1);

/// The loop, for the one thread that leads.
#[derive(Debug)]
pub(super) struct Lead {
    shared: Arc<Shared>,
    /// None when the session has ended.
    state: Mutex<Option<Loop>>,
}

impl Lead {
    pub(super) fn new(shared: Arc<Shared>, state: Loop) -> Self {
        Self { shared, state: Mutex::new(Some(state)) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The session's thread: leads whenever nobody else does, to the end of the session.
    pub(super) fn run(&self) {
        while {
            self.shared.seat.take_over();
            self.lead(&Term::Session)
        } {}
    }

    /// Leads. To be called by who has the seat, which is left. False if the session has ended.
    fn lead(&self, term: &Term<'_>) -> bool {
        let mut state = self.state.lock();
        let led = state.as_mut().map(|state| catch_unwind(AssertUnwindSafe(|| state.lead(term))));
        let over = match led {
            Some(Ok(over)) => over,
            Some(Err(_)) => {
                tracing::error!("the session ends: its loop has panicked");
                // No turn of it may follow.
                state.iter_mut().for_each(|state| state.stopping = true);
                true
            }
            None => true,
        };
        if over && matches!(term, Term::Session) {
            let state = state.take();
            // Whatever is wrong with it: who waits is told, and as many processes are ended as can be.
            let stopped = catch_unwind(AssertUnwindSafe(|| {
                if let Some(mut state) = state {
                    state.pool.stop();
                }
            }));
            if stopped.is_err() {
                tracing::error!("the session has not ended its processes");
            }
            self.shared.seat.close();
        }
        drop(state);
        self.shared.seat.leave(over);
        !over
    }
}

impl Session {
    /// A thread of the driver: waits for the answer to one of these questions, at most `limit`.
    pub(crate) fn wait(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, SessionError> {
        self.shared().seat.wait(tokens, limit, |term| {
            self.lead.lead(term);
        })
    }
}

impl Loop {
    /// Leads. True if only the session's thread can go on.
    fn lead(&mut self, term: &Term<'_>) -> bool {
        let shared = Arc::clone(&self.shared);
        self.by_session = matches!(term, Term::Session);
        while !self.stopping {
            let now = now_ns();
            if now > self.polled_at + LOOK_NS {
                self.look(Some(Duration::ZERO));
            }
            self.turn(now);
            if self.stopping || (!self.by_session && self.is_postponed()) {
                break;
            }
            match shared.seat.next(term) {
                Next::Turn => {}
                Next::Leave => return false,
                Next::Sleep => {
                    self.sleep(term);
                    shared.seat.awake();
                }
                Next::Nap => {
                    self.look(Some(NAP));
                    shared.seat.awake();
                }
            }
        }
        true
    }

    /// Whether something waits for a template process to be started.
    fn is_postponed(&self) -> bool {
        !self.postponed.is_empty() || (self.pool.wants_preload() && self.head.is_idle())
    }

    fn sleep(&mut self, term: &Term<'_>) {
        let mut spin = std::mem::take(&mut self.spin);
        let busy = self.pool.workers.values().filter(|worker| !worker.is_idle()).count();
        // Without a worker that does something nothing is likely to come, and without who waits there is no hurry.
        let busy = if busy == 0 || self.by_session { usize::MAX } else { busy };
        let found = spin.until(busy, || Ok::<_, Infallible>(self.look(Some(Duration::ZERO))));
        self.spin = spin;
        if found == Ok(true) {
            return;
        }
        self.shared.counters.lock().wakeups += 1;
        self.look(match term {
            Term::Session => None,
            Term::Driver(_, until) => Some(until.saturating_duration_since(Instant::now())),
        });
    }

    /// Waits for sockets, at most `limit`, and reads them. True if something was there.
    fn look(&mut self, limit: Option<Duration>) -> bool {
        let found = self.poller.wait(limit);
        for source in self.poller.ready() {
            self.pool.handle(source);
        }
        self.polled_at = now_ns();
        found
    }
}
