//! Failures as Python exceptions. Their classes are in `eagleray.exceptions`; what they say is in `eagleray._failures`,
//! `eagleray._errors` (what tasks raised) and `eagleray._arguments` (what cannot be pickled).

use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ActorEnd, Death, End, Failure, FailureKind};
use eagleray_runtime::SessionError;
use eagleray_runtime::client::ClientError;
use eagleray_store::StoreError;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyException, PyMemoryError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::annotations::amount;
use crate::keys::{Keys, Of};

/// How a process has ended.
pub(crate) fn death_details<'py>(py: Python<'py>, death: &Death) -> PyResult<Bound<'py, PyDict>> {
    let details = PyDict::new(py);
    match &death.end {
        End::Exited(code) => details.set_item("exit_code", code)?,
        End::Signalled(signal) => details.set_item("signal", signal)?,
        End::Protocol(text) | End::NeverStarted(text) => details.set_item("reason", &**text)?,
    }
    details.set_item("pid", death.pid)?;
    details.set_item("peak_bytes", death.peak_bytes)?;
    Ok(details)
}

/// The exception that a function of the package makes.
fn raised<'py>(py: Python<'py>, module: &str, function: &str, arguments: impl PyCallArgs<'py>) -> PyResult<PyErr> {
    Ok(PyErr::from_value(py.import(module)?.getattr(function)?.call1(arguments)?))
}

/// What is known of the graph that a task is of.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// The key of each task.
    pub(crate) keys: &'a [Py<PyAny>],
    /// Each task.
    pub(crate) nodes: &'a [Py<PyAny>],
    /// The refs among its external objects, and the constants that became objects, which are the others.
    pub(crate) externals: [&'a [Py<PyAny>]; 2],
}

impl Names<'_> {
    fn key(&self, py: Python<'_>, task: u32) -> Py<PyAny> {
        self.keys.get(task as usize).map_or_else(|| py.None(), |key| key.clone_ref(py))
    }

    /// Node, keys and externals, as the functions of `eagleray._errors` take them.
    fn of_task<'py>(
        &self,
        py: Python<'py>,
        task: u32,
    ) -> PyResult<(Py<PyAny>, Bound<'py, PyList>, Bound<'py, PyList>)> {
        let node = self.nodes.get(task as usize).map_or_else(|| py.None(), |node| node.clone_ref(py));
        let externals: Vec<_> = self.externals.iter().flat_map(|objects| objects.iter()).collect();
        Ok((node, PyList::new(py, self.keys)?, PyList::new(py, externals)?))
    }

    /// Adds key and inputs to the exception of a task that ran in this process. The inputs come with their numbers.
    pub(crate) fn annotate(
        &self,
        py: Python<'_>,
        error: &PyErr,
        task: u32,
        inputs: &[(u32, Py<PyAny>)],
    ) -> PyResult<()> {
        let (node, keys, externals) = self.of_task(py, task)?;
        let inputs = PyList::new(py, inputs.iter().map(|(number, value)| (*number, value)))?;
        let add = py.import("eagleray._errors")?.getattr("add_local_note")?;
        add.call1((error.value(py), self.key(py, task), inputs, node, keys, externals))?;
        Ok(())
    }

    /// The error for a function or an argument of the graph that cannot be pickled.
    pub(crate) fn not_picklable(&self, object: &Bound<'_, PyAny>, cause: PyErr) -> PyErr {
        let py = object.py();
        if says_enough(py, &cause) {
            return cause;
        }
        let build = || -> PyResult<PyErr> {
            let (keys, nodes) = (PyList::new(py, self.keys)?, PyList::new(py, self.nodes)?);
            raised(py, "eagleray._arguments", "not_picklable", (object, cause.value(py), keys, nodes))
        };
        build().unwrap_or_else(|error| error)
    }
}

/// The exception for an object that will not be made. `names` are those of the graph whose task failed, if it is known.
pub(crate) fn failure(py: Python<'_>, failure: &Failure, names: Option<Names<'_>>) -> PyErr {
    build(py, failure, names, false).unwrap_or_else(|error| error)
}

/// The same for a task of a graph that is not at hand. Its keys are known while refs to its results are alive.
pub(crate) fn failure_of_another(py: Python<'_>, of: &Failure) -> PyErr {
    let Some(known) = Keys::of(of.origin.graph) else {
        return build(py, of, None, false).unwrap_or_else(|error| error);
    };
    let of_calls = known.whose() != Of::Graph;
    let names: Vec<Py<PyAny>>;
    let keys: &[Py<PyAny>] = if of_calls {
        names = (0..=of.origin.index).map(|task| known.key(py, task).unwrap_or_else(|| py.None())).collect();
        &names
    } else {
        &known
    };
    build(py, of, Some(Names { keys, nodes: &[], externals: [&[], &[]] }), of_calls).unwrap_or_else(|error| error)
}

