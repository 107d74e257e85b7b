//! The worker process: reads runs, executes them, answers requests, and plays the driver role for tasks that compute.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{Report, Timing, Trouble};
use eagleray_runtime::client::{Client, ClientError, Port};
use eagleray_runtime::command::{Command, Ended};
use eagleray_runtime::link::{Link, LinkConfig, LinkError};
use eagleray_runtime::program::{Intro, RetryFilter, RunProgram, Value};
use eagleray_runtime::session::{SESSION_DIR, STORE_BYTES, now_ns};
use eagleray_runtime::{FromWorker, SessionError, SocketError, ToWorker};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::devices::Visible;
use crate::executor::{Executor, RunIo};
use crate::pickles::payload;
use crate::raw;
use crate::role::{Kind, Role};
use crate::template::CLASS;
use crate::value::{self, Encoded, Payload};

/// A published result waits at most this long for the report of its run, in ns.
const REPORT_NS: u64 = 1_000_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of a run is done and not reported.
#[derive(Debug, Default)]
struct Unreported {
    upto: u32,
    /// Tasks before this one are reported.
    reported: u32,
    troubles: Vec<(u32, Trouble)>,
    values: Vec<(u32, Value)>,
    timings: Vec<Timing>,
    /// When the oldest of the values was published.
    since_ns: u64,
}

/// A graph as far as this worker needs it.
#[derive(Debug, Default)]
struct GraphNote {
    len: u32,
    externals: Vec<ObjectId>,
    /// Classes whose last task here took less than [`REPORT_NS`].
    quick: FxHashSet<u32>,
    /// What surrounds its tasks, if not what this process had from the beginning.
    surroundings: Option<Bytes>,
}

/// See the module.
pub(crate) struct Worker {
    link: Link,
    executor: Executor,
    graphs: Mutex<FxHashMap<GraphId, GraphNote>>,
    /// Runs that came while a task was running.
    runs: Mutex<VecDeque<RunProgram>>,
    /// Runs being executed, the innermost last: a task that computes never starts another, so there is at most one; its
    /// report may be sent from inside the task.
    unreported: Mutex<Option<(RunId, Unreported)>>,
    answers: Mutex<FxHashMap<u64, Ended>>,
    /// What was asked for and is not done.
    chores: Mutex<VecDeque<ToWorker>>,
    stop: AtomicBool,
    /// Whether a thread reads the socket. It takes in what comes, for whomever it is.
    reading: Mutex<bool>,
    /// The reader has taken something in, or has stopped reading.
    news: Condvar,
    /// What was set last for the tasks of a graph.
    surroundings: Mutex<Option<Bytes>>,
    /// To be called when the present run is over.
    after_run: Mutex<Vec<Py<PyAny>>>,
}

/// That of this process, and the process.
static WORKER: OnceLock<(u32, Arc<Worker>)> = OnceLock::new();

/// That of this process, if it is a worker; one that a worker has forked is none.
fn this_worker() -> Option<&'static Arc<Worker>> {
    WORKER.get().filter(|(pid, _)| *pid == std::process::id()).map(|(_, worker)| worker)
}

fn os(error: LinkError) -> PyErr {
    PyOSError::new_err(error.to_string())
}

impl Worker {
    /// Puts a message where it will be looked for. Nothing of Python's is touched.
    fn enter(&self, message: ToWorker) {
        match message {
            ToWorker::Run(program) => lock(&self.runs).push_back(program),
            ToWorker::Awaited(answer) => {
                lock(&self.answers).insert(answer.token, answer.ended);
            }
            ToWorker::Stop => self.stop.store(true, Ordering::Relaxed),
            chore => lock(&self.chores).push_back(chore),
        }
    }

    /// Does what was asked for. It may run Python code, which may come back here.
    fn do_chores(&self) -> PyResult<()> {
        loop {
            let next = lock(&self.chores).pop_front();
            let Some(chore) = next else { return Ok(()) };
            Python::attach(|py| self.do_chore(py, chore))?;
        }
    }

