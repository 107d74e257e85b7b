//! The worker process: reads runs, executes them, answers requests, and plays the driver role for tasks that compute.
//!
//! [`pump`] reads, [`chores`] does what was asked for, [`io`] is what a run has to do with all that, and [`report`] tells of
//! it, [`overdue`] if need be while a task runs. [`deferred`] and [`interrupt`]: tasks that go on, and tasks that shall not.
//! [`context`]: what a task may ask.

mod chores;
mod context;
mod deferred;
mod interrupt;
mod io;
mod overdue;
mod pump;
mod report;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_runtime::client::Client;
use eagleray_runtime::command::Ended;
use eagleray_runtime::link::{Link, LinkConfig, LinkError};
use eagleray_runtime::program::RunProgram;
use eagleray_runtime::session::{RECORD_TIMES, SESSION_DIR, STORE_BYTES};
use eagleray_runtime::{FromWorker, SocketError, ToWorker};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use rustc_hash::{FxHashMap, FxHashSet};

pub(crate) use context::{after_run, current_task, retire};
pub(crate) use deferred::{Deferred, defer, flush_uses, set_cancel_deferred};

use crate::devices::Visible;
use crate::executor::Executor;
use crate::raw;
use crate::role::{Kind, Role};
use crate::template::{KEY, MAKES_ACTOR};
use deferred::Deferrals;
use interrupt::Interrupts;
use io::WorkerIo;
use overdue::Overdue;
use pump::{PumpError, Reading, WorkerPort};
use report::Unreported;

/// A published result waits at most this long for the report of its run, in ns.
const REPORT_NS: u64 = 1_000_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    reading: Mutex<Reading>,
    /// The reader has taken something in, or has stopped reading, and threads wait for that.
    news: Condvar,
    /// What was set last for the tasks of a graph.
    surroundings: Mutex<Option<Bytes>>,
    /// To be called when the present run is over.
    after_run: Mutex<Vec<Py<PyAny>>>,
    /// The driver role that its tasks have.
    role: OnceLock<Arc<Role>>,
    /// It reports when tasks ran.
    records_times: bool,
    /// An actor is made here, or was.
    is_actor: AtomicBool,
    /// It ends after the present run.
    retires: AtomicBool,
    interrupts: Interrupts,
    deferred: Deferrals,
    overdue: Overdue,
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
        if program.code.row(0)[KEY] == MAKES_ACTOR {
            self.is_actor.store(true, Ordering::Relaxed);
        }
        let io = WorkerIo {
            worker: self,
            seq: run.id.seq,
            code: &program.code,
            outputs: &run.outputs,
            now: Cell::new(0),
            quick: RefCell::new(quick),
            failed: Cell::new(None),
            obstacle: Cell::new(self.surround(py, surroundings).err()),
        };
        let externals = |k: u32| externals.get(k as usize).copied();
        let visible = Visible::only(py, &run.gpus)?;
        self.executor.execute(py, &run, &program.code, len, &externals, &io)?;
        // An actor keeps its GPUs.
        let visible = visible.filter(|_| !self.is_actor.load(Ordering::Relaxed));
        visible.map_or(Ok(()), Visible::restore)?;
        self.call_after_run(py);
        if let Some(note) = lock(&self.graphs).get_mut(&run.graph) {
            note.quick = io.quick.into_inner();
        }
        if self.retires.swap(false, Ordering::Relaxed) {
            // Before the report, after which there might be another run.
            self.link.send(&FromWorker::Retire);
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

    /// Reports what is done of a run, no task of which runs now: what these have printed is to be there before.
    fn report_between(&self, py: Python<'_>) -> PyResult<()> {
        self.call_after_run(py);
        self.report(false)
    }

    fn call_after_run(&self, py: Python<'_>) {
        let functions = std::mem::take(&mut *lock(&self.after_run));
        for function in functions {
            // No task is left whose failure it could be.
            let _ = function.call0(py);
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
        role: OnceLock::new(),
        records_times: std::env::var_os(RECORD_TIMES).is_some(),
        is_actor: AtomicBool::new(false),
        retires: AtomicBool::new(false),
        interrupts: Interrupts::new(),
        deferred: Deferrals::default(),
        overdue: Overdue::default(),
    });
    let _ = WORKER.set((std::process::id(), Arc::clone(&worker)));
    let client = Client::new(PeerId::of_worker(id), Box::new(WorkerPort(Arc::clone(&worker))));
    let role = Role::new(session, client, Kind::Worker);
    let _ = worker.role.set(Arc::clone(&role));
    Role::take_on(role)?;
    interrupt::listen(py)?;
    worker.serve(py)
}
