//! What a user may see of a session, as plain Python data. What the fields are called is in `_native.pyi`, what they mean in
//! `eagleray._look`.

use std::sync::Arc;
use std::time::Duration;

use eagleray_core::head::{ActorInfo, Edges, TaskStanding};
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::{Failure, FailureKind, Place};
use eagleray_runtime::Store;
use eagleray_runtime::look::{Look, ObjectState, Phase, Snapshot, TaskKind, TaskState, WorkerState};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rustc_hash::FxHashMap;

use crate::keys::Keys;
use crate::refs::hex;
use crate::role::{Role, raise};
use crate::{annotations, failures};

/// How long the session may take to say how things stand.
const PATIENCE: Duration = Duration::from_secs(30);

/// How things stand, seen from whatever role this process has. A worker asks its node.
pub(crate) fn snapshot(py: Python<'_>, role: &Role, look: Look) -> PyResult<Snapshot> {
    let seen = py.detach(|| match role.session() {
        Some(session) => session.inspect(look).map_err(Into::into),
        None => role.client.inspect(look, PATIENCE),
    });
    seen.map_err(raise)
}

fn by_name<'py>(py: Python<'py>, amounts: &[(Arc<str>, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, units) in amounts {
        dict.set_item(&**name, annotations::amount(*units))?;
    }
    Ok(dict)
}

/// Node, and what is free of it, by name.
pub(crate) fn amounts<'py>(py: Python<'py>, snapshot: &Snapshot) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
    Ok((by_name(py, &snapshot.offered)?, by_name(py, &snapshot.free)?))
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Waits => "waits",
        Phase::Ready => "ready",
        Phase::Assigned => "assigned",
        Phase::Running => "running",
        Phase::Blocked => "blocked",
        Phase::Done => "done",
        Phase::Failed => "failed",
    }
}

fn kind_name(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Computation => "computation",
        TaskKind::Independent => "independent",
        TaskKind::Actor => "actor",
        TaskKind::Call => "call",
    }
}

fn worker_of(standing: TaskStanding) -> Option<WorkerId> {
    match standing {
        TaskStanding::Assigned(worker) | TaskStanding::Follows(worker) | TaskStanding::Deferred(worker) => Some(worker),
        TaskStanding::Waits | TaskStanding::Ready | TaskStanding::Done | TaskStanding::Failed => None,
    }
}

fn kind_of(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Raised { .. } => "raised",
        FailureKind::WorkerDied { .. } => "worker_died",
        FailureKind::Cancelled => "cancelled",
        FailureKind::Lost => "lost",
        FailureKind::NoWorkers(_) => "no_workers",
        FailureKind::TooDeep { .. } => "too_deep",
        FailureKind::Infeasible(_) => "infeasible",
        FailureKind::ActorDied(_) => "actor_died",
    }
}

/// The key of the task that makes an object, if this process has submitted it and knows it still.
fn key(py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
    Keys::of(object.graph)?.key(py, object.index)
}

fn task<'py>(py: Python<'py>, task: &TaskState) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", hex(task.object))?;
    dict.set_item("key", key(py, task.object))?;
    dict.set_item("name", &*task.name)?;
    dict.set_item("kind", kind_name(task.kind))?;
    dict.set_item("actor", task.actor.map(hex))?;
    dict.set_item("actor_name", task.actor_name.as_ref().map(|name| (&*name.namespace, &*name.name)))?;
    dict.set_item("detached", task.detached)?;
    dict.set_item("phase", phase_name(task.phase()))?;
    dict.set_item("worker", worker_of(task.standing).map(|worker| worker.0))?;
    dict.set_item("since_ns", task.running_since)?;
    dict.set_item("attempts", task.attempts)?;
    dict.set_item("submitter", task.object.graph.peer.worker().map(|worker| worker.0))?;
    dict.set_item("demand", by_name(py, &task.demand)?)?;
    let failure = task.failure.as_ref();
    dict.set_item("failure", failure.map(kind_of))?;
    dict.set_item("origin", failure.map(|failure| hex(failure.origin)))?;
    let restarts = match failure.map(|failure| &failure.kind) {
        Some(FailureKind::ActorDied(death)) => death.restarts,
        _ => 0,
    };
    dict.set_item("restarts", restarts)?;
    // Only of the task that failed: of those that read its result there may be very many.
    let own = failure.filter(|failure| failure.origin == task.object);
    dict.set_item("error", own.map(|failure| failures::failure_of_another(py, failure)))?;
    Ok(dict)
}