    fn do_chore(&self, py: Python<'_>, message: ToWorker) -> PyResult<()> {
        match message {
            ToWorker::Publish { objects, seal } => {
                for object in objects {
                    self.publish_kept(py, object, seal)?;
                }
                self.link.flush().map_err(os)?;
            }
            ToWorker::Drop(objects) => objects.into_iter().for_each(|object| self.executor.drop_kept(object)),
            ToWorker::Forget(graph) => {
                self.executor.forget(graph);
                lock(&self.graphs).remove(&graph);
            }
            ToWorker::DropBlobs(blobs) => blobs.into_iter().for_each(|blob| self.executor.drop_blob(blob)),
            ToWorker::Refused(why) => return Err(PyRuntimeError::new_err(format!("the node refused: {why}"))),
            // Entered elsewhere, or the link's own.
            ToWorker::Run(_)
            | ToWorker::Awaited(_)
            | ToWorker::Stop
            | ToWorker::Recycle(_)
            | ToWorker::Segment { .. }
            | ToWorker::SegmentGone(_) => {}
        }
        Ok(())
    }

    /// Publishes a result that is kept. One that cannot be encoded is as good as lost.
    fn publish_kept(&self, py: Python<'_>, object: ObjectId, seal: bool) -> PyResult<()> {
        let kept = self.executor.kept(py, object).map(|value| value.into_bound(py));
        let value = match kept.as_ref().map(|value| value::encode(py, value)) {
            Some(Ok(encoded)) => {
                if let Some(value) = &kept {
                    self.executor.published(object.graph, value);
                }
                Some(self.link.store(encoded.len(), seal, |target| encoded.write_to(target)).map_err(os)?)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a result cannot be pickled");
                None
            }
            None => None,
        };
        self.link.send(&FromWorker::Published(object, value));
        Ok(())
    }

    fn introduce(&self, program: &mut RunProgram) -> PyResult<()> {
        let graph = program.run.graph;
        for intro in program.intros.drain(..) {
            match intro {
                Intro::Graph { len, externals } => {
                    lock(&self.graphs).insert(graph, GraphNote { len, externals, ..GraphNote::default() });
                }
                Intro::Function { id, blob, bytes } => {
                    if let Some(bytes) = bytes {
                        self.executor.add_blob(blob, Arc::new(bytes));
                    }
                    self.executor.add_function(graph, id, blob);
                }
                Intro::Template { id, template } => self
                    .executor
                    .add_template(graph, id, &template.code, template.functions)
                    .map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
                Intro::Batch { id, bytes } => self.executor.add_batch(graph, id, Arc::new(bytes)),
                Intro::Surroundings(bytes) => {
                    if let Some(note) = lock(&self.graphs).get_mut(&graph) {
                        // The frame it came in must not live as long as the graph.
                        note.surroundings = Some(Bytes::copy_from_slice(&bytes));
                    }
                }
                Intro::Hooks(bytes) => self.executor.set_hooks(graph, Arc::new(bytes)),
                Intro::RetryFilter(RetryFilter { classes, exceptions }) => {
                    let exceptions = exceptions.map(|exceptions| -> Payload { Arc::new(exceptions) });
                    self.executor.add_retry_filter(graph, &classes, exceptions.as_ref());
                }
            }
        }
        for (object, value) in program.inputs.drain(..) {
            self.executor.add_input(object, payload(value));
        }
        Ok(())
    }

