//! The session: head and node in one event loop, which one thread at a time runs.
//!
//! In each turn everything that has arrived is handled, the head schedules once, and each worker is written to once.
//! `lead` is how a thread runs it, `frames` what workers say, `drivers` what driver roles ask for, `orders` what the head has
//! the node do, `inspect` what a user may see.

mod drivers;
mod frames;
mod inspect;
mod interrupts;
mod lead;
mod orders;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent};
use eagleray_core::ids::{PeerId, WorkerId};
use eagleray_core::message::{End, FromNode};
use eagleray_core::node::{Node, NodeEffect};
use eagleray_store::{Arena, ArenaConfig, Location};
use parking_lot::Mutex;

use self::inspect::Inspection;
use self::interrupts::Interrupt;
use self::lead::Lead;
use crate::calls::Batch;
use crate::client::commands_of;
use crate::command::Ended;
use crate::history::{History, PastRun};
use crate::objects::{DRIVER, Objects, Recycled};
use crate::poller::Poller;
use crate::pool::Pool;
use crate::program::Value;
use crate::programs::Programs;
use crate::seat::Seat;
use crate::shared::{Input, SessionError, Shared};
use crate::spin::Spin;
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
    /// What is done to that command before each start. For what only `unsafe` code can do, which this crate has none of.
    pub template_setup: fn(&mut Command),
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
    lead: Arc<Lead>,
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
        let poller = Poller::new().map_err(|e| failed(&e))?;
        let arena = Arena::new(ArenaConfig {
            owner: DRIVER,
            budget: config.store_bytes,
            escape_dir: config.session_dir.clone(),
            segment_size: ArenaConfig::SEGMENT_SIZE,
        });
        let shared = Arc::new(Shared::new(Seat::new(poller.alarm().clone()), arena));
        let mut environment = config.environment;
        environment.push((SESSION_DIR.into(), config.session_dir.into_os_string()));
        environment.push((STORE_BYTES.into(), config.store_bytes.to_string().into()));
        if config.timeline {
            environment.push((RECORD_TIMES.into(), "1".into()));
        }
        let zero = config.zero_worker.map(Value::Inline);
        let preload = if zero.is_none() { config.preload } else { Vec::new() };
        let state = Loop {
            head: Head::new(HeadConfig { keeps_ended: true, ..config.head }),
            node: Node::new(),
            pool: Pool::new(poller.watch().clone(), config.template, config.template_setup, environment, preload),
            objects: Objects::new(Arc::downgrade(&shared)),
            programs: Programs::default(),
            history: History::new(config.remembered_tasks, config.timeline),
            store_bytes,
            shared: Arc::clone(&shared),
            poller,
            spin: Spin::default(),
            polled_at: 0,
            inputs: Vec::new(),
            by_session: false,
            postponed: Vec::new(),
            zero,
            recycled: Recycled::default(),
            answers: Vec::new(),
            inspections: Vec::new(),
            interrupts: Vec::new(),
            stopping: false,
            warned: false,
        };
        let lead = Arc::new(Lead::new(shared, state));
        let leads = Arc::clone(&lead);
        let thread = std::thread::Builder::new().name("eagleray".into()).spawn(move || leads.run());
        Ok(Self { lead, thread: Mutex::new(Some(thread.map_err(|e| failed(&e))?)) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.lead.shared()
    }

    /// Has workers replaced, before what is submitted from now on: those that are idle at once, others when they are.
    pub fn renew_workers(&self) -> Result<(), SessionError> {
        self.shared().seat.send(Input::Renew, false)
    }

    /// Ends the workers and the thread, and waits for both.
    pub fn stop(&self) {
        // The thread may have ended already.
        let _ = self.shared().seat.send(Input::Stop, true);
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

#[derive(Debug)]
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
    poller: Poller,
    spin: Spin,
    /// When sockets were looked at last.
    polled_at: u64,
    /// To be handled in the next turn.
    inputs: Vec<Input>,
    /// The session's thread leads: a template process may be started. It would inherit what a thread of the driver has for
    /// itself: its processors, its priority.
    by_session: bool,
    /// Workers that wait for a template process to be started.
    postponed: Vec<WorkerId>,
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
    /// The calls of the driver that nobody has taken, and before them in `inputs` all that it sent earlier.
    fn take_calls(&self, inputs: &mut Vec<Input>) -> Option<Batch> {
        let mut open = self.shared.calls.lock();
        self.shared.seat.take_inputs(inputs);
        open.take()
    }

    /// Handles all that has arrived.
    fn turn(&mut self, now: u64) {
        let mut inputs = std::mem::take(&mut self.inputs);
        let calls = self.take_calls(&mut inputs);
        for id in std::mem::take(&mut self.postponed) {
            self.start_worker(id);
        }
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
                #[cfg(test)]
                Input::Panic => panic!("a turn of the loop"),
            }
        }
        self.inputs = inputs;
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
        if self.head.is_idle() && (self.by_session || !self.pool.wants_preload()) {
            self.rest(now);
        }
        self.interrupt(now);
        self.objects.collect_unpinned(&mut self.recycled);
        self.recycle();
        let frames = self.pool.flush();
        self.arm();
        self.publish_counters(frames);
        // Last: who is answered may look at the counters.
        if !self.inspections.is_empty() {
            self.answer_inspections();
            self.shared.counters.lock().frames += self.pool.flush();
        }
        for (token, ended) in self.answers.drain(..) {
            self.shared.seat.answer(token, ended);
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
        if let Some(at) = at {
            self.poller.arm(at);
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
