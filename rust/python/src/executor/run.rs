//! A run: task after task, straight through.

use std::sync::{Arc, Mutex};

use eagleray_core::graph::Csr;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{Run, Trouble, output};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::Executor;
use super::constants::Constants;
use super::failure::{Failure, Inputs, is_read_only, not_picklable};
use super::hooks::Hooks;
use super::io::RunIo;
use super::library::lock;
use super::machine::{Call, Machine, Operands};
use super::objects::is_put;
use super::plan::{Plan, Slot};
use super::shape::Shape;
use super::size;
use crate::template::{BATCH, CLASS, HEADER, KEY, MAKES_ACTOR, NO_BATCH, NO_KEY, OF_CALL};
use crate::value;

/// The values of a run that is being executed. Others may look for one of them, between tasks or from inside one.
pub(super) struct Values {
    run: Run,
    slots: Mutex<Vec<Slot>>,
}

impl Values {
    pub(super) fn new(run: Run, slots: Vec<Slot>) -> Self {
        Self { run, slots: Mutex::new(slots) }
    }

    /// The result of a task of the run, if it is still there.
    pub(super) fn get(&self, py: Python<'_>, object: ObjectId) -> Option<Py<PyAny>> {
        if object.graph != self.run.graph {
            return None;
        }
        let place = self.run.tasks.iter().position(|task| *task == object.index)?;
        lock(&self.slots)[place].value.as_ref().map(|value| value.clone_ref(py))
    }

    /// The task at a place of the run.
    pub(super) fn task_at(&self, place: u32) -> Option<ObjectId> {
        self.run.tasks.get(place as usize).map(|&index| ObjectId { graph: self.run.graph, index })
    }

    /// Takes out what was made for tasks that were recalled, or will come back because another input was missing.
    pub(super) fn take_unread(&self) -> Vec<(ObjectId, Py<PyAny>)> {
        let mut slots = lock(&self.slots);
        let made = self.run.tasks.iter().zip(&mut *slots).filter(|(_, slot)| slot.readers > 0);
        let object = |index| ObjectId { graph: self.run.graph, index };
        made.filter_map(|(task, slot)| Some((object(*task), slot.value.take()?))).collect()
    }
}

/// A run in progress.
pub(super) struct Runner<'a, 'py> {
    py: Python<'py>,
    executor: &'a Executor,
    run: &'a Run,
    code: &'a Csr,
    io: &'a dyn RunIo,
    plan: Plan,
    values: &'a Values,
    has_hooks: bool,
    machine: Machine,
    /// Of the present task, as its shape lists them.
    inputs: Vec<Py<PyAny>>,
    /// The batch used last: neighbours mostly share it.
    batch: Option<(u32, Arc<Constants>)>,
    /// Values after their last read, until no lock is held.
    garbage: Vec<Py<PyAny>>,
}

impl<'a, 'py> Runner<'a, 'py> {
    pub(super) fn new(
        py: Python<'py>,
        executor: &'a Executor,
        run: &'a Run,
        code: &'a Csr,
        io: &'a dyn RunIo,
        plan: Plan,
        values: &'a Values,
    ) -> Self {
        let has_hooks = executor.library.has_hooks(run.graph);
        Self {
            py,
            executor,
            run,
            code,
            io,
            plan,
            values,
            has_hooks,
            machine: Machine::default(),
            inputs: Vec::new(),
            batch: None,
            garbage: Vec::new(),
        }
    }

    /// Executes what can be claimed.
    pub(super) fn execute(mut self) -> PyResult<()> {
        let obstacle = self.io.obstacle();
        while let Some(place) = self.io.claim() {
            if place as usize >= self.run.tasks.len() {
                return Err(PyRuntimeError::new_err(format!("claimed task {place}, which the run does not have")));
            }
            let begin = self.io.now_ns();
            let ended = match &obstacle {
                None => self.task(place, begin),
                Some(error) => Err(Failure::Raised(error.clone_ref(self.py))),
            };
            self.io.returned();
            let ns = self.io.now_ns().saturating_sub(begin);
            let (bytes, trouble) = match ended {
                Ok(bytes) => (bytes, None),
                Err(failure) => (0, Some(self.trouble(place, failure)?)),
            };
            self.inputs.clear();
            self.release(place, trouble.as_ref());
            self.io.ended(place, self.code.row(place)[0], ns, bytes, trouble);
            self.io.between(self.py)?;
        }
        Ok(())
    }

