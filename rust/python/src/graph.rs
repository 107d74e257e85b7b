//! A submitted graph: from Dask's objects to the session, and back to values.

use std::sync::{Arc, Mutex, PoisonError};

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{GraphKind, GraphSpec};
use eagleray_runtime::program::{Part, Program, Template, Value};
use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::annotations::Annotations;
use crate::contained::Contained;
use crate::failures::{self, Names};
use crate::gc::Suspended;
use crate::ingest::{self, Batch, Ingested, Options, ResultShape};
use crate::keys::Keys;
use crate::pickles::{dump_batch, dump_function, payload, put_literal, store};
use crate::puts::Puts;
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
    keys: Arc<Keys>,
    nodes: Vec<Py<PyAny>>,
    outputs: Vec<u32>,
    externals: Vec<ObjectId>,
    /// Keeps the refs among them alive.
    refs: Vec<Py<PyAny>>,
    /// Large constants, and the objects that they were put as.
    literals: Vec<Py<PyAny>>,
    puts: Vec<ObjectId>,
    result: ResultShape,
    templates: usize,
    unsent: Mutex<Option<Unsent>>,
    /// What its constants and functions name, as far as they were sent.
    contained: Arc<Mutex<Vec<Contained>>>,
}

impl Graph {
    /// Ingests a mapping and submits what `keys` need. See `submit` in `_native.pyi`.
    pub(crate) fn submit(
        py: Python<'_>,
        dsk: &Bound<'_, PyAny>,
        keys: &Bound<'_, PyAny>,
        worker_hooks: Option<&Bound<'_, PyBytes>>,
        surroundings: Option<&Bound<'_, PyBytes>>,
        stepwise: bool,
        annotations: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let role = Role::current()?;
        let _suspended = Suspended::new(py)?;
        let annotations = annotations.map(Annotations::new).transpose()?;
        let options = Options { keys_for_hooks: worker_hooks.is_some(), annotations: annotations.as_ref() };
        let found = ingest::ingest(py, dsk, keys, &py.get_type::<ObjectRef>(), options)?;
        let shipped = [worker_hooks, surroundings].map(|data| Some(bytes::Bytes::copy_from_slice(data?.as_bytes())));
        let graph = Self::send(py, role, found, shipped)?;
        if !stepwise {
            // The workers begin with the first batch while the second is being pickled.
            graph.send_upto(py, graph.at.len() as u32).inspect_err(|_| graph.cancel_quietly())?;
        }
        Ok(graph)
    }

