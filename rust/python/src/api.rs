//! The functions of `eagleray._native`. What they take and return is documented in `_native.pyi`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eagleray_core::graph::Csr;
use eagleray_core::head::{HeadConfig, ResultsMode};
use eagleray_core::ids::ObjectId;
use eagleray_core::order;
use eagleray_runtime::WorkerInfo;
use eagleray_runtime::look::Look;
use eagleray_runtime::program::Value;
use eagleray_runtime::session::{Session, SessionConfig};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::graph::{self, Graph};
use crate::pickles;
use crate::refs::ObjectRef;
use crate::role::{Kind, Role};
use crate::{annotations, failures, keys, look, raw, value, waiting};

/// What workers forked later should have imported, if the driver has.
const PRELOAD: [&str; 7] = ["numpy", "pandas", "pyarrow", "dask", "dask.array", "dask.dataframe", "dask.bag"];

#[pyfunction]
pub(crate) fn start(
    py: Python<'_>,
    slots: u32,
    max_workers: u32,
    store_bytes: u64,
    session_dir: String,
    template: Vec<String>,
    zero_worker: bool,
    results: &str,
    resources: &Bound<'_, PyDict>,
    remembered_tasks: u64,
    timeline: bool,
) -> PyResult<()> {
    if slots == 0 {
        return Err(PyValueError::new_err("slots must be at least 1"));
    }
    let mut head = HeadConfig::new(slots);
    head.max_workers = max_workers;
    head.results = match results {
        "auto" => ResultsMode::Auto,
        "resident" => ResultsMode::Resident,
        "sealed" => ResultsMode::Sealed,
        other => {
            return Err(PyValueError::new_err(format!("results must be auto, resident or sealed, not {other:?}")));
        }
    };
    head.offers = annotations::offers(resources)?;
    let modules = py.import("sys")?.getattr("modules")?;
    let mut preload = Vec::new();
    for name in PRELOAD {
        if modules.contains(name)? {
            preload.push(name.to_owned());
        }
    }
    let zero_worker = if zero_worker { Some(value::encode(py, py.None().bind(py))?.to_vec().into()) } else { None };
    let config = SessionConfig {
        head,
        template: template.into_iter().map(Into::into).collect(),
        template_setup: raw::inherit_standard_streams_only,
        preload,
        store_bytes,
        session_dir: PathBuf::from(&session_dir),
        environment: hash_seed().into_iter().collect(),
        remembered_tasks,
        timeline,
        zero_worker,
    };
    let session = Session::start(config).map_err(|error| PyOSError::new_err(error.to_string()))?;
    let session = Arc::new(session);
    let client = session.client();
    if Role::find().is_none() {
        keys::forget();
    }
    let role = Role::new(session_dir, client, Kind::Driver(Arc::clone(&session)));
    Role::take_on(role).inspect_err(|_| session.stop())
}

/// What lets all workers hash strings alike, unless the user has seen to it: tasks group data by hash. Dask does the same
/// for its process pools, with the same number.
fn hash_seed() -> Option<(OsString, OsString)> {
    let name = "PYTHONHASHSEED";
    let given = std::env::var(name).is_ok_and(|seed| !seed.is_empty() && seed != "random");
    (!given).then(|| (name.into(), "6640".into()))
}

#[pyfunction]
pub(crate) fn stop(py: Python<'_>) {
    if let Some(role) = Role::give_up() {
        if let Some(session) = role.session() {
            py.detach(|| session.stop());
        }
    }
}

