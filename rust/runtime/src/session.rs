//! The session: head and node on one thread, with one event loop.
//!
//! In each turn everything that has arrived is handled, the head schedules once, and each worker is written to once.

use std::ffi::OsString;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use bytes::Bytes;
use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent};
use eagleray_core::ids::{GraphId, PeerId, WorkerId};
use eagleray_core::message::{
    Failure, FailureKind, FromDriver, FromNode, Report, Run, ToDriver, ToHead, ToNode, output,
};
use eagleray_core::node::{Node, NodeEffect};
use eagleray_store::{Arena, ArenaConfig, Location};
use parking_lot::Mutex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::command::{Answer, Command, Ended};
use crate::objects::{DRIVER, Objects, Recycled, holder_of};
use crate::pool::Pool;
use crate::program::{RunProgram, Value};
use crate::programs::Programs;
use crate::shared::{Input, SessionError, Shared};
use crate::socket::watch;
use crate::wire::{self, FromWorker, ToWorker, WireError};

/// The environment variable that names a worker's session directory.
pub const SESSION_DIR: &str = "EAGLERAY_SESSION_DIR";

/// The environment variable that says how many bytes of segments a worker may own.
pub const STORE_BYTES: &str = "EAGLERAY_STORE_BYTES";

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
        let zero = config.zero_worker.map(Value::Inline);
        let state = Loop {
            head: Head::new(config.head),
            node: Node::new(),
            pool: Pool::new(config.template, environment, config.preload),
            objects: Objects::new(shared.input.clone()),
            programs: Programs::default(),
            shared: Arc::clone(&shared),
            inputs,
            timer,
            armed: None,
            zero,
            recycled: Recycled::default(),
            answers: Vec::new(),
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
    shared: Arc<Shared>,
    inputs: UnboundedReceiver<Input>,
    timer: AsyncFd<OwnedFd>,
    /// When the timer rings.
    armed: Option<u64>,
    zero: Option<Value>,
    recycled: Recycled,
    /// For the driver, at the end of the turn.
    answers: Vec<(u64, Ended)>,
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

    /// Handles all that has arrived.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        let now = now_ns();
        for input in inputs.drain(..) {
            match input {
                Input::Command(command) => self.command(now, PeerId::USER, command),
                Input::Segment { id, size, fd } => {
                    if let Err(error) = self.add_segment(id, size, fd) {
                        tracing::error!(%error, "a segment of the driver");
                    }
                }
                // They are collected in each turn.
                Input::Unpinned => {}
                Input::Stop => self.stopping = true,
            }
        }
        self.read_workers(now);
        for (worker, death) in self.pool.exits() {
            // What it wrote before it died still counts.
            while let Ok(Some(frame)) = self.pool.frame(worker) {
                if self.frame(now, worker, frame).is_err() {
                    break;
                }
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
        self.objects.collect_unpinned(&mut self.recycled);
        self.recycle();
        let frames = self.pool.flush();
        self.arm();
        self.publish_counters(frames);
        // Last: who was answered may look at the counters.
        for (token, ended) in self.answers.drain(..) {
            self.shared.answer(token, ended);
        }
    }

    fn read_workers(&mut self, now: u64) {
        let ids: Vec<WorkerId> = self.pool.workers.keys().copied().collect();
        for id in ids {
            loop {
                let result = match self.pool.frame(id) {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.frame(now, id, frame),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(fault) = result {
                    self.close_worker(id, fault);
                    break;
                }
            }
        }
    }

    /// A worker sent what does not fit: it is told why, and ended.
    fn close_worker(&mut self, id: WorkerId, fault: String) {
        tracing::error!(worker = id.0, fault, "a worker is ended");
        self.pool.kill(id, Some(fault.into()));
    }

    fn frame(&mut self, now: u64, id: WorkerId, frame: Bytes) -> Result<(), String> {
        self.shared.counters.lock().frames += 1;
        let Self { objects, .. } = self;
        // Nobody publishes what another process has written.
        let mut resolve = |location: Location| {
            if location.owner() != holder_of(id) {
                return Err(WireError::Inconsistent("a block of another process"));
            }
            objects.block(location)
        };
        let message = wire::read_from_worker(id, frame, &mut resolve).map_err(|e| e.to_string())?;
        match message {
            FromWorker::Hello { pid } => {
                self.node.hello(id).map_err(|e| e.to_string())?;
                tracing::debug!(worker = id.0, pid, "a worker is up");
                if let Some(worker) = self.pool.workers.get_mut(&id) {
                    worker.up(pid);
                }
            }
            FromWorker::Report { report, values, wakeups } => {
                self.node.check(&report).map_err(|e| e.to_string())?;
                self.report(now, id, report, values, wakeups)?;
            }
            FromWorker::Published(object, value) => {
                if object.graph.seq == 0 {
                    return Err("it publishes what was put".into());
                }
                let place = value.as_ref().map(wire::place_of);
                if let Some(value) = value {
                    self.count_value(&value);
                    self.objects.insert(object, value, &mut self.recycled).map_err(|e| e.to_string())?;
                }
                self.tell_head(now, FromNode::Published { worker: id, object, place });
            }
            FromWorker::Segment { id: segment, .. } | FromWorker::SegmentGone(segment)
                if eagleray_store::owner(segment) != holder_of(id) =>
            {
                return Err("it speaks of another process's segment".into());
            }
            FromWorker::Segment { id: segment, size } => {
                let Some(worker) = self.pool.workers.get_mut(&id) else { return Ok(()) };
                let fd = worker.reader.take_fd().map_err(|e| e.to_string())?;
                self.add_segment(segment, size, fd).map_err(|e| e.to_string())?;
            }
            FromWorker::SegmentGone(segment) => self.segment_gone(segment),
            FromWorker::Unpin(locations) => self.objects.unpin(id, &locations, &mut self.recycled),
            FromWorker::Driver(command) => {
                if !self.head.has_worker(id) {
                    return Err("it submits or asks before it is up".into());
                }
                let peer = PeerId::of_worker(id);
                self.fits(peer, &command)?;
                self.command(now, peer, command);
            }
        }
        Ok(())
    }

    /// Whether a worker may say this: what the tables here hold of others is not to be touched. The rest the head checks.
    fn fits(&self, peer: PeerId, command: &Command) -> Result<(), String> {
        let fits = match command {
            Command::Submit(spec, _) => spec.id.peer == peer,
            Command::Extend { graph, .. } => graph.peer == peer,
            // Of a graph that is over, the head knows what to do.
            Command::Supply(object, _) => {
                object.graph.peer == peer && (!self.head.has_graph(object.graph) || self.programs.has_task(*object))
            }
            Command::Put(object, _) => object.graph == GraphId::puts(peer) && !self.objects.contains(*object),
            Command::Hold(_)
            | Command::Release(_)
            | Command::Await { .. }
            | Command::Forget(_)
            | Command::Cancel(_) => true,
        };
        if fits { Ok(()) } else { Err("it speaks of a graph or an object that is not its own".into()) }
    }

    fn add_segment(&mut self, id: u64, size: u64, fd: OwnedFd) -> Result<(), WireError> {
        if eagleray_store::is_file(id) && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("the object store is full: values go to files in the session directory, which is slower");
        }
        self.objects.add_segment(id, size, fd)
    }

    fn report(
        &mut self,
        now: u64,
        id: WorkerId,
        report: Report,
        values: Vec<(u32, Value)>,
        wakeups: u32,
    ) -> Result<(), String> {
        for (index, value) in values {
            let worker = self.pool.workers.get(&id);
            let object = worker.and_then(|worker| worker.object(report.run.seq, index));
            let object = object.ok_or("it reports a result of no task")?;
            self.count_value(&value);
            self.objects.insert(object, value, &mut self.recycled).map_err(|e| e.to_string())?;
        }
        let (upto, troubles) = (report.upto, report.troubles.len());
        tracing::trace!(worker = id.0, run = report.run.seq, upto, ended = report.ended, troubles, "report");
        self.shared.counters.lock().wakeups += u64::from(wakeups);
        let tasks: u64 = report.timings.iter().map(|t| u64::from(t.count)).sum();
        if let Some(worker) = self.pool.workers.get_mut(&id) {
            worker.progressed(tasks, report.ended);
        }
        self.tell_head(now, FromNode::Report(report));
        Ok(())
    }

    fn count_value(&self, value: &Value) {
        let mut counters = self.shared.counters.lock();
        match value {
            Value::Inline(_) => counters.inline += 1,
            Value::Sealed(_) => counters.sealed += 1,
        }
    }

    fn tell_head(&mut self, now: u64, message: FromNode) {
        self.head.handle(now, HeadEvent::Node(message));
    }

    fn command(&mut self, now: u64, peer: PeerId, command: Command) {
        let message = match command {
            Command::Submit(spec, program) => {
                let (graph, tasks) = (spec.id.seq, spec.inputs.len());
                tracing::debug!(peer = peer.0, graph, tasks, "a graph is submitted");
                self.node.nudge();
                let submitted =
                    self.programs.submit(spec.id, spec.inputs.len() as u32, spec.externals.clone(), *program);
                if let Err(error) = submitted {
                    self.refuse(peer, error.to_string());
                    return;
                }
                let graph = spec.id;
                self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message: ToHead::Submit(spec) }));
                if !self.head.has_graph(graph) {
                    self.programs.forget(graph);
                }
                return;
            }
            Command::Extend { graph, part, admit_upto } => {
                self.shared.counters.lock().pickles += (part.functions.len() + part.batches.len()) as u64;
                self.programs.extend(graph, part);
                ToHead::Admit { graph, upto: admit_upto }
            }
            Command::Supply(object, value) => {
                let place = wire::place_of(&value);
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                ToHead::Supply { object, place }
            }
            Command::Put(object, value) => {
                let place = wire::place_of(&value);
                if let Err(error) = self.objects.insert(object, value, &mut self.recycled) {
                    self.refuse(peer, error.to_string());
                    return;
                }
                ToHead::Put { object, place }
            }
            Command::Hold(objects) => ToHead::Hold(objects),
            Command::Release(objects) => ToHead::Release(objects),
            Command::Await { token, objects, need, fail_fast } => ToHead::Await { token, objects, need, fail_fast },
            Command::Forget(token) => ToHead::Forget { token },
            Command::Cancel(graph) => {
                tracing::debug!(peer = graph.peer.0, graph = graph.seq, "a graph is cancelled");
                ToHead::Cancel { graph }
            }
        };
        self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message }));
    }

    fn refuse(&mut self, peer: PeerId, why: String) {
        match peer.worker() {
            None => {
                tracing::error!(why, "a message of the driver was refused");
                self.shared.end(SessionError::Refused(why.into()));
            }
            Some(worker) => {
                if let Some(process) = self.pool.workers.get_mut(&worker) {
                    process.send(&ToWorker::Refused(why.clone()));
                }
                self.close_worker(worker, why);
            }
        }
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
                    Effect::ToDriver { peer, message: ToDriver::Awaited { token, ended } } => {
                        self.answer(peer, token, ended);
                    }
                    Effect::ToDriver { peer, message: ToDriver::Refused(why) } => self.refuse(peer, why.to_string()),
                }
            }
            if !moved {
                break;
            }
        }
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
                    self.node.replace(id);
                }
            }
        }
        self.settle(now);
    }

    fn start_worker(&mut self, id: WorkerId) {
        if self.zero.is_some() {
            // Nobody there: the worker is an idea.
            let _ = self.node.hello(id);
        } else if let Err(death) = self.pool.start(id) {
            tracing::error!(?death, "a worker does not start");
            self.node.exited(id, death, None);
        }
    }

    fn to_node(&mut self, now: u64, message: ToNode) {
        match message {
            ToNode::Assign(run) if self.zero.is_some() => self.pretend(now, run),
            ToNode::Assign(run) => self.assign(now, run),
            ToNode::Recall { run, from } => {
                let Some(worker) = self.pool.workers.get_mut(&run.worker) else { return };
                if let Some(limit) = worker.recall(run.seq, from) {
                    tracing::debug!(worker = run.worker.0, run = run.seq, from = limit, "tasks are recalled");
                    self.tell_head(now, FromNode::Recalled { run, limit });
                }
            }
            ToNode::Publish { worker, objects, seal } => {
                self.request(worker, &ToWorker::Publish { objects, seal });
            }
            ToNode::Drop { worker, objects } => self.request(worker, &ToWorker::Drop(objects)),
            ToNode::Free(objects) => {
                for object in objects {
                    self.objects.remove(object, &mut self.recycled);
                }
            }
            ToNode::Forget(graph) => self.forget(graph),
            ToNode::Want(workers) => self.node.want(workers),
            ToNode::Stop(id) => {
                tracing::debug!(worker = id.0, "a worker is not needed any more");
                self.node.stopping(id);
                if let Some(worker) = self.pool.workers.get_mut(&id) {
                    worker.stop();
                }
            }
            ToNode::Kill(id) => {
                tracing::debug!(worker = id.0, "a worker is killed: its task was cancelled and does not end");
                self.pool.kill(id, None);
            }
            ToNode::Sample(id) => {
                let Some(worker) = self.pool.workers.get(&id) else { return };
                let sampled = worker.sample(id, now);
                self.tell_head(now, sampled);
            }
        }
    }

    /// Sends what a worker should read before its next task.
    fn request(&mut self, id: WorkerId, message: &ToWorker) {
        if let Some(worker) = self.pool.workers.get_mut(&id) {
            worker.send(message);
            worker.page().request();
        }
    }

    fn forget(&mut self, graph: GraphId) {
        tracing::debug!(peer = graph.peer.0, graph = graph.seq, "a graph is over");
        let forgotten = self.programs.forget(graph);
        for id in forgotten.workers {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                worker.send(&ToWorker::Forget(graph));
            }
        }
        for (id, blobs) in forgotten.blobs {
            if let Some(worker) = self.pool.workers.get_mut(&id) {
                worker.send(&ToWorker::DropBlobs(blobs));
            }
        }
    }

    fn assign(&mut self, now: u64, run: Run) {
        let id = run.id.worker;
        if !self.node.assigned(&run) {
            return;
        }
        let (code, intros) = match self.programs.for_run(&run) {
            Ok(found) => found,
            Err(error) => {
                // The graph's driver sent a program that does not hold together.
                self.refuse(run.graph.peer, error.to_string());
                let (peer, message) = (run.graph.peer, ToHead::Cancel { graph: run.graph });
                self.head.handle(now, HeadEvent::Driver(FromDriver { peer, message }));
                self.close_worker(id, error.to_string());
                return;
            }
        };
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        let mut inputs = Vec::with_capacity(run.inputs.len());
        for &object in &run.inputs {
            // One that is not there is left out: the worker answers with what it misses.
            let Some((value, segment)) = self.objects.for_worker(object, id) else { continue };
            worker.introduce(segment);
            inputs.push((object, value));
        }
        let (seq, graph, tasks) = (run.id.seq, run.graph.seq, run.tasks.len());
        tracing::trace!(worker = id.0, run = seq, graph, tasks, inputs = inputs.len(), "a run is assigned");
        worker.open(&run);
        worker.send(&ToWorker::Run(RunProgram { run, code, intros, inputs }));
    }

    /// Zero-worker mode: all tasks of a run end at once.
    fn pretend(&mut self, now: u64, run: Run) {
        let Some(value) = self.zero.clone() else { return };
        if !self.node.assigned(&run) || self.programs.for_run(&run).is_err() {
            return;
        }
        let place = wire::place_of(&value);
        let mut published = Vec::new();
        for (index, &task) in run.tasks.iter().enumerate() {
            if run.outputs[index] & (output::PUBLISH | output::KEEP) != 0 {
                let object = eagleray_core::ids::ObjectId { graph: run.graph, index: task };
                if self.objects.insert(object, value.clone(), &mut self.recycled).is_err() {
                    continue;
                }
                published.push((index as u32, place));
            }
        }
        let upto = run.tasks.len() as u32;
        let timings = Vec::new();
        let report = Report { run: run.id, upto, ended: true, troubles: Vec::new(), published, timings };
        if self.node.check(&report).is_ok() {
            self.tell_head(now, FromNode::Report(report));
        }
    }

    fn answer(
        &mut self,
        peer: PeerId,
        token: u64,
        found: Vec<(eagleray_core::ids::ObjectId, Result<eagleray_core::message::Place, Failure>)>,
    ) {
        let lost = |object| Failure { origin: object, kind: FailureKind::Lost };
        match peer.worker() {
            None => {
                let ended: Ended = found
                    .into_iter()
                    .map(|(object, outcome)| {
                        let value = outcome.and_then(|_| self.objects.for_driver(object).ok_or_else(|| lost(object)));
                        (object, value)
                    })
                    .collect();
                self.answers.push((token, ended));
            }
            Some(id) => {
                let Some(worker) = self.pool.workers.get_mut(&id) else { return };
                let mut ended: Ended = Vec::with_capacity(found.len());
                for (object, outcome) in found {
                    let value = outcome.and_then(|_| {
                        let (value, segment) = self.objects.for_worker(object, id).ok_or_else(|| lost(object))?;
                        worker.introduce(segment);
                        Ok(value)
                    });
                    ended.push((object, value));
                }
                worker.send(&ToWorker::Awaited(Answer { token, ended }));
            }
        }
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

    /// Sets the timer to the head's next deadline.
    fn arm(&mut self) {
        let at = self.head.next_deadline();
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