fn actor<'py>(py: Python<'py>, actor: &ActorInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", hex(actor.actor))?;
    dict.set_item("name", actor.name.as_ref().map(|name| (&*name.namespace, &*name.name)))?;
    dict.set_item("worker", actor.worker.map(|worker| worker.0))?;
    dict.set_item("alive", actor.alive)?;
    dict.set_item("restarts", actor.restarts)?;
    dict.set_item("detached", actor.detached)?;
    Ok(dict)
}

fn object<'py>(py: Python<'py>, state: &ObjectState, uses: u32) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let info = &state.info;
    let (place, size) = match info.place {
        Some(Place::Inline { len }) => (Some("inline"), Some(len)),
        Some(Place::Sealed { len }) => (Some("sealed"), Some(len)),
        None => (None, None),
    };
    let kind = match info.task {
        Some(_) => "result",
        None if info.object.is_literal() => "literal",
        None => "put",
    };
    let workers: Vec<Option<u32>> = info.peers.iter().map(|peer| peer.worker().map(|worker| worker.0)).collect();
    dict.set_item("id", hex(info.object))?;
    dict.set_item("key", key(py, info.object))?;
    dict.set_item("name", &*state.name)?;
    dict.set_item("kind", kind)?;
    dict.set_item("place", place)?;
    dict.set_item("size", size)?;
    dict.set_item("resident", info.resident.map(|worker| worker.0))?;
    dict.set_item("readers", info.consumers)?;
    dict.set_item("holders", info.holders)?;
    dict.set_item("peers", PyTuple::new(py, workers)?)?;
    dict.set_item("uses", uses)?;
    dict.set_item("owner", info.object.graph.peer.worker().map(|worker| worker.0))?;
    dict.set_item("phase", info.task.map(|task| phase_name(Phase::of(task, false, false))))?;
    Ok(dict)
}

fn worker<'py>(py: Python<'py>, worker: &WorkerState) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let info = &worker.info;
    dict.set_item("id", info.id)?;
    dict.set_item("pid", info.pid)?;
    dict.set_item("alive", info.alive)?;
    dict.set_item("up", info.up)?;
    dict.set_item("busy", info.busy)?;
    dict.set_item("runs", info.runs)?;
    dict.set_item("tasks", info.tasks)?;
    dict.set_item("actor", worker.actor.map(hex))?;
    dict.set_item("task", worker.running.map(|(object, _)| hex(object)))?;
    dict.set_item("task_key", worker.running.and_then(|(object, _)| key(py, object)))?;
    dict.set_item("since_ns", worker.running.map(|(_, since)| since))?;
    dict.set_item("blocked", worker.blocked)?;
    dict.set_item("kept", worker.kept)?;
    let death = worker.death.as_ref();
    dict.set_item("death", death.map(|death| failures::death_details(py, death)).transpose()?)?;
    Ok(dict)
}

fn list<'py, T>(
    py: Python<'py>,
    all: &[T],
    each: impl Fn(Python<'py>, &T) -> PyResult<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for one in all {
        list.append(each(py, one)?)?;
    }
    Ok(list)
}

