//! Shapes of tasks, each once, with their functions and classes.

use std::hash::Hasher;
use std::sync::Arc;

use eagleray_core::message::{ClassSpec, Demand};
use eagleray_runtime::program::RetryFilter;
use hashbrown::HashTable;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use rustc_hash::{FxHashMap, FxHasher};

use super::kinds::Spec;
use super::prefix;
use crate::annotations::TaskSpec;
use crate::sharing;

/// From so many functions on, further ones are constants: they seem to be made for each task.
const MANY_FUNCTIONS: usize = 1024;

/// The shapes of a graph.
pub(super) struct Templates<'py> {
    spec: &'py Spec,
    /// Code and functions (numbers in `functions`) of each.
    pub(super) list: Vec<(Vec<u32>, Vec<u32>)>,
    by_code: HashTable<u32>,
    hashes: Vec<u64>,
    fingerprints: Vec<u64>,
    last: u32,
    /// Every object that belongs to a shape, once.
    pub(super) functions: Vec<Bound<'py, PyAny>>,
    function_of: FxHashMap<usize, u32>,
    /// Of each function what it is called; zero if it is not callable.
    names: Vec<u64>,
    pub(super) classes: Vec<ClassSpec>,
    /// What tasks of each class are called.
    pub(super) class_names: Vec<Arc<str>>,
    /// What classes demand, each once.
    pub(super) demands: Vec<Demand>,
    /// By the exceptions' classes, each once.
    pub(super) retry_filters: Vec<RetryFilter>,
    class_of: FxHashMap<u64, u32>,
    /// The string whose prefix was hashed last, and the hash.
    prefix: Option<(Bound<'py, PyAny>, u64)>,
    keyword_names: FxHashMap<Box<[usize]>, Bound<'py, PyAny>>,
    distinct_names: Bound<'py, PyDict>,
}

impl<'py> Templates<'py> {
    pub(super) fn new(py: Python<'py>, spec: &'py Spec) -> Self {
        Self {
            spec,
            list: Vec::new(),
            by_code: HashTable::new(),
            hashes: Vec::new(),
            fingerprints: Vec::new(),
            last: 0,
            functions: Vec::new(),
            function_of: FxHashMap::default(),
            names: Vec::new(),
            classes: Vec::new(),
            class_names: Vec::new(),
            demands: Vec::new(),
            retry_filters: Vec::new(),
            class_of: FxHashMap::default(),
            prefix: None,
            keyword_names: FxHashMap::default(),
            distinct_names: PyDict::new(py),
        }
    }

    /// Whether this object, which is called but neither a function nor a class, should be a constant.
    pub(super) fn is_one_too_many(&self, function: &Bound<'py, PyAny>) -> bool {
        self.functions.len() >= MANY_FUNCTIONS && !self.function_of.contains_key(&(function.as_ptr() as usize))
    }

    /// Whether a call of this object may change it, as that of an estimator's method does: then each task gets its own.
    pub(super) fn is_changing(&self, function: &Bound<'py, PyAny>) -> PyResult<bool> {
        let known = self.function_of.contains_key(&(function.as_ptr() as usize));
        Ok(!known && !sharing::is_unchanging(function)?)
    }

