//! A submitted graph: from Dask's objects to the session, and back to values.

use std::sync::{Arc, Mutex, PoisonError};

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::GraphSpec;
use eagleray_runtime::program::{Part, Program, Template, Value};
use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use rustc_hash::FxHashMap;

use crate::annotations::Annotations;
use crate::failures;
use crate::gc::Suspended;
use crate::ingest::{self, Batch, Ingested, Options, ResultShape};
use crate::pickles::{dumps, payload, store};
use crate::refs::ObjectRef;
use crate::role::{Role, raise};
use crate::{template, value, waiting};

/// What has not been sent yet.
struct Unsent {
    functions: Vec<Py<PyAny>>,
    batches: std::vec::IntoIter<Batch>,
    /// Positions below are covered by what was sent.
    sent: u32,
}

/// A submitted graph. Its tasks are numbered from 0; literals and aliases are no tasks.
#[pyclass(frozen, module = "eagleray._native")]
pub(crate) struct Graph {
    role: Arc<Role>,
    id: GraphId,
    inputs: Csr,
    /// The task at each position.
    at: Vec<u32>,
    keys: Vec<Py<PyAny>>,
    nodes: Vec<Py<PyAny>>,
    outputs: Vec<u32>,
    externals: Vec<ObjectId>,
    /// Keeps the refs among them alive.
    _refs: Vec<Py<PyAny>>,
    /// Large constants, which were put.
    puts: Vec<ObjectId>,
    result: ResultShape,
    templates: usize,
    unsent: Mutex<Option<Unsent>>,
}

impl Graph {
    /// Ingests a mapping and submits what `keys` need. See `submit` in `_native.pyi`.
    pub(crate) fn submit(
        py: Python<'_>,
        dsk: &Bound<'_, PyAny>,
        keys: &Bound<'_, PyAny>,
        worker_hooks: Option<&Bound<'_, PyBytes>>,
        stepwise: bool,
        annotations: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let role = Role::current()?;
        let _suspended = Suspended::new(py)?;
        let annotations = annotations.map(Annotations::new).transpose()?;
        let options = Options { keys_for_hooks: worker_hooks.is_some(), annotations: annotations.as_ref() };
        let found = ingest::ingest(py, dsk, keys, &py.get_type::<ObjectRef>(), options)?;
        let hooks = worker_hooks.map(|hooks| bytes::Bytes::copy_from_slice(hooks.as_bytes()));
        let graph = Self::send(py, role, found, hooks)?;
        if !stepwise {
            // The workers begin with the first batch while the second is being pickled.
            graph.send_upto(py, graph.at.len() as u32).inspect_err(|_| graph.cancel_quietly())?;
        }
        Ok(graph)
    }

    fn send(py: Python<'_>, role: Arc<Role>, found: Ingested, hooks: Option<bytes::Bytes>) -> PyResult<Self> {
        let mut externals = Vec::with_capacity(found.externals.len() + found.literals.len());
        for reference in &found.externals {
            let reference = reference.bind(py).cast::<ObjectRef>().map_err(PyErr::from)?;
            externals.push(reference.get().object(&role)?);
        }
        let mut puts = Puts { role: &role, objects: Vec::with_capacity(found.literals.len()) };
        for literal in &found.literals {
            let value = store(&role.client, literal.bind(py))?;
            puts.objects.push(role.client.put(value).map_err(raise)?);
        }
        externals.extend(&puts.objects);
        let at = found.at();
        let id = role.client.next_graph();
        let spec = GraphSpec {
            id,
            inputs: found.inputs.clone(),
            externals: externals.clone(),
            position: found.position,
            class: found.class,
            classes: found.classes,
            outputs: found.outputs.clone(),
            demands: found.demands,
            priority: found.priority,
        };
        let templates: Vec<Template> = found
            .templates
            .into_iter()
            .map(|(code, functions)| Template { code: template::to_bytes(&code).into(), functions })
            .collect();
        let count = templates.len();
        let program = Program { templates, code: found.code, hooks, retry_filters: found.retry_filters };
        role.client.submit(spec, program).map_err(raise)?;
        let puts = puts.keep();
        Ok(Self {
            role,
            id,
            inputs: found.inputs,
            at,
            keys: found.keys,
            nodes: found.nodes,
            outputs: found.outputs,
            externals,
            _refs: found.externals,
            puts,
            result: found.result,
            templates: count,
            unsent: Mutex::new(Some(Unsent {
                functions: found.functions,
                batches: found.batches.into_iter(),
                sent: 0,
            })),
        })
    }