    /// The object of the task at a place.
    fn object(&self, place: u32) -> ObjectId {
        ObjectId { graph: self.run.graph, index: self.run.tasks[place as usize] }
    }

    /// What is reported of a task that did not end well.
    fn trouble(&self, place: u32, failure: Failure) -> PyResult<Trouble> {
        if let Failure::Raised(error) = &failure {
            if error.is_instance_of::<PyKeyboardInterrupt>(self.py) && self.io.was_interrupted(place) {
                return Ok(Trouble::Cancelled);
            }
        }
        let class = self.code.row(place)[CLASS];
        let again = match &failure {
            Failure::Raised(error) => self.executor.library.retries_for(self.py, self.run.graph, class, error),
            _ => false,
        };
        if !again {
            return failure.into_trouble(self.py, self.io, false, || self.numbered_inputs(place));
        }
        let trouble = failure.into_trouble(self.py, self.io, true, || self.numbered_inputs(place));
        self.spoil(place);
        trouble
    }

    /// The task may have changed what it read. Its next attempt, and everybody else from now on, gets it anew: results of
    /// tasks are made again, what was published is decoded again.
    fn spoil(&self, place: u32) {
        let mut spoilt = Vec::new();
        for &source in self.plan.sources(place) {
            let outside = self.plan.outside(source);
            let object = outside.unwrap_or_else(|| self.object(source));
            self.executor.objects.drop_kept(object);
            self.executor.objects.decode_again(object);
            let mut slots = lock(&self.values.slots);
            slots[source as usize].failed |= outside.is_none();
            spoilt.extend(slots[source as usize].value.take());
        }
        // No lock is held while these are dropped.
        drop(spoilt);
    }

    /// Runs a task and gives its result to whom it may concern. Returns its size.
    fn task(&mut self, place: u32, begin: u64) -> Result<u64, Failure> {
        if self.take_inputs(place) {
            return Err(Failure::Skipped);
        }
        // What follows may end the process.
        self.io.start(place, begin);
        self.find_inputs(place)?;
        let result = self.evaluate(place)?;
        if self.io.is_deferred(self.py, self.object(place), &result) {
            return Err(Failure::Deferred);
        }
        self.deliver(place, result)
    }

    /// Collects what the task reads, up to the first value that is not at hand yet. Tells whether one has failed.
    fn take_inputs(&mut self, place: u32) -> bool {
        let sources = self.plan.sources(place);
        if sources.is_empty() {
            return false;
        }
        let slots = lock(&self.values.slots);
        for &source in sources {
            match &slots[source as usize] {
                Slot { failed: true, .. } => return true,
                Slot { value: Some(value), .. } => self.inputs.push(value.clone_ref(self.py)),
                _ => break,
            }
        }
        sources.iter().any(|source| slots[*source as usize].failed)
    }

    /// Collects the rest: from outside, at the first read in this run.
    fn find_inputs(&mut self, place: u32) -> Result<(), Failure> {
        let sources = self.plan.sources(place);
        if self.inputs.len() == sources.len() {
            return Ok(());
        }
        let mut missing = Vec::new();
        for &source in &sources[self.inputs.len()..] {
            let known = lock(&self.values.slots)[source as usize].value.as_ref().map(|value| value.clone_ref(self.py));
            if let Some(value) = known {
                self.inputs.push(value);
                continue;
            }
            // A result of the run that is not there has failed.
            let object = self.plan.outside(source).ok_or(Failure::Skipped)?;
            match self.executor.objects.find(self.py, object)? {
                Some(found) => {
                    if found.shared {
                        let value = found.value.clone_ref(self.py);
                        let old = lock(&self.values.slots)[source as usize].value.replace(value);
                        drop(old);
                    }
                    self.inputs.push(found.value);
                }
                None => missing.push(object),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Failure::InputNotHere(missing)) }
    }

