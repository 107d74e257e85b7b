//! Dask's objects in, numbers and templates out.
//!
//! [`ingest`] walks a graph once, from the requested keys: [`keys`] numbers the keys, [`graph`] says what each of them
//! stands for (a task, a value, an object from outside; aliases are followed), [`compile`] and [`subgraph`] write the
//! code of each task into a [`draft`], and [`templates`] keeps each shape once. [`finish`] then numbers the tasks that
//! are needed, orders them and cuts their constants into batches.
//!
//! What means a task where:
//!
//! * In a node of `dask._task_spec`: nodes and `TaskRef`s among its arguments. Dask does not look into the plain
//!   containers there, so neither do we, except for object references.
//! * In a legacy graph: a tuple with a callable first is a call; what equals a key stands for it (`int`, `float`, `str`,
//!   `tuple` only); lists, tuples, sets and frozensets are walked; of a dict that is an argument of a call, the values
//!   that are nodes.
//! * Object references everywhere in plain lists, tuples, dicts, sets and frozensets, in named tuples, and in those
//!   fields of dataclasses that their constructors take.

mod compile;
mod draft;
mod externals;
mod finish;
mod graph;
mod keys;
mod kinds;
mod prefix;
mod priority;
mod subgraph;
mod templates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use eagleray_core::graph::Csr;
use eagleray_core::message::{ClassSpec, Demand};
use eagleray_runtime::program::RetryFilter;
use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyType};

use compile::{Compiler, MAX_DEPTH};
use graph::{Graph, Target};
use kinds::Kinds;

use crate::annotations::{Annotations, TaskSpec};
use crate::failures::Names;

/// What this compute needs beside the graph.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options<'a, 'py> {
    /// Each task's row names the task's key among the constants of its batch.
    pub(crate) keys_for_hooks: bool,
    /// What the user wants of its tasks.
    pub(crate) annotations: Option<&'a Annotations<'py>>,
}

/// A graph in numbers. Tasks are numbered in the order of the mapping.
pub(crate) struct Ingested {
    /// Row `i`: the inputs of task `i`, as in `GraphSpec`: `n < len` is task `n`, `len + k` is external object `k`.
    pub(crate) inputs: Csr,
    /// The position of each task in the order of execution.
    pub(crate) position: Vec<u32>,
    /// The class of each task.
    pub(crate) class: Vec<u32>,
    /// The classes.
    pub(crate) classes: Vec<ClassSpec>,
    /// What tasks of each class are called: the prefix of their keys.
    pub(crate) names: Vec<Arc<str>>,
    /// The demands that they name.
    pub(crate) demands: Vec<Demand>,
    /// Which of them are run again when they raise, and after what.
    pub(crate) retry_filters: Vec<RetryFilter>,
    /// What all tasks have at least.
    pub(crate) priority: i32,
    /// The tasks that the requested keys stand for, without duplicates.
    pub(crate) outputs: Vec<u32>,
    /// The object references in use: the first external objects.
    pub(crate) externals: Vec<Py<PyAny>>,
    /// Large constants, each once: the external objects after those. They have to be put.
    pub(crate) literals: Vec<Py<PyAny>>,
    /// Code and functions of each template.
    pub(crate) templates: Vec<(Vec<u32>, Vec<u32>)>,
    /// What the templates' functions are, each object once.
    pub(crate) functions: Vec<Py<PyAny>>,
    /// Row `i`: class, batch, template, key and parameters of task `i`; see `template`.
    pub(crate) code: Csr,
    /// The constants, in the order of execution. They cover all positions.
    pub(crate) batches: Vec<Batch>,
    /// The key of each task.
    pub(crate) keys: Vec<Py<PyAny>>,
    /// The node of each task, as it was in the mapping.
    pub(crate) nodes: Vec<Py<PyAny>>,
    /// Where the requested values are.
    pub(crate) result: ResultShape,
}

/// The constants of tasks that follow each other in the order of execution.
pub(crate) struct Batch {
    /// Each object once. May be empty; then no task names the batch.
    pub(crate) constants: Vec<Py<PyAny>>,
    /// The first position after it.
    pub(crate) upto: u32,
}