    /// Submits what was found. `shipped` goes to each worker once: hooks and surroundings.
    fn send(py: Python<'_>, role: Arc<Role>, found: Ingested, shipped: [Option<bytes::Bytes>; 2]) -> PyResult<Self> {
        let mut externals = Vec::with_capacity(found.externals.len() + found.literals.len());
        for reference in &found.externals {
            let reference = reference.bind(py).cast::<ObjectRef>().map_err(PyErr::from)?;
            externals.push(reference.get().object(&role)?);
        }
        let mut puts = Puts::new(&role);
        for literal in &found.literals {
            let literal = literal.bind(py);
            let encoded = value::encode(py, literal).map_err(|cause| found.names().not_picklable(literal, cause))?;
            puts.add(put_literal(&role, encoded)?);
        }
        externals.extend(puts.objects());
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
            kind: GraphKind::Computation,
            // What is pickled later is held by this process.
            contained: Vec::new(),
        };
        let templates: Vec<Template> = found
            .templates
            .into_iter()
            .map(|(code, functions)| Template { code: template::to_bytes(&code).into(), functions })
            .collect();
        let count = templates.len();
        let [hooks, surroundings] = shipped;
        let retry_filters = found.retry_filters;
        let names = found.names;
        let program =
            Program { templates, code: found.code, hooks, surroundings, retry_filters, actor_meta: None, names };
        role.client.submit(spec, program).map_err(raise)?;
        let keys = Keys::register(id, found.keys);
        let puts = puts.take();
        Ok(Self {
            role,
            id,
            inputs: found.inputs,
            at,
            keys,
            nodes: found.nodes,
            outputs: found.outputs,
            externals,
            refs: found.externals,
            literals: found.literals,
            puts,
            result: found.result,
            templates: count,
            unsent: Mutex::new(Some(Unsent {
                functions: found.functions,
                batches: found.batches.into_iter(),
                sent: 0,
            })),
            contained: Arc::default(),
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
                    let function = function.bind(py);
                    let pickled = dump_function(function).map_err(|cause| self.names().not_picklable(function, cause));
                    part.functions.push(self.holding(pickled?));
                }
                if let Some(batch) = unsent.batches.next() {
                    let explain = |constant: &Bound<'_, PyAny>, cause| self.names().not_picklable(constant, cause);
                    part.batches.push(self.holding(dump_batch(py, &batch.constants, explain)?));
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

    fn names(&self) -> Names<'_> {
        Names { keys: &self.keys, nodes: &self.nodes, externals: [&self.refs, &self.literals] }
    }

    /// Holds what a pickle names.
    fn holding(&self, (pickle, contained): (bytes::Bytes, Contained)) -> bytes::Bytes {
        if !contained.is_empty() {
            self.contained.lock().unwrap_or_else(PoisonError::into_inner).push(contained);
        }
        pickle
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
        let mut wanted: Vec<ObjectId> = self.outputs.iter().map(|&index| self.object(index)).collect();
        let mut externals = FxHashSet::default();
        self.result.externals(&mut |k| {
            let object = self.externals[k as usize];
            if externals.insert(object) {
                wanted.push(object);
            }
        });
        wanted
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

impl ResultShape {
    fn externals(&self, visit: &mut impl FnMut(u32)) {
        match self {
            Self::External(k) => visit(*k),
            Self::List(parts) => parts.iter().for_each(|part| part.externals(visit)),
            Self::Task(_) | Self::Literal(_) => {}
        }
    }
}

/// Decodes the value of an object, in private writable memory if `copy`. An error says whose value it is.
pub(crate) fn decode(py: Python<'_>, object: ObjectId, value: Value, copy: bool) -> PyResult<Bound<'_, PyAny>> {
    value::decode(py, &payload(value), copy).inspect_err(|error| failures::name_value(py, error, object))
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
        PyList::new(py, self.keys.iter())
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
        let mut encoded = value::encode(value.py(), value)?;
        let contained = encoded.take_contained();
        let value = store(&self.role.client, &encoded).map_err(raise)?;
        self.role.client.supply(self.object(index), value, contained.objects()).map_err(raise)
    }

    /// Holds the result of a task from now on.
    #[pyo3(name = "ref", signature = (index, /))]
    fn reference(&self, index: u32) -> PyResult<ObjectRef> {
        self.check(index)?;
        ObjectRef::to_result(&self.role, self.object(index), &self.keys, &self.contained)
    }

    /// `ObjectRef`s nested as the requested keys; a literal stands for itself.
    fn refs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.nest(py, &mut |object| {
            // What is not a result of this graph is a ref in it, or was put for it.
            let made = if object.graph == self.id {
                ObjectRef::to_result(&self.role, object, &self.keys, &self.contained)?
            } else {
                ObjectRef::holding(&self.role, object)?
            };
            Ok(Bound::new(py, made)?.into_any())
        })
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
                    let mine = failure.origin.graph == self.id;
                    let error = if mine {
                        failures::failure(py, &failure, Some(self.names()))
                    } else {
                        failures::failure_of_another(py, &failure)
                    };
                    return Err(error);
                }
            };
        }
        if !all {
            return Err(failures::timeout(py, timeout.unwrap_or_default()));
        }
        let _suspended = Suspended::new(py)?;
        let mut decoded = FxHashMap::default();
        for (object, value) in values {
            decoded.insert(object, decode(py, object, value, true)?);
        }
        self.assemble(py, &decoded)
    }

    /// What has not started will not start. Returns at once; harmless when the graph has ended.
    fn cancel(&self) {
        self.cancel_quietly();
    }
}