#[pyfunction]
pub(crate) fn renew_workers() -> PyResult<()> {
    session()?.renew_workers().map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

#[pyfunction]
pub(crate) fn name_by_value(name: Vec<u8>) {
    value::name_by_value(name);
}

#[pyfunction]
pub(crate) fn started() -> bool {
    Role::find().is_some()
}

#[pyfunction]
pub(crate) fn in_worker() -> bool {
    Role::find().is_some_and(|role| role.session().is_none())
}

#[pyfunction]
#[pyo3(signature = (dsk, keys, *, worker_hooks=None, surroundings=None, stepwise=false, annotations=None))]
pub(crate) fn submit(
    py: Python<'_>,
    dsk: &Bound<'_, PyAny>,
    keys: &Bound<'_, PyAny>,
    worker_hooks: Option<&Bound<'_, PyBytes>>,
    surroundings: Option<&Bound<'_, PyBytes>>,
    stepwise: bool,
    annotations: Option<&Bound<'_, PyAny>>,
) -> PyResult<Graph> {
    Graph::submit(py, dsk, keys, worker_hooks, surroundings, stepwise, annotations)
}

#[pyfunction]
pub(crate) fn put(value: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
    let role = Role::current()?;
    let encoded = value::encode(value.py(), value).map_err(|cause| failures::not_picklable_value(value, cause))?;
    Ok(ObjectRef::counted(&role, pickles::put(&role, encoded)?))
}

/// The objects of refs, each once, and for each ref the place of its object.
fn objects(role: &Role, refs: &Bound<'_, PyList>) -> PyResult<(Vec<ObjectId>, Vec<usize>)> {
    let mut place_of = FxHashMap::default();
    let mut objects = Vec::new();
    let mut places = Vec::with_capacity(refs.len());
    for reference in refs {
        let reference = reference.cast::<ObjectRef>().map_err(|_| PyTypeError::new_err("not an ObjectRef"))?;
        let object = reference.get().object(role)?;
        places.push(*place_of.entry(object).or_insert_with(|| {
            objects.push(object);
            objects.len() - 1
        }));
    }
    Ok((objects, places))
}

#[pyfunction]
pub(crate) fn get<'py>(
    py: Python<'py>,
    refs: &Bound<'py, PyList>,
    timeout: Option<f64>,
    copy: bool,
) -> PyResult<Bound<'py, PyList>> {
    let role = Role::current()?;
    let (objects, places) = objects(&role, refs)?;
    let ended = waiting::wait(py, &role, &objects, objects.len(), true, timeout)?;
    let all = ended.len() == objects.len();
    let mut values = Vec::with_capacity(ended.len());
    for (object, outcome) in ended {
        match outcome {
            Ok(value) => values.push((object, value)),
            Err(failure) => return Err(failures::failure_of_another(py, &failure)),
        }
    }
    if !all {
        return Err(failures::timeout(py, timeout.unwrap_or_default()));
    }
    let decoded: Vec<_> =
        values.into_iter().map(|(object, value)| graph::decode(py, object, value, copy)).collect::<PyResult<_>>()?;
    PyList::new(py, places.into_iter().map(|place| decoded[place].clone()))
}

/// The values of refs that are known here; `None` if one is not.
#[pyfunction]
pub(crate) fn get_known<'py>(
    py: Python<'py>,
    refs: &Bound<'py, PyList>,
    copy: bool,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let role = Role::current()?;
    let mut values = Vec::with_capacity(refs.len());
    for reference in refs {
        let Ok(reference) = reference.cast::<ObjectRef>() else { return Ok(None) };
        let object = reference.get().object(&role)?;
        let Some(Some(value)) = role.client.known().get(&object).cloned() else { return Ok(None) };
        values.push((object, value));
    }
    let decoded = values.into_iter().map(|(object, value)| graph::decode(py, object, Value::Inline(value), copy));
    Ok(Some(PyList::new(py, decoded.collect::<PyResult<Vec<_>>>()?)?))
}

#[pyfunction]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    refs: &Bound<'py, PyList>,
    num_returns: usize,
    timeout: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let role = Role::current()?;
    let list = LISTS.fetch_add(1, Ordering::Relaxed);
    let duplicates = || PyValueError::new_err("wait() takes each ObjectRef once; the list has duplicates.");
    let mut objects = Vec::with_capacity(refs.len());
    for (place, reference) in refs.iter().enumerate() {
        let reference = reference.cast::<ObjectRef>().map_err(|_| {
            let class = reference.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
            PyTypeError::new_err(format!("wait() takes ObjectRefs; item {place} of the list is {class}."))
        })?;
        if reference.get().seen_in(list) {
            return Err(duplicates());
        }
        objects.push(reference.get().object(&role)?);
    }
    let known: Vec<usize> = {
        let known = role.client.known();
        let places = (0..objects.len()).filter(|place| known.contains_key(&objects[*place]));
        places.take(num_returns).collect()
    };
    if known.len() >= num_returns {
        return parted(refs, &known);
    }
    // Two refs may be of one object.
    if objects.iter().copied().collect::<FxHashSet<ObjectId>>().len() < objects.len() {
        return Err(duplicates());
    }
    let ended = waiting::wait(py, &role, &objects, num_returns.min(objects.len()), false, timeout)?;
    let ended: FxHashSet<ObjectId> = ended.into_iter().map(|(object, _)| object).collect();
    let ready: Vec<usize> =
        (0..objects.len()).filter(|place| ended.contains(&objects[*place])).take(num_returns).collect();
    parted(refs, &ready)
}

