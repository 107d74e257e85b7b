//! What the session's loop sleeps in: the sockets of workers and templates, a timer, and an alarm for other threads to ring.
//!
//! Not a runtime for tasks: which thread sleeps here changes (see `seat`), and each call of the system is one of a round trip.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// So many sockets are looked at in one turn; the others in the next.
const MOST_EVENTS: usize = 64;

/// Of the poller itself; sources have greater numbers.
const ALARM: u64 = 0;
const TIMER: u64 = 1;

/// Something to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A worker's socket, by its number.
    Worker(u32),
    /// A template's socket, by its number in the pool.
    Template(u32),
}

impl Source {
    fn to_u64(self) -> u64 {
        match self {
            Self::Worker(id) => 1 << 32 | u64::from(id),
            Self::Template(id) => 2 << 32 | u64::from(id),
        }
    }

    fn from_u64(number: u64) -> Option<Self> {
        match number >> 32 {
            1 => Some(Self::Worker(number as u32)),
            2 => Some(Self::Template(number as u32)),
            _ => None,
        }
    }
}

/// Wakes the thread that sleeps in [`Poller::wait`], or the next that would.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<OwnedFd>);

impl Alarm {
    pub(crate) fn ring(&self) {
        // It is registered with its edges, so it is never read; it would take centuries to fill.
        if let Err(error) = rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "the session's alarm");
        }
    }
}

/// Which sockets are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<OwnedFd>);

impl Watch {
    /// Watches a socket for what can be read, until it is removed or closed.
    pub(crate) fn add(&self, socket: impl AsFd, source: Source) -> Result<(), Errno> {
        epoll::add(&self.0, socket, EventData::new_u64(source.to_u64()), EventFlags::IN)
    }

    /// Whether it is also watched for room to write.
    pub(crate) fn room(&self, socket: impl AsFd, source: Source, watch: bool) -> Result<(), Errno> {
        let flags = if watch { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.0, socket, EventData::new_u64(source.to_u64()), flags)
    }

    /// Watches it no more. What has ended is always ready, and would be reported for ever.
    pub(crate) fn remove(&self, socket: impl AsFd) {
        // It may have been removed before.
        let _ = epoll::delete(&self.0, socket);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Poller {
    watch: Watch,
    alarm: Alarm,
    timer: OwnedFd,
    /// When the timer rings.
    armed: Option<u64>,
    ready: Vec<Source>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let alarm = Alarm(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        for (fd, number) in [(alarm.0.as_fd(), ALARM), (timer.as_fd(), TIMER)] {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN | EventFlags::ET)?;
        }
        Ok(Self { watch: Watch(Arc::new(epoll)), alarm, timer, armed: None, ready: Vec::new() })
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Wakes who sleeps here at `at`, in ns of the monotonic clock, or before.
    pub(crate) fn arm(&mut self, at: u64) {
        // A timer that rings for nothing is cheaper than one that is set anew for each task.
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        self.armed = Some(at);
        let value = Timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec) {
            tracing::error!(%error, "timer");
        }
    }

    /// Waits until a source is ready, the alarm or the timer rings, or `limit` has passed, which counts in whole
    /// milliseconds. True if something was there; false also after a signal.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> bool {
        let limit = limit.map(|limit| {
            let ms = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
            Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
        });
        let mut events = [const { MaybeUninit::<Event>::uninit() }; MOST_EVENTS];
        let events = match epoll::wait(&self.watch.0, &mut events, limit.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return false,
            Err(error) => {
                tracing::error!(%error, "waiting for sockets");
                return false;
            }
        };
        for number in events.iter().map(|event| event.data.u64()) {
            if number == TIMER {
                self.armed = None;
            }
            self.ready.extend(Source::from_u64(number));
        }
        !events.is_empty()
    }

    /// The sources that were ready when it was last waited.
    pub(crate) fn ready(&mut self) -> Vec<Source> {
        std::mem::take(&mut self.ready)
    }
}