    fn execute(&self, py: Python<'_>, mut program: RunProgram) -> PyResult<()> {
        self.introduce(&mut program)?;
        let run = program.run;
        tracing::trace!(run = run.id.seq, graph = run.graph.seq, tasks = run.tasks.len(), "a run begins");
        let (len, externals, quick, surroundings) = match lock(&self.graphs).get_mut(&run.graph) {
            Some(note) => {
                (note.len, note.externals.clone(), std::mem::take(&mut note.quick), note.surroundings.clone())
            }
            None => return Err(PyRuntimeError::new_err("a run of a graph that was not introduced")),
        };
        *lock(&self.unreported) = Some((run.id, Unreported::default()));
        let io = WorkerIo {
            worker: self,
            seq: run.id.seq,
            code: &program.code,
            now: Cell::new(0),
            quick: RefCell::new(quick),
            failed: Cell::new(None),
            obstacle: Cell::new(self.surround(py, surroundings).err()),
        };
        let externals = |k: u32| externals.get(k as usize).copied();
        let visible = Visible::only(py, &run.gpus)?;
        self.executor.execute(py, &run, &program.code, len, &externals, &io)?;
        visible.map_or(Ok(()), Visible::restore)?;
        self.call_after_run(py);
        if let Some(note) = lock(&self.graphs).get_mut(&run.graph) {
            note.quick = io.quick.into_inner();
        }
        self.report(true)?;
        // Not before: a task that has closed this process's descriptors, say, is known by the death that follows.
        self.link.page().rest();
        Ok(())
    }

    /// Sets what surrounds the tasks of a graph, unless it was set for the graph before.
    fn surround(&self, py: Python<'_>, surroundings: Option<Bytes>) -> PyResult<()> {
        static APPLY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if *lock(&self.surroundings) == surroundings {
            return Ok(());
        }
        // What an error leaves is what the process had from the beginning.
        *lock(&self.surroundings) = None;
        let data = surroundings.as_ref().map(|data| PyBytes::new(py, data));
        APPLY.import(py, "eagleray._surroundings", "apply")?.call1((data,))?;
        *lock(&self.surroundings) = surroundings;
        Ok(())
    }

    fn call_after_run(&self, py: Python<'_>) {
        let functions = std::mem::take(&mut *lock(&self.after_run));
        for function in functions {
            // No task is left whose failure it could be.
            let _ = function.call0(py);
        }
    }

    /// Sends what is not reported.
    fn report(&self, ended: bool) -> PyResult<()> {
        let mut unreported = lock(&self.unreported);
        let Some((run, state)) = unreported.as_mut() else { return Ok(()) };
        if !ended && state.upto == state.reported {
            return Ok(());
        }
        let run = *run;
        let upto = state.upto;
        let done = std::mem::take(state);
        // A result may be published whose task has not ended: a hook of it still runs, and computes.
        let (values, early): (Vec<_>, Vec<_>) = done.values.into_iter().partition(|(index, _)| *index < upto);
        *state = Unreported { upto, reported: upto, values: early, since_ns: done.since_ns, ..Unreported::default() };
        if ended {
            *unreported = None;
        }
        tracing::trace!(run = run.seq, upto, ended, "what is done is reported");
        let (troubles, timings) = (done.troubles, done.timings);
        let report = Report { run, upto, ended, troubles, published: Vec::new(), timings };
        let wakeups = self.link.take_wakeups();
        // Under the lock: another thread's report must not overtake this one.
        self.link.send(&FromWorker::Report { report, values, wakeups });
        drop(unreported);
        self.link.flush().map_err(os)
    }

    /// Takes in what comes until `done`; true, or false if `limit` has passed before. Of several threads one reads, for
    /// all. To be called without the GIL.
    fn pump(&self, limit: Option<Duration>, done: impl Fn() -> bool) -> Result<bool, PumpError> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        loop {
            let mut reading = lock(&self.reading);
            loop {
                if done() {
                    return Ok(true);
                }
                if left().is_some_and(|left| left.is_zero()) {
                    return Ok(false);
                }
                if !*reading {
                    break;
                }
                reading = match left() {
                    None => self.news.wait(reading).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => self.news.wait_timeout(reading, left).unwrap_or_else(PoisonError::into_inner).0,
                };
            }
            *reading = true;
            drop(reading);
            let read = self.link.next(left());
            let read = read.map(|message| message.map(|message| self.enter(message)));
            *lock(&self.reading) = false;
            self.news.notify_all();
            if read?.is_some() {
                self.do_chores()?;
                // Unpins and the like must not wait for the next report.
                self.link.flush()?;
            }
        }
    }

    /// Reads and executes until the node says stop, or is gone.
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        self.link.send(&FromWorker::Hello { pid: std::process::id() });
        self.link.flush().map_err(os)?;
        loop {
            let next = lock(&self.runs).pop_front();
            if let Some(program) = next {
                self.execute(py, program)?;
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let news = || !lock(&self.runs).is_empty() || self.stop.load(Ordering::Relaxed);
            match py.detach(|| self.pump(None, news)) {
                Ok(_) => {}
                Err(PumpError::Link(LinkError::Socket(SocketError::Gone))) => return Ok(()),
                Err(PumpError::Link(error)) => return Err(os(error)),
                Err(PumpError::Python(error)) => return Err(error),
            }
        }
    }
}