#[pyfunction]
pub(crate) fn wait_for_parts<'py>(
    py: Python<'py>,
    items: &Bound<'py, PyList>,
    num_returns: usize,
    timeout: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let role = Role::current()?;
    let (mut objects, mut parts) = (Vec::new(), Vec::new());
    for item in items {
        if let Ok(reference) = item.cast::<ObjectRef>() {
            objects.push(reference.get().object(&role)?);
        } else {
            let (call, index) = item.extract::<(Bound<'_, ObjectRef>, u32)>()?;
            parts.push((call.get().object(&role)?, index));
        }
    }
    let (ended, there) = waiting::wait_with_parts(py, &role, &objects, &parts, num_returns, timeout)?;
    let ended: FxHashSet<ObjectId> = ended.into_iter().map(|(object, _)| object).collect();
    let (mut objects, mut there) = (objects.into_iter(), there.into_iter());
    let mut is_ready = |item: &Bound<'_, PyAny>| {
        if item.is_exact_instance_of::<ObjectRef>() {
            objects.next().is_some_and(|object| ended.contains(&object))
        } else {
            there.next() == Some(true)
        }
    };
    let ready = items.iter().map(|item| is_ready(&item)).collect::<Vec<_>>();
    let places: Vec<usize> = (0..ready.len()).filter(|&place| ready[place]).take(num_returns).collect();
    parted(items, &places)
}

/// The items of a list at these places, which ascend, and the others.
fn parted<'py>(refs: &Bound<'py, PyList>, places: &[usize]) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let (ready, rest) = (PyList::empty(refs.py()), PyList::empty(refs.py()));
    if let [place] = places {
        // Mostly one is waited for after the other.
        let rest = refs.get_slice(0, refs.len());
        ready.append(rest.get_item(*place)?)?;
        rest.del_item(*place)?;
        return Ok((ready, rest));
    }
    let mut places = places.iter().peekable();
    for (place, reference) in refs.iter().enumerate() {
        if places.next_if_eq(&&place).is_some() { &ready } else { &rest }.append(reference)?;
    }
    Ok((ready, rest))
}

/// How many lists were looked through for duplicates.
static LISTS: AtomicU64 = AtomicU64::new(1);

fn session() -> PyResult<Arc<Session>> {
    let role = Role::current()?;
    role.session().cloned().ok_or_else(|| PyRuntimeError::new_err("a worker does not know this; ask the driver"))
}

#[pyfunction]
pub(crate) fn counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let counters = session()?.counters();
    let dict = PyDict::new(py);
    for (name, value) in counters.by_name() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

#[pyfunction]
pub(crate) fn resources(py: Python<'_>) -> PyResult<(Bound<'_, PyDict>, Bound<'_, PyDict>)> {
    let role = Role::current()?;
    look::amounts(py, &look::snapshot(py, &role, Look::default())?)
}

fn state(info: &WorkerInfo) -> &'static str {
    match (info.alive, info.up, info.busy) {
        (false, _, _) => "ended",
        (_, false, _) => "starting",
        (_, _, true) => "busy",
        _ => "idle",
    }
}

#[pyfunction]
pub(crate) fn workers(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for info in session()?.workers() {
        let dict = PyDict::new(py);
        dict.set_item("id", info.id)?;
        dict.set_item("pid", info.pid)?;
        dict.set_item("tasks", info.tasks)?;
        dict.set_item("runs", info.runs)?;
        dict.set_item("state", state(&info))?;
        list.append(dict)?;
    }
    Ok(list)
}

#[pyfunction]
#[pyo3(name = "order", signature = (dependencies, keys=None, /))]
pub(crate) fn py_order(
    py: Python<'_>,
    dependencies: Vec<Vec<u32>>,
    keys: Option<Vec<Bound<'_, PyAny>>>,
) -> PyResult<Vec<u32>> {
    let tasks = dependencies.len();
    let mut deps = Csr::with_capacity(tasks, 0);
    for row in dependencies {
        if row.iter().any(|&task| task as usize >= tasks) {
            return Err(PyValueError::new_err(format!("there are {tasks} tasks, but one depends on another number")));
        }
        deps.push_row(row);
    }
    py.detach(|| order::order(&deps)).map_err(|cycle| match &keys {
        Some(keys) if keys.len() == tasks => {
            failures::cycle(py, &cycle.nodes.iter().map(|&task| &keys[task as usize]).collect::<Vec<_>>())
        }
        _ => PyRuntimeError::new_err(format!("the tasks {:?} form a cycle", cycle.nodes)),
    })
}