    /// The result of the task, whose inputs are collected, with its hooks called.
    fn evaluate(&mut self, place: u32) -> PyResult<Py<PyAny>> {
        let py = self.py;
        let row = self.code.row(place);
        let shape = self.plan.shape(place).clone();
        let constants = if shape.has_constants || self.has_hooks { Some(self.batch(row)?) } else { None };
        let operands = Operands {
            functions: self.executor.library.functions(py, self.run.graph, &shape)?,
            parameters: &row[HEADER..],
            constants: constants.as_deref(),
            inputs: &[],
        };
        if !self.has_hooks {
            return self.call(place, &shape, operands);
        }
        let hooks: Arc<Hooks> = self.executor.library.hooks(py, self.run.graph)?;
        let key = operands.constants.and_then(|known| known.original(row[3])).filter(|_| row[3] != NO_KEY);
        let key = key.ok_or_else(|| PyRuntimeError::new_err("a task with hooks came without its key"))?.bind(py);
        let states = hooks.before(py, key, &self.distinct_inputs(place)?)?;
        let result = self.call(place, &shape, operands)?;
        hooks.after(py, key, result.bind(py), states)?;
        Ok(result)
    }

    fn batch(&mut self, row: &[u32]) -> PyResult<Arc<Constants>> {
        let id = row[BATCH];
        if let Some((last, objects)) = &self.batch {
            if *last == id {
                return Ok(objects.clone());
            }
        }
        if id == NO_BATCH {
            return Err(PyRuntimeError::new_err("a task that names constants came without a batch"));
        }
        // A call has its batch to itself: kept, refs in it would be held as long as the call's result.
        let keep = !matches!(row[KEY], OF_CALL | MAKES_ACTOR);
        let objects = self.executor.library.batch(self.py, self.run.graph, id, keep)?;
        self.batch = Some((id, objects.clone()));
        Ok(objects)
    }

