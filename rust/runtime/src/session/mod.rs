//! The session: head and node on one thread, with one event loop.
//!
//! In each turn everything that has arrived is handled, the head schedules once, and each worker is written to once.
//! `frames` is what workers say, `drivers` what driver roles ask for, `orders` what the head has the node do, `inspect` what
//! a user may see.

mod drivers;
mod frames;
mod inspect;
mod interrupts;
mod orders;

use std::ffi::OsString;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use bytes::Bytes;
use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent};
use eagleray_core::ids::{PeerId, WorkerId};
use eagleray_core::message::{End, FromNode};
use eagleray_core::node::{Node, NodeEffect};
use eagleray_store::{Arena, ArenaConfig, Location};
use parking_lot::Mutex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::inspect::Inspection;
use self::interrupts::Interrupt;
use crate::calls::Batch;
use crate::client::commands_of;
use crate::command::Ended;
use crate::history::{History, PastRun};
use crate::objects::{DRIVER, Objects, Recycled};
use crate::pool::Pool;
use crate::program::Value;
use crate::programs::Programs;
use crate::shared::{Input, SessionError, Shared};
use crate::socket::watch;
use crate::wire::ToWorker;

/// The environment variable that names a worker's session directory.
pub const SESSION_DIR: &str = "EAGLERAY_SESSION_DIR";

/// The environment variable that says how many bytes of segments a worker may own.
pub const STORE_BYTES: &str = "EAGLERAY_STORE_BYTES";

/// The environment variable that has workers record when tasks run, if it is set.
pub const RECORD_TIMES: &str = "EAGLERAY_RECORD_TIMES";

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Of the head.
    pub head: HeadConfig,
    /// The command line of the template process.
    pub template: Vec<OsString>,
    /// Modules that workers forked later should have imported.
    pub preload: Vec<String>,
    /// Bytes of segments that each process may own.
    pub store_bytes: u64,
    /// A private directory, which exists.
    pub session_dir: PathBuf,
    /// What the templates' environment has beside that of this process, and so the workers'.
    pub environment: Vec<(OsString, OsString)>,
    /// So many tasks that have ended are remembered, to be looked at.
    pub remembered_tasks: u64,
    /// Of as many it is recorded when they ran.
    pub timeline: bool,
    /// No processes: each task ends at once, with this value. For measuring what the head and the node cost.
    pub zero_worker: Option<Bytes>,
}