    /// Sends what tasks at positions below `upto` need, and admits them. After an error nothing more can be sent.
    fn send_upto(&self, py: Python<'_>, upto: u32) -> PyResult<()> {
        // Taken out, not locked: pickling runs Python, which may give up the GIL.
        let taken = self.unsent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut unsent = taken.ok_or_else(|| PyRuntimeError::new_err("the graph is being sent, or that has failed"))?;
        let sent = self.send_more(py, &mut unsent, upto);
        if sent.is_ok() {
            *self.unsent.lock().unwrap_or_else(PoisonError::into_inner) = Some(unsent);
        }
        sent
    }

    fn send_more(&self, py: Python<'_>, unsent: &mut Unsent, upto: u32) -> PyResult<()> {
        loop {
            let mut part = Part::default();
            let mut admit = upto;
            if unsent.sent < upto {
                for function in std::mem::take(&mut unsent.functions) {
                    part.functions.push(pickle(function.bind(py), "a function of the graph")?);
                }
                if let Some(batch) = unsent.batches.next() {
                    let constants = PyList::new(py, &batch.constants)?;
                    part.batches.push(pickle_batch(&constants)?);
                    unsent.sent = batch.upto;
                } else {
                    unsent.sent = u32::MAX;
                }
                admit = upto.min(unsent.sent);
            }
            self.role.client.extend(self.id, part, admit).map_err(raise)?;
            if admit >= upto {
                return Ok(());
            }
        }
    }

    fn object(&self, index: u32) -> ObjectId {
        ObjectId { graph: self.id, index }
    }

    fn check(&self, index: u32) -> PyResult<usize> {
        let place = index as usize;
        if place >= self.keys.len() {
            return Err(PyIndexError::new_err(format!("the graph has {} tasks, no task {index}", self.keys.len())));
        }
        Ok(place)
    }

    fn cancel_quietly(&self) {
        // A session that has ended has cancelled it already.
        let _ = self.role.client.cancel(self.id);
    }

    /// All objects that the requested keys name.
    fn wanted(&self) -> Vec<ObjectId> {
        let mut externals: Vec<ObjectId> = Vec::new();
        self.result.externals(&mut |k| {
            let object = self.externals[k as usize];
            if !externals.contains(&object) {
                externals.push(object);
            }
        });
        self.outputs.iter().map(|&index| self.object(index)).chain(externals).collect()
    }

    fn assemble<'py>(
        &self,
        py: Python<'py>,
        values: &FxHashMap<ObjectId, Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.nest(py, &mut |object| {
            values.get(&object).cloned().ok_or_else(|| PyRuntimeError::new_err("a result was not answered"))
        })
    }

    fn nest<'py>(
        &self,
        py: Python<'py>,
        value: &mut dyn FnMut(ObjectId) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.result.nest(py, &mut |part| match part {
            ResultShape::Task(index) => value(self.object(*index)),
            ResultShape::External(k) => value(self.externals[*k as usize]),
            ResultShape::Literal(literal) => Ok(literal.bind(py).clone()),
            ResultShape::List(_) => Err(PyRuntimeError::new_err("a list is no value")),
        })
    }
}

/// Objects put for a graph, released again if it is not submitted.
struct Puts<'a> {
    role: &'a Role,
    objects: Vec<ObjectId>,
}

impl Puts<'_> {
    fn keep(mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.objects)
    }
}

impl Drop for Puts<'_> {
    fn drop(&mut self) {
        // When the session has ended there is nothing to release.
        let _ = self.role.client.release(&self.objects);
    }
}

impl ResultShape {
    fn externals(&self, visit: &mut impl FnMut(u32)) {
        match self {
            Self::External(k) => visit(*k),
            Self::List(parts) => parts.iter().for_each(|part| part.externals(visit)),
            Self::Task(_) | Self::Literal(_) => {}
        }
    }
}

/// Pickles something of a graph. What cannot be pickled is named, with the pickler's error as the cause.
fn pickle(object: &Bound<'_, PyAny>, what: &str) -> PyResult<bytes::Bytes> {
    dumps(object).map_err(|cause| {
        let py = object.py();
        let class = object.get_type().qualname().map_or_else(|_| "object".into(), |name| name.to_string());
        let error = PyTypeError::new_err(format!("cannot send {what} to the workers, of type {class}: {cause}"));
        error.set_cause(py, Some(cause));
        error
    })
}

/// Pickles a batch; if that fails, finds the constant that is the reason.
fn pickle_batch(constants: &Bound<'_, PyList>) -> PyResult<bytes::Bytes> {
    pickle(constants.as_any(), "a batch of arguments").map_err(|error| {
        let culprit = constants.iter().find_map(|constant| pickle(&constant, "an argument of a task").err());
        culprit.unwrap_or(error)
    })
}

