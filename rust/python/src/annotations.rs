//! What a user wants of tasks beside their result: how often they are tried, in which order, and on what.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::message::{Demand, GPU, WHOLE};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// The slots of a node as a resource.
const CPU: &str = "CPU";

/// How often a task is run again when its worker died, if nothing is said.
const MAX_RETRIES: u8 = 3;

/// What holds for a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskSpec {
    /// How often it is run again when it raised.
    pub(crate) retries: u16,
    /// How often it is run again when its worker died.
    pub(crate) max_retries: u8,
    /// The pickle of a tuple of exception classes: only for these it is run again. For any, if absent.
    pub(crate) retry_exceptions: Option<Bytes>,
    /// Higher is sooner.
    pub(crate) priority: i32,
    /// What it occupies, if not just one CPU.
    pub(crate) demand: Option<Demand>,
    /// Of all but the priority: tasks for which it differs are of different classes. 0 if nothing is special.
    pub(crate) fingerprint: u64,
}

impl Default for TaskSpec {
    fn default() -> Self {
        Self { retries: 0, max_retries: MAX_RETRIES, retry_exceptions: None, priority: 0, demand: None, fingerprint: 0 }
    }
}

impl TaskSpec {
    /// With what follows from the rest.
    pub(crate) fn settled(mut self) -> Self {
        if self.retries == 0 {
            self.retry_exceptions = None;
        }
        if self != (Self { priority: self.priority, ..Self::default() }) {
            self.fingerprint = fingerprint(&self);
        }
        self
    }
}

/// What holds for the tasks of a graph.
pub(crate) struct Annotations<'py> {
    specs: Vec<TaskSpec>,
    by_key: Bound<'py, PyDict>,
}

impl<'py> Annotations<'py> {
    /// Reads the pair `(specs, by_key)` that `submit` takes; see `_native.pyi`.
    ///
    /// # Errors
    ///
    /// `TypeError` and `ValueError` for what is not as it should be.
    pub(crate) fn new(pair: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (specs, by_key): (Vec<Bound<'py, PyDict>>, Bound<'py, PyDict>) = pair.extract()?;
        if specs.is_empty() {
            return Err(PyValueError::new_err("annotations need at least one spec, the default"));
        }
        Ok(Self { specs: specs.iter().map(read).collect::<PyResult<_>>()?, by_key })
    }

    /// What holds for the task of this key.
    pub(crate) fn of(&self, key: &Bound<'py, PyAny>) -> PyResult<&TaskSpec> {
        if self.by_key.is_empty() {
            return Ok(&self.specs[0]);
        }
        let Some(index) = self.by_key.get_item(key)? else { return Ok(&self.specs[0]) };
        let index: usize = index.extract()?;
        self.specs.get(index).ok_or_else(|| {
            let all = self.specs.len();
            PyIndexError::new_err(format!("there are {all} specs of annotations, none with the number {index}"))
        })
    }
}

fn read(dict: &Bound<'_, PyDict>) -> PyResult<TaskSpec> {
    let mut spec = TaskSpec::default();
    for (name, value) in dict.iter() {
        let name = name.cast::<PyString>()?.to_string();
        match name.as_str() {
            "retries" => spec.retries = tries(&name, value.extract()?, u16::MAX)?,
            "max_retries" => spec.max_retries = tries(&name, value.extract()?, u8::MAX)?,
            "retry_exceptions" => {
                spec.retry_exceptions = Some(Bytes::copy_from_slice(value.cast::<PyBytes>()?.as_bytes()));
            }
            "priority" => spec.priority = value.extract()?,
            "resources" => spec.demand = demand(value.cast::<PyDict>()?)?,
            _ => return Err(PyTypeError::new_err(format!("unknown annotation {name:?}"))),
        }
    }
    Ok(spec.settled())
}

/// A number of attempts more: `most`, which is for ever, if it is as large or -1, which is Ray's word for that.
pub(crate) fn tries<T: TryFrom<i64>>(name: &str, number: i64, most: T) -> PyResult<T> {
    if number < -1 {
        return Err(PyValueError::new_err(format!("{name} must be at least 0, or -1 for ever, not {number}")));
    }
    Ok(T::try_from(number).unwrap_or(most))
}

/// What a task occupies that asks for this; `None` for just one CPU.
pub(crate) fn demand(resources: &Bound<'_, PyDict>) -> PyResult<Option<Demand>> {
    let mut demand = Demand { cpu: WHOLE, others: Vec::new() };
    for (name, amount) in resources.iter() {
        let name = name.cast::<PyString>()?.to_string();
        let amount = units(&name, amount.extract()?)?;
        if name == GPU && amount > WHOLE && amount % WHOLE != 0 {
            return Err(PyValueError::new_err(
                "a task can have a part of one GPU, or several GPUs, but no part of several",
            ));
        }
        if name == CPU {
            demand.cpu = amount;
        } else if amount > 0 {
            demand.others.push((name.into(), amount));
        }
    }
    demand.others.sort_unstable();
    let ordinary = demand.cpu == WHOLE && demand.others.is_empty();
    Ok((!ordinary).then_some(demand))
}

/// An amount of a resource in the head's units. What is more than nothing stays so.
pub(crate) fn units(name: &str, amount: f64) -> PyResult<u64> {
    if !amount.is_finite() || amount < 0.0 {
        return Err(PyValueError::new_err(format!(
            "the amount of the resource {name:?} must be 0 or more, not {amount}"
        )));
    }
    let units = (amount * WHOLE as f64).round() as u64;
    Ok(if amount > 0.0 { units.max(1) } else { 0 })
}

/// The amount that so many units are.
pub(crate) fn amount(units: u64) -> f64 {
    units as f64 / WHOLE as f64
}

/// What the node offers, by name.
pub(crate) fn offers(resources: &Bound<'_, PyDict>) -> PyResult<Vec<(Arc<str>, u64)>> {
    let mut offers = Vec::with_capacity(resources.len());
    for (name, amount) in resources.iter() {
        let name = name.cast::<PyString>()?.to_string();
        if name == CPU {
            return Err(PyValueError::new_err("CPUs are the slots of the node: they are not among its resources"));
        }
        let amount = units(&name, amount.extract()?)?;
        offers.push((name.into(), amount));
    }
    Ok(offers)
}

fn fingerprint(spec: &TaskSpec) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u16(spec.retries);
    hasher.write_u8(spec.max_retries);
    hasher.write(spec.retry_exceptions.as_deref().unwrap_or_default());
    if let Some(demand) = &spec.demand {
        hasher.write_u64(demand.cpu);
        for (name, amount) in &demand.others {
            hasher.write(name.as_bytes());
            hasher.write_u64(*amount);
        }
    }
    hasher.finish().max(1)
}