/// A running session. Dropping it stops it.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Session {
    /// Starts the thread and, through it, the workers.
    pub fn start(config: SessionConfig) -> Result<Self, SessionError> {
        let failed = |error: &dyn std::fmt::Display| SessionError::Start(error.to_string().into());
        let (slots, store_bytes) = (config.head.slots, config.store_bytes);
        tracing::info!(slots, store_bytes, directory = %config.session_dir.display(), "the session starts");
        let (input, inputs) = unbounded_channel();
        let arena = Arena::new(ArenaConfig {
            owner: DRIVER,
            budget: config.store_bytes,
            escape_dir: config.session_dir.clone(),
            segment_size: ArenaConfig::SEGMENT_SIZE,
        });
        let shared = Arc::new(Shared::new(input, arena));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(|e| failed(&e))?;
        let timer = {
            let _entered = runtime.enter();
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
            watch(timer.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?
        };
        let mut environment = config.environment;
        environment.push((SESSION_DIR.into(), config.session_dir.into_os_string()));
        environment.push((STORE_BYTES.into(), config.store_bytes.to_string().into()));
        if config.timeline {
            environment.push((RECORD_TIMES.into(), "1".into()));
        }
        let zero = config.zero_worker.map(Value::Inline);
        let state = Loop {
            head: Head::new(HeadConfig { keeps_ended: true, ..config.head }),
            node: Node::new(),
            pool: Pool::new(config.template, environment, config.preload),
            objects: Objects::new(shared.input.clone()),
            programs: Programs::default(),
            history: History::new(config.remembered_tasks, config.timeline),
            store_bytes,
            shared: Arc::clone(&shared),
            inputs,
            timer,
            armed: None,
            zero,
            recycled: Recycled::default(),
            answers: Vec::new(),
            inspections: Vec::new(),
            interrupts: Vec::new(),
            stopping: false,
            warned: false,
        };
        let thread = std::thread::Builder::new()
            .name("eagleray".into())
            .spawn(move || {
                runtime.block_on(state.run());
                // Nothing of the runtime may outlive the thread.
                drop(runtime);
            })
            .map_err(|e| failed(&e))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has workers replaced, before what is submitted from now on: those that are idle at once, others when they are.
    pub fn renew_workers(&self) -> Result<(), SessionError> {
        self.shared.input.send(Input::Renew).map_err(|_| self.shared.ended().unwrap_or(SessionError::Ended))
    }

    /// Ends the workers and the thread, and waits for both.
    pub fn stop(&self) {
        // The thread may have ended already.
        let _ = self.shared.input.send(Input::Stop);
        if let Some(thread) = self.thread.lock().take() {
            tracing::info!("the session stops");
            if thread.join().is_err() {
                tracing::error!("the session's thread has panicked");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that the session is over, however its thread ends.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(SessionError::Ended);
    }
}

struct Loop {
    head: Head,
    node: Node,
    pool: Pool,
    objects: Objects,
    programs: Programs,
    history: History,
    /// Bytes of segments that each process may own.
    store_bytes: u64,
    shared: Arc<Shared>,
    inputs: UnboundedReceiver<Input>,
    timer: AsyncFd<OwnedFd>,
    /// When the timer rings.
    armed: Option<u64>,
    zero: Option<Value>,
    recycled: Recycled,
    /// For the driver, at the end of the turn.
    answers: Vec<(u64, Ended)>,
    /// Who wants to see how things stand.
    inspections: Vec<Inspection>,
    /// Tasks to interrupt.
    interrupts: Vec<Interrupt>,
    stopping: bool,
    /// That the object store is full was said.
    warned: bool,
}

impl Loop {
    async fn run(mut self) {
        let _end = EndGuard(Arc::clone(&self.shared));
        let mut inputs = Vec::new();
        loop {
            self.turn(&mut inputs);
            if self.stopping {
                break;
            }
            self.wait(&mut inputs).await;
        }
        self.pool.stop();
    }

    /// Waits until something has arrived, and reads it.
    async fn wait(&mut self, inputs: &mut Vec<Input>) {
        let mut slept = false;
        poll_fn(|cx| {
            let mut got = self.pool.poll(cx);
            while let Poll::Ready(Some(input)) = self.inputs.poll_recv(cx) {
                inputs.push(input);
                got = true;
            }
            while let Poll::Ready(Ok(mut guard)) = self.timer.poll_read_ready(cx) {
                let mut ticks = [0; 8];
                match rustix::io::read(self.timer.get_ref(), &mut ticks) {
                    Ok(_) => {
                        self.armed = None;
                        got = true;
                    }
                    Err(_) => guard.clear_ready(),
                }
            }
            if got {
                return Poll::Ready(());
            }
            slept = true;
            Poll::Pending
        })
        .await;
        if slept {
            self.shared.counters.lock().wakeups += 1;
        }
    }

    /// The calls of the driver that nobody has taken, and before them in `inputs` all that it sent earlier.
    fn take_calls(&mut self, inputs: &mut Vec<Input>) -> Option<Batch> {
        let mut open = self.shared.calls.lock();
        open.as_ref()?;
        while let Ok(input) = self.inputs.try_recv() {
            inputs.push(input);
        }
        open.take()
    }

    /// Handles all that has arrived.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        let now = now_ns();
        let calls = self.take_calls(inputs);
        for input in inputs.drain(..) {
            match input {
                Input::Command(command) => self.command(now, PeerId::USER, command),
                Input::Segment { id, size, fd } => {
                    if let Err(error) = self.add_segment(id, size, fd) {
                        tracing::error!(%error, "a segment of the driver");
                    }
                }
                // They are collected in each turn.
                Input::Unpinned | Input::Calls => {}
                Input::Renew => self.renew(),
                Input::Timeline(asked) => self.inspections.push(Inspection::Timeline(asked)),
                Input::Inspect(look, asked) => self.inspections.push(Inspection::Session(look, asked)),
                Input::Stop => self.stopping = true,
            }
        }
        for command in calls.into_iter().flat_map(commands_of) {
            self.command(now, PeerId::USER, command);
        }
        self.read_workers(now);
        for (worker, death) in self.pool.exits() {
            // What it wrote before it died still counts.
            while let Ok(Some(frame)) = self.pool.frame(worker) {
                if self.frame(now, worker, frame).is_err() {
                    break;
                }
            }
            let unfinished: Vec<PastRun> =
                self.pool.workers.get(&worker).into_iter().flat_map(|w| w.past_runs(now)).collect();
            for run in unfinished {
                self.history.add_run(run);
            }
            let (death, running) = self.pool.remove(worker, death);
            tracing::debug!(worker = worker.0, pid = death.pid, how = ?death.end, amid = ?running, "a worker has ended");
            self.node.exited(worker, death, running);
            self.programs.worker_gone(worker);
            self.objects.worker_gone(worker, &mut self.recycled);
        }
        if self.head.next_deadline().is_some_and(|at| at <= now) {
            self.head.handle(now, HeadEvent::Tick);
        }
        self.settle(now);
        if self.head.is_idle() {
            self.rest(now);
        }
        self.interrupt(now);
        self.objects.collect_unpinned(&mut self.recycled);
        self.recycle();
        self.answer_inspections();
        let frames = self.pool.flush();
        self.arm();
        self.publish_counters(frames);
        // Last: who was answered may look at the counters.
        for (token, ended) in self.answers.drain(..) {
            self.shared.answer(token, ended);
        }
    }

    fn tell_head(&mut self, now: u64, message: FromNode) {
        self.head.handle(now, HeadEvent::Node(message));
    }

    /// Lets head and node answer each other until both have said all.
    fn settle(&mut self, now: u64) {
        loop {
            let effects: Vec<NodeEffect> = self.node.drain().collect();
            let mut moved = !effects.is_empty();
            for effect in effects {
                match effect {
                    NodeEffect::Start(worker) => self.start_worker(worker),
                    NodeEffect::ToHead(message) => self.tell_head(now, message),
                }
            }
            self.head.schedule(now);
            let effects: Vec<Effect> = self.head.drain().collect();
            moved |= !effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::ToNode(message) => self.to_node(now, message),
                    Effect::ToDriver { peer, message } => self.to_driver(now, peer, message),
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// No worker that is idle now gets anything more to do. One that is busy ends when it has nothing left. One that has an
    /// actor stays: an actor is what it was made from.
    fn renew(&mut self) {
        let up = self.pool.workers.iter().filter(|(_, worker)| worker.is_up()).map(|(&id, _)| id);
        let ids: Vec<WorkerId> = up.filter(|&id| !self.head.is_actors(id)).collect();
        for id in ids {
            self.retire(id);
        }
    }

    /// Another worker takes the place of this one, which ends when it has nothing left.
    pub(super) fn retire(&mut self, id: WorkerId) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        worker.stop();
        if worker.is_idle() {
            self.let_go(id);
        } else {
            self.node.replace(id);
        }
    }

    /// A worker that was asked to end has nothing to do. It is as good as gone, and runs nothing that could be lost: what
    /// follows must not go to it. It might read that before it ends, make an actor, and take it along.
    fn let_go(&mut self, id: WorkerId) {
        self.node.exited(id, End::Exited(0).into(), None);
    }

    /// Nothing is to be done: workers without the driver's modules make room for workers that have them.
    fn rest(&mut self, now: u64) {
        let old = self.pool.rest();
        if old.is_empty() {
            return;
        }
        for id in old {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                if worker.stop() {
                    self.let_go(id);
                }
            }
        }
        self.settle(now);
    }

    /// Hands freed blocks back to their owners.
    fn recycle(&mut self) {
        let mut recycled = std::mem::take(&mut self.recycled);
        recycled.blocks.sort_unstable_by_key(Location::owner);
        for blocks in recycled.blocks.chunk_by(|a, b| a.owner() == b.owner()) {
            let owner = blocks[0].owner();
            if owner != DRIVER {
                if let Some(worker) = self.pool.workers.get_mut(&WorkerId(owner - 1)) {
                    worker.send(&ToWorker::Recycle(blocks.to_vec()));
                }
                continue;
            }
            let arena = &self.shared.arena;
            for &block in blocks {
                if let Err(error) = arena.free(block) {
                    tracing::error!(%error, "a block of the driver");
                }
            }
            recycled.segments.extend(arena.take_dropped_segments());
        }
        for segment in recycled.segments {
            self.segment_gone(segment);
        }
    }

    fn segment_gone(&mut self, segment: u64) {
        for id in self.objects.remove_segment(segment) {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                worker.send(&ToWorker::SegmentGone(segment));
            }
        }
    }

    /// Sets the timer to the next deadline.
    fn arm(&mut self) {
        let at = self.head.next_deadline().into_iter().chain(self.next_interrupt()).min();
        if at == self.armed {
            return;
        }
        self.armed = at;
        let ns = at.unwrap_or(0);
        let value = Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec) {
            tracing::error!(%error, "timer");
        }
    }

    fn publish_counters(&mut self, frames: u64) {
        let head = self.head.counters();
        let mut counters = self.shared.counters.lock();
        counters.frames += frames;
        counters.runs = head.runs;
        counters.tasks = head.tasks;
        counters.recalls = head.recalls;
        counters.moved = head.moved;
        counters.reruns = head.reruns;
        counters.objects = self.objects.len() as u64;
        counters.sealed_bytes = self.objects.sealed_bytes();
        drop(counters);
        *self.shared.workers.lock() = self.pool.infos();
    }
}