    /// The number of the template with this code and these functions.
    pub(super) fn intern(&mut self, code: &[u32], functions: &[Bound<'py, PyAny>]) -> PyResult<u32> {
        if !self.list.is_empty() && self.is(self.last, code, functions) {
            return Ok(self.last);
        }
        let mut hasher = FxHasher::default();
        for &word in code {
            hasher.write_u32(word);
        }
        for function in functions {
            hasher.write_usize(function.as_ptr() as usize);
        }
        let hash = hasher.finish();
        let found =
            self.by_code.find(hash, |&known| self.hashes[known as usize] == hash && self.is(known, code, functions));
        self.last = match found {
            Some(&known) => known,
            None => self.insert(hash, code, functions)?,
        };
        Ok(self.last)
    }

    fn is(&self, template: u32, code: &[u32], functions: &[Bound<'py, PyAny>]) -> bool {
        let (known, numbers) = &self.list[template as usize];
        let same = |(&number, function): (&u32, &Bound<'py, PyAny>)| self.functions[number as usize].is(function);
        known == code && numbers.len() == functions.len() && numbers.iter().zip(functions).all(same)
    }

    fn insert(&mut self, hash: u64, code: &[u32], functions: &[Bound<'py, PyAny>]) -> PyResult<u32> {
        let mut hasher = FxHasher::default();
        let mut numbers = Vec::with_capacity(functions.len());
        for function in functions {
            let number = self.function(function)?;
            numbers.push(number);
            if self.names[number as usize] != 0 {
                hasher.write_u64(self.names[number as usize]);
            }
        }
        let template = self.list.len() as u32;
        self.list.push((code.to_vec(), numbers));
        self.fingerprints.push(hasher.finish());
        self.hashes.push(hash);
        self.by_code.insert_unique(hash, template, |&known| self.hashes[known as usize]);
        Ok(template)
    }

    fn function(&mut self, function: &Bound<'py, PyAny>) -> PyResult<u32> {
        if let Some(&number) = self.function_of.get(&(function.as_ptr() as usize)) {
            return Ok(number);
        }
        let description = self.spec.describe.bind(function.py()).call1((function,))?;
        let name = match description.cast::<PyString>() {
            Ok(text) => hash_of(text.to_string_lossy().as_bytes()).max(1),
            Err(_) => 0,
        };
        let number = self.functions.len() as u32;
        self.functions.push(function.clone());
        self.names.push(name);
        self.function_of.insert(function.as_ptr() as usize, number);
        Ok(number)
    }

    /// The class of a task with this key and template, of which this is wanted.
    pub(super) fn class(&mut self, key: &Bound<'py, PyAny>, template: u32, spec: &TaskSpec) -> PyResult<u32> {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.prefix_hash(key)?);
        hasher.write_u64(self.fingerprints[template as usize]);
        if spec.fingerprint != 0 {
            hasher.write_u64(spec.fingerprint);
        }
        let fingerprint = hasher.finish();
        if let Some(&known) = self.class_of.get(&fingerprint) {
            return Ok(known);
        }
        let class = self.classes.len() as u32;
        let name = self.with_prefix(&Self::text_of(key)?, |prefix| Arc::from(prefix))?;
        self.class_names.push(name);
        let demand = spec.demand.as_ref().map_or(0, |demand| self.demand(demand));
        let &TaskSpec { retries, max_retries, .. } = spec;
        self.classes.push(ClassSpec { fingerprint, max_retries, retries, demand, part: false });
        self.class_of.insert(fingerprint, class);
        if retries > 0 {
            let exceptions = &spec.retry_exceptions;
            match self.retry_filters.iter_mut().find(|filter| filter.exceptions == *exceptions) {
                Some(filter) => filter.classes.push(class),
                None => {
                    self.retry_filters.push(RetryFilter { classes: vec![class], exceptions: exceptions.clone() });
                }
            }
        }
        Ok(class)
    }

    /// The number of a demand, counted from 1.
    fn demand(&mut self, demand: &Demand) -> u32 {
        let known = self.demands.iter().position(|known| known == demand);
        let place = known.unwrap_or_else(|| {
            self.demands.push(demand.clone());
            self.demands.len() - 1
        });
        place as u32 + 1
    }

    /// What the prefix of a key is taken from.
    fn text_of(key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match key.cast_exact::<PyTuple>() {
            Ok(tuple) if !tuple.is_empty() => tuple.get_item(0),
            _ => Ok(key.clone()),
        }
    }

    fn prefix_hash(&mut self, key: &Bound<'py, PyAny>) -> PyResult<u64> {
        let text = Self::text_of(key)?;
        if let Some((last, hash)) = &self.prefix {
            if last.is(&text) {
                return Ok(*hash);
            }
        }
        let hash = self.with_prefix(&text, |prefix| hash_of(prefix.as_bytes()))?;
        self.prefix = Some((text, hash));
        Ok(hash)
    }

    fn with_prefix<T>(&self, text: &Bound<'py, PyAny>, then: impl FnOnce(&str) -> T) -> PyResult<T> {
        if let Ok(string) = text.cast_exact::<PyString>() {
            if let Some(prefix) = prefix::of_text(&string.to_string_lossy()) {
                return Ok(then(&prefix));
            }
        }
        let prefix = self.spec.key_prefix.bind(text.py()).call1((text,))?;
        Ok(then(&prefix.cast::<PyString>()?.to_string_lossy()))
    }

    /// The tuple of these keyword names: the same one for the same names.
    pub(super) fn keyword_names(&mut self, names: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
        // Names are interned strings nearly always, so their addresses mostly tell.
        let addresses: Box<[usize]> = names.iter().map(|name| name.as_ptr() as usize).collect();
        if let Some(known) = self.keyword_names.get(&addresses) {
            return Ok(known.clone());
        }
        let tuple = PyTuple::new(self.distinct_names.py(), names)?;
        if let Some(known) = self.distinct_names.get_item(&tuple)? {
            return Ok(known);
        }
        self.distinct_names.set_item(&tuple, &tuple)?;
        // These very names stay alive with the tuple, so their addresses stay theirs.
        self.keyword_names.insert(addresses, tuple.clone().into_any());
        Ok(tuple.into_any())
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}