/// Why nothing more can be taken in.
enum PumpError {
    Link(LinkError),
    Python(PyErr),
}

impl From<LinkError> for PumpError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<PyErr> for PumpError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// The surroundings of a run in a worker.
struct WorkerIo<'a> {
    worker: &'a Worker,
    seq: u32,
    code: &'a Csr,
    /// The clock as it was last read.
    now: Cell<u64>,
    quick: RefCell<FxHashSet<u32>>,
    /// A report that could not be sent before a task.
    failed: Cell<Option<PyErr>>,
    /// Why the surroundings of the tasks are not what they should be.
    obstacle: Cell<Option<PyErr>>,
}

impl WorkerIo<'_> {
    /// Whether results that somebody may wait for would wait for a task that may take long.
    fn keeps_waiting(&self, index: u32) -> bool {
        let class = self.code.row(index)[CLASS];
        let waits = lock(&self.worker.unreported).as_ref().is_some_and(|(_, state)| !state.values.is_empty());
        waits && !self.quick.borrow().contains(&class)
    }
}

impl RunIo for WorkerIo<'_> {
    fn obstacle(&self) -> Option<PyErr> {
        self.obstacle.take()
    }

    fn claim(&self) -> Option<u32> {
        self.worker.link.page().claim(self.seq)
    }

    fn start(&self, index: u32, now_ns: u64) {
        self.now.set(now_ns);
        if self.keeps_waiting(index) {
            if let Err(error) = self.worker.report(false) {
                self.failed.set(Some(error));
            }
        }
        self.worker.link.page().start(self.seq, index, now_ns);
    }

    fn now_ns(&self) -> u64 {
        let now = now_ns();
        self.now.set(now);
        now
    }

    fn publish(&self, _py: Python<'_>, index: u32, value: Encoded, seal: bool) -> PyResult<()> {
        let value = self.worker.link.store(value.len(), seal, |target| value.write_to(target)).map_err(os)?;
        if let Some((_, state)) = lock(&self.worker.unreported).as_mut() {
            if state.values.is_empty() {
                state.since_ns = self.now.get();
            }
            state.values.push((index, value));
        }
        Ok(())
    }

    fn ended(&self, index: u32, class: u32, ns: u64, bytes: u64, trouble: Option<Trouble>) {
        if ns < REPORT_NS {
            self.quick.borrow_mut().insert(class);
        } else {
            self.quick.borrow_mut().remove(&class);
        }
        let mut unreported = lock(&self.worker.unreported);
        let Some((_, state)) = unreported.as_mut() else { return };
        state.upto = index + 1;
        if let Some(trouble) = trouble {
            // Of a task that has failed nothing is published, though its hook may have raised after that.
            state.values.retain(|(published, _)| *published != index);
            state.troubles.push((index, trouble));
            return;
        }
        let at = state.timings.iter().rposition(|timing| timing.class == class).unwrap_or_else(|| {
            state.timings.push(Timing { class, count: 0, total_ns: 0, max_ns: 0, total_bytes: 0 });
            state.timings.len() - 1
        });
        let timing = &mut state.timings[at];
        timing.count += 1;
        timing.total_ns += ns;
        timing.max_ns = timing.max_ns.max(ns);
        timing.total_bytes += bytes;
    }

    fn between(&self, _py: Python<'_>) -> PyResult<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let due = lock(&self.worker.unreported)
            .as_ref()
            .is_some_and(|(_, state)| !state.values.is_empty() && self.now.get() >= state.since_ns + REPORT_NS);
        if due {
            self.worker.report(false)?;
        }
        if self.worker.link.requested() {
            while let Some(message) = self.worker.link.try_next().map_err(os)? {
                self.worker.enter(message);
            }
            self.worker.do_chores()?;
        }
        Ok(())
    }
}

