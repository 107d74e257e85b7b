//! Who runs the session's loop: a thread of the driver that waits for an answer, or the session's own.
//!
//! One thread at a time *leads*: it runs turns of the loop, and sleeps in the poller. A driver's thread that waits leads
//! itself, so its answer comes without a switch of threads; it stops when the answer is there. Others that wait meanwhile
//! *follow*: they sleep until they are answered, or have to lead. The session's thread leads when nobody waits. It does not
//! take over at once when a driver's thread has stopped to, but after a lease: one that submits and waits in turns finds
//! the seat empty again.
//!
//! Nothing is overlooked: what is sent is put among the inputs under the same lock under which the leader looks for inputs
//! before it sleeps. If there is no leader, there is a follower that was woken to lead, or the session's thread waits
//! for the lease to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use crate::command::{Answer, Ended};
use crate::poller::Alarm;
use crate::session::now_ns;
use crate::shared::{Input, SessionError};

/// How long nobody leads after a driver's thread, unless somebody has to.
const LEASE: Duration = Duration::from_micros(500);

/// How long what was sent waits for its sender to lead, in ns, if more is sent.
const PATIENCE_NS: u64 = 100_000;

/// A thread's time as the leader.
#[derive(Debug)]
pub(crate) enum Term<'a> {
    /// The session's thread: until others wait.
    Session,
    /// A thread of the driver: until one of these questions is answered, or so long.
    Driver(&'a [u64], Instant),
}

/// What a leader does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another turn: there is something to take in.
    Turn,
    /// Sleep in the poller. Whoever has something to say from now on rings the alarm.
    Sleep,
    /// Sleep, but not for long: who says what can wait does not ring.
    Nap,
    /// Stop leading.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Session,
    Driver,
}

/// How the leader sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    Naps,
    Sleeps,
}

#[derive(Debug)]
struct Follower {
    tokens: Vec<u64>,
    /// It is answered, or is to lead.
    news: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct State {
    inputs: Vec<Input>,
    /// When the oldest of them came, if nobody led then; 0 otherwise.
    since: u64,
    /// Nothing is taken in any more.
    closed: bool,
    answers: FxHashMap<u64, Ended>,
    ended: Option<SessionError>,
    /// How often threads that followed were woken.
    wakeups: u64,
    leader: Option<Leader>,
    /// Whether the leader is in the poller, or will be in a moment.
    sleep: Sleep,
    /// What was taken in last can wait, and something was.
    lazy: bool,
    /// In the order in which they came.
    followers: Vec<Follower>,
    /// Something is to be done that only the session's thread may do.
    needed: bool,
    /// Something is not to wait for the end of the lease.
    hurry: bool,
    /// The session's thread sleeps until it is told.
    deep: bool,
    /// When a driver's thread led last, and how often one did.
    left_at: u64,
    terms: u64,
}

impl State {
    /// What a thread that asked these questions returns with.
    fn outcome(&mut self, tokens: &[u64]) -> Option<Result<Answer, SessionError>> {
        // What was asked after something was refused would be answered as if that had never been.
        if let Some(why @ SessionError::Refused(_)) = &self.ended {
            return Some(Err(why.clone()));
        }
        let answer = tokens.iter().find_map(|&token| Some(Answer { token, ended: self.answers.remove(&token)? }));
        answer.map(Ok).or_else(|| Some(Err(self.ended.clone()?)))
    }

    fn begin(&mut self, leader: Leader) {
        self.leader = Some(leader);
        (self.hurry, self.since) = (false, 0);
        match leader {
            Leader::Session => self.needed = false,
            Leader::Driver => self.terms += 1,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Mutex<State>,
    alarm: Alarm,
    /// For the session's thread.
    relief: Condvar,
}

impl Seat {
    pub(crate) fn new(alarm: Alarm) -> Self {
        Self { state: Mutex::default(), alarm, relief: Condvar::new() }
    }

    /// Any thread: says something to the loop, which takes it in as soon as somebody leads. `urgent`: the sender may not
    /// come to lead soon, and what it says does not wait for a lease to end.
    pub(crate) fn send(&self, input: Input, urgent: bool) -> Result<(), SessionError> {
        let mut state = self.state.lock();
        if state.closed {
            let ended = state.ended.clone();
            drop(state);
            return Err(ended.unwrap_or(SessionError::Ended));
        }
        let can_wait = input.can_wait();
        state.inputs.push(input);
        if state.leader.is_some() {
            if !can_wait || state.sleep == Sleep::Sleeps {
                self.rouse(state);
            }
            return Ok(());
        }
        if can_wait {
            return Ok(());
        }
        if !urgent {
            let now = now_ns();
            if state.since == 0 {
                state.since = now;
            }
            if now < state.since + PATIENCE_NS {
                return Ok(());
            }
        }
        if !std::mem::replace(&mut state.hurry, true) {
            drop(state);
            self.relief.notify_one();
        }
        Ok(())
    }

    /// Wakes the leader, if it sleeps.
    fn rouse(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.sleep) != Sleep::Awake {
            drop(state);
            self.alarm.ring();
        }
    }

    /// Whether a thread of the driver leads.
    #[cfg(test)]
    pub(crate) fn is_led_by_a_driver(&self) -> bool {
        self.state.lock().leader == Some(Leader::Driver)
    }

    /// Whether nothing is taken in any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Why the session has ended, if it has.
    pub(crate) fn ended(&self) -> Option<SessionError> {
        self.state.lock().ended.clone()
    }

    /// How often waiting threads of the driver were woken that did not lead.
    pub(crate) fn wakeups(&self) -> u64 {
        self.state.lock().wakeups
    }

    /// The leader: what was sent.
    pub(crate) fn take_inputs(&self, inputs: &mut Vec<Input>) {
        let mut state = self.state.lock();
        state.lazy = !state.inputs.is_empty() && state.inputs.iter().all(Input::can_wait);
        if inputs.is_empty() {
            // What is dropped under the lock must not want to send anything.
            std::mem::swap(&mut state.inputs, inputs);
        } else {
            inputs.append(&mut state.inputs);
        }
    }

    /// The leader: answers a question of the driver.
    pub(crate) fn answer(&self, token: u64, ended: Ended) {
        let mut state = self.state.lock();
        state.answers.insert(token, ended);
        if let Some(follower) = state.followers.iter().find(|follower| follower.tokens.contains(&token)) {
            follower.news.notify_one();
        }
    }

    /// The leader: nothing will be answered any more.
    pub(crate) fn end(&self, why: SessionError) {
        Self::end_now(&mut self.state.lock(), why);
    }

    fn end_now(state: &mut State, why: SessionError) {
        state.ended.get_or_insert(why);
        for follower in &state.followers {
            follower.news.notify_one();
        }
    }

    /// The session's thread, when it leads no more and nobody else shall: what is sent from now on is refused.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let inputs = std::mem::take(&mut state.inputs);
        Self::end_now(&mut state, SessionError::Ended);
        drop(state);
        drop(inputs);
    }