#[pyfunction]
#[pyo3(signature = (*, tasks=0, phases=None, counts=false, makers=0, objects=0, workers=false))]
pub(crate) fn state(
    py: Python<'_>,
    tasks: u32,
    phases: Option<Vec<String>>,
    counts: bool,
    makers: u32,
    objects: u32,
    workers: bool,
) -> PyResult<Bound<'_, PyDict>> {
    let role = Role::current()?;
    let wanted = |phase: &&Phase| phases.iter().flatten().any(|name| name == phase_name(**phase));
    let phases = Phase::ALL.iter().filter(wanted).fold(0, |bits, phase| bits | phase.bit());
    let seen = snapshot(py, &role, Look { tasks, phases, counts, makers, objects, workers })?;
    let known: Vec<ObjectId> = seen.objects.iter().map(|state| state.info.object).collect();
    let uses = role.client.uses(&known);
    let dict = PyDict::new(py);
    let (offered, free) = amounts(py, &seen)?;
    dict.set_item("offered", offered)?;
    dict.set_item("free", free)?;
    dict.set_item("actors", list(py, &seen.actors, actor)?)?;
    dict.set_item("tasks", list(py, &seen.tasks, task)?)?;
    dict.set_item("tasks_total", seen.tasks_total)?;
    dict.set_item("tasks_forgotten", seen.tasks_forgotten)?;
    let counts = seen.counts.iter().map(|of| (&*of.name, kind_name(of.kind), phase_name(of.phase), of.count));
    dict.set_item("counts", PyList::new(py, counts)?)?;
    dict.set_item("makers", list(py, &seen.makers, task)?)?;
    dict.set_item("makers_total", seen.makers_total)?;
    dict.set_item("makers_forgotten", seen.makers_forgotten)?;
    let counted: Vec<(&ObjectState, u32)> = seen.objects.iter().zip(uses).collect();
    dict.set_item("objects", list(py, &counted, |py, (state, uses)| object(py, state, *uses))?)?;
    dict.set_item("objects_total", seen.objects_total)?;
    dict.set_item("workers", list(py, &seen.workers, worker)?)?;
    dict.set_item("store_bytes", seen.store_bytes)?;
    dict.set_item("counters", counters(py, &seen)?)?;
    // Which peer `uses` are of.
    dict.set_item("here", role.client.peer().worker().map(|worker| worker.0))?;
    Ok(dict)
}

fn counters<'py>(py: Python<'py>, seen: &Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in seen.counters.by_name() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

/// What is known of a graph whose tasks ran.
struct Known {
    edges: Edges,
    /// Of its classes.
    names: Vec<Arc<str>>,
    keys: Option<Arc<Keys>>,
}

struct Graphs(FxHashMap<GraphId, Known>);

impl Graphs {
    fn new(graphs: Vec<(Edges, Vec<Arc<str>>)>) -> Self {
        let known = graphs.into_iter().map(|(edges, names)| {
            let id = edges.id();
            (id, Known { edges, names, keys: Keys::of(id) })
        });
        Self(known.collect())
    }

    fn key(&self, py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
        self.0.get(&object.graph)?.keys.as_ref()?.key(py, object.index)
    }

    fn name(&self, object: ObjectId) -> Option<&str> {
        let known = self.0.get(&object.graph)?;
        known.names.get(known.edges.class(object.index)? as usize).map(|name| &**name)
    }

    fn inputs(&self, object: ObjectId) -> Vec<String> {
        let known = self.0.get(&object.graph);
        known.map(|known| known.edges.inputs(object.index).map(hex).collect()).unwrap_or_default()
    }
}

#[pyfunction]
pub(crate) fn timeline(py: Python<'_>) -> PyResult<Option<Bound<'_, PyDict>>> {
    let role = Role::current()?;
    let Some(session) = role.session() else {
        return Err(PyRuntimeError::new_err("a worker does not know this; ask the driver"));
    };
    let Some(seen) = py.detach(|| session.timeline()).map_err(|error| raise(error.into()))? else { return Ok(None) };
    let graphs = Graphs::new(seen.graphs);
    let (runs, tasks) = (PyList::empty(py), PyList::empty(py));
    for run in &seen.runs {
        runs.append((run.worker, run.pid, run.seq, run.assigned_ns, run.ended_ns, run.limit))?;
        for (object, begin, end) in run.ran() {
            let (key, name, inputs) = (graphs.key(py, object), graphs.name(object), graphs.inputs(object));
            tasks.append((hex(object), key, name, run.worker, run.pid, begin, end, inputs))?;
        }
    }
    let transfers = PyList::empty(py);
    for transfer in &seen.transfers {
        let store = match transfer.store {
            Store::Inline => "inline",
            Store::Memory => "memory",
            Store::File => "file",
        };
        let worker = transfer.peer.worker().map(|worker| worker.0);
        let (key, name) = (graphs.key(py, transfer.object), graphs.name(transfer.object));
        let (at, sent, size) = (transfer.at_ns, transfer.sent, transfer.size);
        transfers.append((hex(transfer.object), key, name, at, worker, sent, store, size))?;
    }
    let completed: Vec<(String, u64)> = seen.completed.iter().map(|(object, at)| (hex(*object), *at)).collect();
    let dict = PyDict::new(py);
    dict.set_item("runs", runs)?;
    dict.set_item("tasks", tasks)?;
    dict.set_item("transfers", transfers)?;
    dict.set_item("completed", completed)?;
    dict.set_item("forgotten", seen.forgotten)?;
    Ok(Some(dict))
}