/// How a task that computes reaches the node: through its worker's socket.
struct WorkerPort(Arc<Worker>);

impl Port for WorkerPort {
    fn send(&self, commands: Vec<Command>) -> Result<(), ClientError> {
        // Tasks that may run, or are to stop, do not wait for this task to ask something or to end.
        let urgent = commands.iter().any(|command| matches!(command, Command::Extend { .. } | Command::Cancel(_)));
        for command in commands {
            self.0.link.send(&FromWorker::Driver(command));
        }
        if urgent { Ok(self.0.link.flush()?) } else { Ok(()) }
    }

    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError> {
        Ok(self.0.link.store(len, false, write)?)
    }

    fn wait(&self, token: u64, limit: Duration) -> Result<Option<Ended>, ClientError> {
        let failed = |error: PyErr| ClientError::Session(SessionError::Refused(error.to_string().into()));
        // What is done counts now: others may need it while this task waits. It also carries the question.
        self.0.report(false).map_err(failed)?;
        self.0.link.flush()?;
        let answered = self.0.pump(Some(limit), || lock(&self.0.answers).contains_key(&token));
        answered.map_err(|error| match error {
            PumpError::Link(error) => ClientError::Link(error),
            PumpError::Python(error) => failed(error),
        })?;
        Ok(lock(&self.0.answers).remove(&token))
    }
}

#[pyfunction]
pub(crate) fn current_task() -> Option<(u64, u32)> {
    let worker = this_worker()?;
    let running = worker.link.page().running()?;
    let task = worker.executor.task_at(running.index)?;
    Some((task.graph.to_u64(), task.index))
}

#[pyfunction]
#[pyo3(signature = (function, /))]
pub(crate) fn after_run(function: Py<PyAny>) {
    if let Some(worker) = this_worker() {
        lock(&worker.after_run).push(function);
    }
}

/// A worker's whole life. `socket` and `page` are its descriptors, which it owns from now on.
///
/// Raises `OSError` when its node's socket or the shared memory does not work.
#[pyfunction]
pub(crate) fn worker_main(py: Python<'_>, socket: RawFd, page: RawFd, worker: u32) -> PyResult<()> {
    let (socket, page) = (raw::own(socket)?, raw::own(page)?);
    raw::buffer_lines_of_c();
    let variable = |name| std::env::var_os(name).ok_or_else(|| PyRuntimeError::new_err(format!("{name} is not set")));
    let escape_dir = PathBuf::from(variable(SESSION_DIR)?);
    let store_bytes = variable(STORE_BYTES)?.to_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let session = escape_dir.to_string_lossy().into_owned();
    let id = WorkerId(worker);
    let link = Link::open(LinkConfig { worker: id, socket, page, store_bytes, escape_dir }).map_err(os)?;
    let worker = Arc::new(Worker {
        link,
        executor: Executor::new(),
        graphs: Mutex::default(),
        runs: Mutex::default(),
        unreported: Mutex::default(),
        answers: Mutex::default(),
        chores: Mutex::default(),
        stop: AtomicBool::new(false),
        reading: Mutex::default(),
        news: Condvar::new(),
        surroundings: Mutex::default(),
        after_run: Mutex::default(),
    });
    let _ = WORKER.set((std::process::id(), Arc::clone(&worker)));
    let client = Client::new(PeerId::of_worker(id), Box::new(WorkerPort(Arc::clone(&worker))));
    Role::take_on(Role::new(session, client, Kind::Worker))?;
    worker.serve(py)
}