    /// The leader, after a turn.
    pub(crate) fn next(&self, term: &Term<'_>) -> Next {
        let mut state = self.state.lock();
        let leave = match term {
            Term::Session => !state.needed && !state.followers.is_empty(),
            Term::Driver(tokens, until) => {
                state.needed
                    || state.ended.is_some()
                    || tokens.iter().any(|token| state.answers.contains_key(token))
                    || Instant::now() >= *until
            }
        };
        if leave {
            return Next::Leave;
        }
        if !state.inputs.is_empty() {
            return Next::Turn;
        }
        let next;
        // More of that kind may come at once: to be woken for each would cost more than what is to be done.
        (state.sleep, next) = if state.lazy { (Sleep::Naps, Next::Nap) } else { (Sleep::Sleeps, Next::Sleep) };
        next
    }

    /// The leader has slept.
    pub(crate) fn awake(&self) {
        self.state.lock().sleep = Sleep::Awake;
    }

    /// The leader stops to lead. `needed`: something is to be done that only the session's thread may do.
    pub(crate) fn leave(&self, needed: bool) {
        let mut state = self.state.lock();
        state.leader = None;
        state.needed |= needed;
        state.left_at = now_ns();
        if !state.inputs.is_empty() {
            state.since = state.left_at;
        }
        self.pass_on(&mut state);
    }

    /// Nobody leads: has somebody else see to it.
    fn pass_on(&self, state: &mut State) {
        if state.needed || state.followers.is_empty() {
            if state.needed || state.hurry || std::mem::take(&mut state.deep) {
                self.relief.notify_one();
            }
        } else {
            state.followers[0].news.notify_one();
        }
    }

    /// The session's thread: waits until it is to lead, and then does.
    pub(crate) fn take_over(&self) {
        let mut state = self.state.lock();
        let mut terms = state.terms;
        loop {
            let limit = match state.leader {
                None => {
                    let led = Duration::from_nanos(now_ns().saturating_sub(state.left_at));
                    let alone = state.followers.is_empty();
                    if state.needed || (alone && (state.hurry || state.terms == 0 || led >= LEASE)) {
                        state.begin(Leader::Session);
                        return;
                    }
                    Some(if alone { LEASE.saturating_sub(led) } else { LEASE })
                }
                // Threads lead in quick succession: to be told each time would cost more than to look now and then.
                Some(_) if state.terms > std::mem::replace(&mut terms, state.terms) + 1 => Some(LEASE),
                // It tells when it stops.
                Some(_) => None,
            };
            if let Some(limit) = limit {
                self.relief.wait_for(&mut state, limit);
            } else {
                state.deep = true;
                self.relief.wait(&mut state);
                state.deep = false;
            }
        }
    }

    /// A driver's thread: waits for the answer to one of these questions, at most `limit`. If nobody else does, it leads
    /// meanwhile: `lead` is to do so, and then [`Seat::leave`].
    pub(crate) fn wait(
        &self,
        tokens: &[u64],
        limit: Duration,
        lead: impl Fn(&Term<'_>),
    ) -> Result<Option<Answer>, SessionError> {
        let until = Instant::now() + limit;
        let mut late = false;
        let mut state = self.state.lock();
        loop {
            let outcome = state.outcome(tokens);
            if outcome.is_some() || late {
                if state.leader.is_none() {
                    // It may have been woken to lead.
                    self.pass_on(&mut state);
                }
                drop(state);
                return outcome.transpose();
            }
            if state.leader.is_none() && !state.needed {
                state.begin(Leader::Driver);
                drop(state);
                lead(&Term::Driver(tokens, until));
                late = Instant::now() >= until;
                state = self.state.lock();
                continue;
            }
            if limit.is_zero() {
                return Ok(None);
            }
            if state.leader == Some(Leader::Session) && std::mem::take(&mut state.sleep) != Sleep::Awake {
                // It sees that somebody follows, and leaves.
                self.alarm.ring();
            }
            let news = Arc::new(Condvar::new());
            state.followers.push(Follower { tokens: tokens.to_vec(), news: Arc::clone(&news) });
            late = news.wait_until(&mut state, until).timed_out();
            state.followers.retain(|follower| !Arc::ptr_eq(&follower.news, &news));
            state.wakeups += u64::from(!late);
        }
    }
}