/// What the caller asked for.
#[derive(Debug)]
pub(crate) enum ResultShape {
    /// The result of a task.
    Task(u32),
    /// A value of the graph itself.
    Literal(Py<PyAny>),
    /// External object `k`.
    External(u32),
    /// A list.
    List(Vec<Self>),
}

impl Ingested {
    /// What its tasks and objects are called.
    pub(crate) fn names(&self) -> Names<'_> {
        Names { keys: &self.keys, nodes: &self.nodes, externals: [&self.externals, &self.literals] }
    }

    /// The task at each position.
    pub(crate) fn at(&self) -> Vec<u32> {
        let mut at = vec![0; self.position.len()];
        for (task, &position) in self.position.iter().enumerate() {
            at[position as usize] = task as u32;
        }
        at
    }
}

impl ResultShape {
    /// Lists nested as this, of what `leaf` gives for each part that is no list.
    pub(crate) fn nest<'py>(
        &self,
        py: Python<'py>,
        leaf: &mut dyn FnMut(&Self) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Self::List(parts) = self else { return leaf(self) };
        let list = PyList::empty(py);
        for part in parts {
            list.append(part.nest(py, leaf)?)?;
        }
        Ok(list.into_any())
    }
}

/// Takes the part of the mapping `dsk` that `keys`, a key or nested lists of keys, need.
///
/// # Errors
///
/// `MissingKeyError` for a key that the graph does not have, `RuntimeError` for a cycle, `RecursionError` for a task or value
/// that is nested too deep, and whatever keys and nodes raise.
pub(crate) fn ingest<'py>(
    py: Python<'py>,
    dsk: &Bound<'py, PyAny>,
    keys: &Bound<'py, PyAny>,
    object_ref_type: &Bound<'py, PyType>,
    options: Options<'_, 'py>,
) -> PyResult<Ingested> {
    let dsk = match dsk.cast::<PyDict>() {
        Ok(dict) => dict.clone(),
        Err(_) => py.get_type::<PyDict>().call1((dsk,))?.cast_into::<PyDict>()?,
    };
    let graph = Graph::new(&dsk)?;
    let mut compiler = Compiler::new(py, Kinds::new(object_ref_type)?, graph);
    let requested = request(&mut compiler, keys, 0)?;
    let mut tasks = Vec::new();
    let ordinary = TaskSpec::default();
    let mut priorities = Vec::new();
    while let Some(slot) = compiler.graph.next_pending() {
        let (template, first_param) = compiler.task(slot)?;
        let key = compiler.graph.keys.key(slot);
        let spec = match options.annotations {
            None => &ordinary,
            Some(annotations) => {
                let spec = annotations.of(key)?;
                priorities.push(spec.priority);
                spec
            }
        };
        let class = compiler.templates.class(key, template, spec)?;
        tasks.push(finish::Compiled { slot, template, class, first_param });
    }
    finish::finish(compiler, tasks, requested, options.keys_for_hooks, &priorities)
}

/// Looks the requested keys up. Tasks and externals have preliminary numbers in the result.
fn request(compiler: &mut Compiler<'_>, keys: &Bound<'_, PyAny>, depth: u32) -> PyResult<ResultShape> {
    if let Ok(list) = keys.cast::<PyList>() {
        if depth == MAX_DEPTH {
            return Err(PyRecursionError::new_err(format!("the requested keys are nested more than {MAX_DEPTH} deep")));
        }
        let parts = list.iter().map(|part| request(compiler, &part, depth + 1)).collect::<PyResult<_>>()?;
        return Ok(ResultShape::List(parts));
    }
    let Some(slot) = compiler.graph.keys.get(keys)? else {
        return Err(compiler.graph.keys.missing(keys, None));
    };
    Ok(match compiler.graph.resolve(slot, &mut compiler.kinds)? {
        Target::Task(slot) => ResultShape::Task(slot),
        Target::Literal(slot) => ResultShape::Literal(compiler.graph.node(slot).clone().unbind()),
        Target::Ref(slot) => {
            let node = compiler.graph.node(slot).clone();
            ResultShape::External(compiler.externals.reference(&node)?)
        }
    })
}