fn build(py: Python<'_>, failure: &Failure, names: Option<Names<'_>>, of_calls: bool) -> PyResult<PyErr> {
    let task = failure.origin.index;
    // A graph is cancelled as a whole: its origin is no task.
    let whole = match failure.kind {
        FailureKind::Cancelled => !of_calls,
        FailureKind::NoWorkers(_) => true,
        _ => false,
    };
    let names = names.filter(|_| !whole);
    let key = names.map_or_else(|| py.None(), |names| names.key(py, task));
    let details = PyDict::new(py);
    details.set_item("actor", Keys::class_of_actor(py, failure.origin))?;
    let kind = match &failure.kind {
        FailureKind::Raised { error, attempts } => {
            let payload = PyBytes::new(py, error);
            return match names {
                None => raised(py, "eagleray._errors", "task_error", (payload, key, py.None(), (), (), *attempts)),
                Some(names) => {
                    let (node, keys, externals) = names.of_task(py, task)?;
                    raised(py, "eagleray._errors", "task_error", (payload, key, node, keys, externals, *attempts))
                }
            };
        }
        FailureKind::WorkerDied { death, attempts } => {
            details.update(death_details(py, death)?.as_mapping())?;
            details.set_item("attempts", attempts)?;
            "worker_died"
        }
        FailureKind::Cancelled => "cancelled",
        FailureKind::Lost => "lost",
        FailureKind::NoWorkers(death) => {
            details.update(death_details(py, death)?.as_mapping())?;
            "no_workers"
        }
        FailureKind::TooDeep { depth, most } => {
            details.set_item("depth", depth)?;
            details.set_item("most", most)?;
            "too_deep"
        }
        FailureKind::Infeasible(shortage) => {
            details.set_item("resource", &*shortage.resource)?;
            details.set_item("asked", amount(shortage.asked))?;
            details.set_item("offered", amount(shortage.offered))?;
            details.set_item("held", amount(shortage.held))?;
            "infeasible"
        }
        FailureKind::ActorDied(death) => {
            details.set_item("restarts", death.restarts)?;
            details.set_item("comes_back", Keys::comes_back(failure.origin, death.restarts))?;
            let end = match &death.end {
                ActorEnd::Init { error } => {
                    details.set_item("error", PyBytes::new(py, error))?;
                    "init"
                }
                ActorEnd::Died(death) => {
                    details.update(death_details(py, death)?.as_mapping())?;
                    "died"
                }
                ActorEnd::Killed => "killed",
                ActorEnd::Exited => "exited",
                ActorEnd::Released => "released",
                ActorEnd::NameTaken => "name_taken",
            };
            details.set_item("end", end)?;
            "actor_died"
        }
    };
    raised(py, "eagleray._failures", "failure", (kind, key, details))
}

/// Whether what pickling has raised is to be raised as it is: what interrupts it, and a ref whose object is gone.
fn says_enough(py: Python<'_>, cause: &PyErr) -> bool {
    let is_lost = || -> PyResult<bool> {
        cause.value(py).is_instance(&py.import("eagleray.exceptions")?.getattr("ObjectLostError")?)
    };
    !cause.is_instance_of::<PyException>(py) || is_lost().unwrap_or(false)
}

/// The error for a value that cannot be put because it cannot be pickled.
pub(crate) fn not_picklable_value(value: &Bound<'_, PyAny>, cause: PyErr) -> PyErr {
    let py = value.py();
    if says_enough(py, &cause) {
        return cause;
    }
    let build = || raised(py, "eagleray._arguments", "not_picklable_value", (value, cause.value(py)));
    build().unwrap_or_else(|error| error)
}

/// Adds to the error of decoding a value in this process whose value it is.
pub(crate) fn name_value(py: Python<'_>, error: &PyErr, object: ObjectId) {
    let name = || -> PyResult<()> {
        let key = Keys::of(object.graph).and_then(|keys| Some(keys.get(object.index as usize)?.clone_ref(py)));
        py.import("eagleray._errors")?.getattr("add_note_of_value")?.call1((error.value(py), key))?;
        Ok(())
    };
    // Without the note it is still the error.
    let _ = name();
}

/// The exception for a key that a graph does not have. `dependent` is the key of the task that needs it, if one does.
pub(crate) fn missing_key<'py>(
    key: &Bound<'py, PyAny>,
    dependent: Option<&Bound<'py, PyAny>>,
    keys: &[Bound<'py, PyAny>],
) -> PyErr {
    let py = key.py();
    let build = || -> PyResult<PyErr> {
        let arguments = (key, PyList::new(py, dependent)?, PyList::new(py, keys)?);
        raised(py, "eagleray._failures", "missing_key", arguments)
    };
    build().unwrap_or_else(|error| error)
}

/// The exception for keys of which each depends on the next, and the last on the first.
pub(crate) fn cycle(py: Python<'_>, keys: &[&Bound<'_, PyAny>]) -> PyErr {
    let build = || raised(py, "eagleray._failures", "cycle", (PyList::new(py, keys)?,));
    build().unwrap_or_else(|error| error)
}

/// The exception for a wait that took too long.
pub(crate) fn timeout(py: Python<'_>, seconds: f64) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let details = PyDict::new(py);
        details.set_item("seconds", seconds)?;
        raised(py, "eagleray._failures", "failure", ("timeout", py.None(), details))
    };
    build().unwrap_or_else(|error| error)
}

/// The exception for an error of the driver role.
pub(crate) fn client_error(py: Python<'_>, error: &ClientError) -> PyErr {
    match error {
        ClientError::Store(StoreError::Full { .. } | StoreError::DiskFull { .. }) => {
            let build = || -> PyResult<PyErr> {
                let class = py.import("eagleray.exceptions")?.getattr("ObjectStoreFullError")?;
                Ok(PyErr::from_value(class.call1((error.to_string(),))?))
            };
            build().unwrap_or_else(|_| PyMemoryError::new_err(error.to_string()))
        }
        ClientError::Session(SessionError::Ended) => PyRuntimeError::new_err(
            "The session has ended, by eagleray.shutdown() or with the program, and what had not been computed is lost.",
        ),
        ClientError::Session(SessionError::Start(_)) | ClientError::Link(_) => PyOSError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}
