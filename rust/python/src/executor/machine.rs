//! Evaluates a compiled template: a stack, and the values of the steps.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyTuple};

use super::constants::Constants;
use super::shape::{Op, Shape};
use crate::raw;

/// What one task is evaluated with.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    /// The loaded function entries.
    pub(super) functions: &'a [Py<PyAny>],
    /// The row behind its header.
    pub(super) parameters: &'a [u32],
    /// The batch.
    pub(super) constants: Option<&'a Constants>,
    /// The values of [`Shape::inputs`].
    pub(super) inputs: &'a [Py<PyAny>],
}

/// Memory for the evaluation of tasks, one at a time. Each run has its own: a task may start a run.
#[derive(Default)]
pub(super) struct Machine {
    stack: Vec<Py<PyAny>>,
    steps: Vec<Option<Py<PyAny>>>,
    /// The call that failed, if one did in the last evaluation.
    failed: Option<Call>,
}

/// A call as it was made.
pub(super) struct Call {
    /// The callable, then all arguments.
    pub(super) frame: Vec<Py<PyAny>>,
    /// How many of them are positional.
    pub(super) positional: usize,
    /// The tuple of the names of the others.
    pub(super) names: Option<Py<PyAny>>,
}

impl Machine {
    /// The result of a task. The operands fit the shape, as far as [`super::plan`] checks it.
    pub(super) fn evaluate(&mut self, py: Python<'_>, shape: &Shape, operands: Operands<'_>) -> PyResult<Py<PyAny>> {
        if self.steps.len() < shape.steps {
            self.steps.resize_with(shape.steps, || None);
        }
        let result = self.perform(py, shape, operands);
        if result.is_err() {
            self.steps.fill_with(|| None);
        }
        self.stack.clear();
        result
    }

    /// The call that made the last evaluation fail.
    pub(super) fn take_failed(&mut self) -> Option<Call> {
        self.failed.take()
    }

    fn perform(&mut self, py: Python<'_>, shape: &Shape, operands: Operands<'_>) -> PyResult<Py<PyAny>> {
        for op in &shape.ops {
            let value = match *op {
                Op::Input(input) => operands.inputs[input as usize].clone_ref(py),
                Op::Const(parameter) => constant(py, operands, operands.parameters[parameter as usize])?,
                Op::Func(entry) => operands.functions[entry as usize].clone_ref(py),
                Op::Local(step) => self.steps[step as usize].as_ref().ok_or_else(unbalanced)?.clone_ref(py),
                Op::Take(step) => self.steps[step as usize].take().ok_or_else(unbalanced)?,
                Op::Call(positional) => self.call(py, positional as usize, 0, None)?,
                Op::CallNamed { positional, named, names } => {
                    self.call(py, positional as usize, named as usize, Some(&operands.functions[names as usize]))?
                }
                Op::List(count) => PyList::new(py, self.operands(count as usize))?.into_any().unbind(),
                Op::Tuple(count) => PyTuple::new(py, self.operands(count as usize))?.into_any().unbind(),
                Op::Set(count) => PySet::new(py, self.operands(count as usize))?.into_any().unbind(),
                Op::Dict(count) => {
                    let dict = PyDict::new(py);
                    let mut operands = self.operands(2 * count as usize);
                    while let (Some(key), Some(value)) = (operands.next(), operands.next()) {
                        dict.set_item(key, value)?;
                    }
                    dict.into_any().unbind()
                }
                Op::Store(step) => {
                    self.steps[step as usize] = self.stack.pop();
                    continue;
                }
                Op::Discard => {
                    self.stack.pop();
                    continue;
                }
            };
            self.stack.push(value);
        }
        self.stack.pop().ok_or_else(unbalanced)
    }

    /// Takes the topmost `count` values off the stack.
    fn operands(&mut self, count: usize) -> std::vec::Drain<'_, Py<PyAny>> {
        self.stack.drain(self.stack.len() - count..)
    }

    /// Calls what lies on the stack under its arguments, and takes all of it off.
    fn call(
        &mut self,
        py: Python<'_>,
        positional: usize,
        named: usize,
        names: Option<&Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let callable = (self.stack.len()).checked_sub(positional + named + 1).ok_or_else(unbalanced)?;
        let names = names.map(|names| names.bind(py).cast::<PyTuple>()).transpose()?;
        match raw::call(py, &mut self.stack[callable..], names) {
            Ok(result) => {
                self.stack.truncate(callable);
                Ok(result)
            }
            Err(error) => {
                let names = names.map(|names| names.clone().into_any().unbind());
                self.failed = Some(Call { frame: self.stack.split_off(callable), positional, names });
                Err(error)
            }
        }
    }
}

fn constant(py: Python<'_>, operands: Operands<'_>, place: u32) -> PyResult<Py<PyAny>> {
    let constants = operands.constants.ok_or_else(|| PyRuntimeError::new_err("the task came without its constants"))?;
    constants.get(py, place)
}

/// Compiled code leaves each step's value exactly where its uses find it.
fn unbalanced() -> PyErr {
    PyRuntimeError::new_err("compiled template is inconsistent")
}