/// Decodes an answer, in private writable memory if `copy`.
pub(crate) fn decode(py: Python<'_>, value: Value, copy: bool) -> PyResult<Bound<'_, PyAny>> {
    value::decode(py, &payload(value), copy)
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.role.is_mine() {
            let objects: Vec<ObjectId> =
                self.outputs.iter().map(|&index| self.object(index)).chain(self.puts.iter().copied()).collect();
            // When the session has ended there is nothing to release.
            let _ = self.role.client.release(&objects);
        }
    }
}

#[pymethods]
impl Graph {
    /// The key of each task.
    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, &self.keys)
    }

    /// Counts of what was sent.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        stats.set_item("tasks", self.keys.len())?;
        stats.set_item("edges", self.inputs.items().len())?;
        stats.set_item("templates", self.templates)?;
        stats.set_item("externals", self.externals.len())?;
        stats.set_item("puts", self.puts.len())?;
        Ok(stats)
    }

    fn __len__(&self) -> usize {
        self.keys.len()
    }

    /// The tasks whose results task `index` reads.
    #[pyo3(signature = (index, /))]
    fn dependencies(&self, index: u32) -> PyResult<Vec<u32>> {
        self.check(index)?;
        let tasks = self.keys.len() as u32;
        Ok(self.inputs.row(index).iter().copied().filter(|&input| input < tasks).collect())
    }

    /// The task as it stood in the submitted mapping.
    #[pyo3(signature = (index, /))]
    fn node(&self, py: Python<'_>, index: u32) -> PyResult<Py<PyAny>> {
        Ok(self.nodes[self.check(index)?].clone_ref(py))
    }

    /// How many positions the order has.
    fn steps(&self) -> usize {
        self.at.len()
    }

    /// The task at a position of the order.
    #[pyo3(signature = (position, /))]
    fn at(&self, position: u32) -> PyResult<u32> {
        self.check(position)?;
        Ok(self.at[position as usize])
    }

    /// All tasks at positions below `upto` may run.
    #[pyo3(signature = (upto, /))]
    fn admit(&self, py: Python<'_>, upto: u32) -> PyResult<()> {
        if upto as usize > self.at.len() {
            return Err(PyIndexError::new_err(format!("the graph has {} positions, not {upto}", self.at.len())));
        }
        self.send_upto(py, upto)
    }

    /// The task will not run: this is its result. Called before the task is admitted.
    #[pyo3(signature = (index, value, /))]
    fn supply(&self, index: u32, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(index)?;
        let value = store(&self.role.client, value)?;
        self.role.client.supply(self.object(index), value).map_err(raise)
    }

    /// Holds the result of a task from now on.
    #[pyo3(name = "ref", signature = (index, /))]
    fn reference(&self, index: u32) -> PyResult<ObjectRef> {
        self.check(index)?;
        ObjectRef::holding(&self.role, self.object(index))
    }

    /// `ObjectRef`s nested as the requested keys; a literal stands for itself.
    fn refs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.nest(py, &mut |object| Ok(Bound::new(py, ObjectRef::holding(&self.role, object)?)?.into_any()))
    }

    /// Values nested as the requested keys. Raises what a task raised, after which nothing else of the graph starts.
    #[pyo3(signature = (timeout=None))]
    fn result<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return self.assemble(py, &FxHashMap::default());
        }
        let ended = waiting::wait(py, &self.role, &wanted, wanted.len(), true, timeout)
            .inspect_err(|_| self.cancel_quietly())?;
        let all = ended.len() == wanted.len();
        let mut values = FxHashMap::default();
        for (object, outcome) in ended {
            match outcome {
                Ok(value) => values.insert(object, value),
                Err(failure) => {
                    self.cancel_quietly();
                    let known = failure.origin.graph == self.id;
                    let key = if known { self.keys.get(failure.origin.index as usize) } else { None };
                    let key = key.map_or_else(|| py.None(), |key| key.clone_ref(py));
                    return Err(failures::failure(py, &failure, key.bind(py)));
                }
            };
        }
        if !all {
            return Err(failures::timeout(py, timeout.unwrap_or_default()));
        }
        let _suspended = Suspended::new(py)?;
        let mut decoded = FxHashMap::default();
        for (object, value) in values {
            decoded.insert(object, decode(py, value, true)?);
        }
        self.assemble(py, &decoded)
    }

    /// What has not started will not start. Returns at once; harmless when the graph has ended.
    fn cancel(&self) {
        self.cancel_quietly();
    }
}