    /// The collected inputs, each object once, though two parameters may name it.
    fn distinct_inputs(&self, place: u32) -> PyResult<Bound<'py, PyTuple>> {
        let sources = self.plan.sources(place);
        let first = |(number, _): &(usize, _)| !sources[..*number].contains(&sources[*number]);
        let distinct: Vec<_> = self.inputs.iter().enumerate().filter(first).map(|(_, input)| input).collect();
        PyTuple::new(self.py, distinct)
    }

    /// The collected inputs, each object once, with their numbers. None of a call: there they say nothing.
    fn numbered_inputs(&self, place: u32) -> Option<Inputs> {
        let row = self.code.row(place);
        if matches!(row[KEY], OF_CALL | MAKES_ACTOR) {
            return None;
        }
        let parameters = &row[HEADER..];
        let numbers = self.plan.shape(place).inputs.iter().map(|&parameter| parameters[parameter as usize]);
        let mut numbered = Inputs::new();
        for (number, input) in numbers.zip(&self.inputs) {
            if numbered.iter().all(|(known, _)| *known != number) {
                numbered.push((number, input.clone_ref(self.py)));
            }
        }
        Some(numbered)
    }

    /// Evaluates the task on its inputs; once more on copies if it failed by writing to what another task made.
    fn call(&mut self, place: u32, shape: &Shape, operands: Operands<'_>) -> PyResult<Py<PyAny>> {
        let py = self.py;
        if !shape.copies_inputs() {
            let result = self.machine.evaluate(py, shape, Operands { inputs: &self.inputs, ..operands });
            let Err(error) = result else { return result };
            let failed = self.machine.take_failed();
            if self.executor.in_place || !is_read_only(py, &error) {
                return Err(error);
            }
            let sources = self.plan.sources(place);
            if sources.iter().all(|source| self.is_drivers(*source)) {
                return Err(self.explained(place, operands, &self.inputs, error, failed));
            }
        }
        let copies = self.copies(place)?;
        let result = self.machine.evaluate(py, shape, Operands { inputs: &copies, ..operands });
        match result {
            Ok(result) => {
                shape.set_copies_inputs();
                Ok(result)
            }
            Err(error) => {
                let failed = self.machine.take_failed();
                if !is_read_only(py, &error) {
                    return Err(error);
                }
                Err(self.explained(place, operands, &copies, error, failed))
            }
        }
    }

    /// Whether what lies in a slot was put by a driver.
    fn is_drivers(&self, slot: u32) -> bool {
        self.plan.outside(slot).is_some_and(is_put)
    }

    /// The inputs, those that another task made as copies.
    fn copies(&self, place: u32) -> PyResult<Vec<Py<PyAny>>> {
        static DEEPCOPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let deepcopy = DEEPCOPY.import(self.py, "copy", "deepcopy")?;
        let inputs = self.plan.sources(place).iter().zip(&self.inputs);
        let copy = |(source, input): (&u32, &Py<PyAny>)| {
            if self.is_drivers(*source) {
                return Ok(input.clone_ref(self.py));
            }
            deepcopy.call1((input,)).map(Bound::unbind)
        };
        inputs.map(copy).collect()
    }

    /// What to raise for an `error` of writing to read-only memory: it says so if that belongs to the driver.
    fn explained(
        &self,
        place: u32,
        operands: Operands<'_>,
        inputs: &[Py<PyAny>],
        error: PyErr,
        failed: Option<Call>,
    ) -> PyErr {
        static EXPLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = self.py;
        let Some(Call { frame, positional, names }) = failed else { return error };
        let explain = || -> PyResult<PyErr> {
            let (function, arguments) = frame.split_first().ok_or_else(|| PyRuntimeError::new_err("an empty call"))?;
            let named = PyDict::new(py);
            if let Some(names) = &names {
                for (name, value) in names.bind(py).try_iter()?.zip(&arguments[positional..]) {
                    named.set_item(name?, value)?;
                }
            }
            let sources = self.plan.sources(place);
            let (drivers, made): (Vec<_>, Vec<_>) =
                sources.iter().zip(inputs).partition(|(source, _)| self.is_drivers(**source));
            let inputs = |those: Vec<(&u32, &Py<PyAny>)>| PyList::new(py, those.into_iter().map(|(_, input)| input));
            let drivers = inputs(drivers)?;
            for constant in operands.constants.map_or(&[][..], Constants::all) {
                drivers.append(constant)?;
            }
            let explain = EXPLAIN.import(py, "eagleray._sharing", "read_only")?;
            let positional = PyList::new(py, &arguments[..positional])?;
            let explained = explain.call1((error.value(py), function, positional, named, drivers, inputs(made)?))?;
            Ok(PyErr::from_value(explained))
        };
        explain().unwrap_or(error)
    }

    /// Publishes, keeps, or puts by the result for those that read it. Returns its size.
    fn deliver(&mut self, place: u32, result: Py<PyAny>) -> Result<u64, Failure> {
        let py = self.py;
        let flags = self.run.outputs[place as usize];
        let mut bytes = None;
        let mut unsendable = None;
        if flags & output::PUBLISH != 0 {
            match value::encode(py, result.bind(py)) {
                Ok(encoded) => {
                    bytes = Some(encoded.len() as u64);
                    self.io.publish(py, place, encoded, flags & output::SEAL != 0)?;
                    self.executor.published(self.run.graph, result.bind(py));
                }
                Err(cause) if cause.is_instance_of::<PyException>(py) => {
                    unsendable = Some(not_picklable(py, result.bind(py), cause));
                }
                Err(cause) => return Err(cause.into()),
            }
        }
        let bytes = bytes.unwrap_or_else(|| size::guess(result.bind(py)));
        let read_later = lock(&self.values.slots)[place as usize].readers > 0;
        let keep = flags & output::KEEP != 0 || unsendable.is_some();
        if (read_later || keep) && !self.executor.in_place {
            value::freeze(result.bind(py))?;
        }
        if keep {
            self.executor.objects.keep(self.object(place), result.clone_ref(py));
        }
        if read_later {
            let old = lock(&self.values.slots)[place as usize].value.replace(result);
            drop(old);
        }
        unsendable.map_or(Ok(bytes), |error| Err(Failure::Unsendable(error)))
    }

    /// Notes how a task ended, and drops what it was the last to read.
    fn release(&mut self, place: u32, trouble: Option<&Trouble>) {
        let sources = self.plan.sources(place);
        let failed = trouble.is_some_and(|trouble| !matches!(trouble, Trouble::Unsendable(_)));
        if sources.is_empty() && !failed {
            return;
        }
        let mut slots = lock(&self.values.slots);
        slots[place as usize].failed = failed;
        // A task that found an input missing comes back some day, like one that was recalled: what it reads is kept.
        if matches!(trouble, Some(Trouble::InputNotHere(_))) {
            return;
        }
        for &source in sources {
            let slot = &mut slots[source as usize];
            slot.readers -= 1;
            if slot.readers == 0 {
                self.garbage.extend(slot.value.take());
            }
        }
        drop(slots);
        self.garbage.clear();
    }
}
