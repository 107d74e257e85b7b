//! The keys of a graph as dense numbers.

use hashbrown::HashTable;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple};

use crate::failures;

/// Kinds of keys, as bits: what is of one kind is never equal to what is of another, except that `OTHER` may equal
/// anything.
mod kind {
    pub(super) const TEXT: u8 = 1;
    pub(super) const TUPLE: u8 = 2;
    pub(super) const NUMBER: u8 = 4;
    pub(super) const OTHER: u8 = 8;
}

fn kind_of(key: &Bound<'_, PyAny>) -> u8 {
    if key.is_exact_instance_of::<PyString>() {
        kind::TEXT
    } else if key.is_exact_instance_of::<PyTuple>() {
        kind::TUPLE
    } else if key.is_exact_instance_of::<PyInt>() || key.is_exact_instance_of::<PyFloat>() {
        kind::NUMBER
    } else {
        kind::OTHER
    }
}

/// A mapping's keys, numbered in its order.
pub(super) struct Keys<'py> {
    objects: Vec<Bound<'py, PyAny>>,
    hashes: Vec<u64>,
    table: HashTable<u32>,
    kinds: u8,
}

impl<'py> Keys<'py> {
    /// Numbers the keys of `dsk`, and returns the values in the same order.
    pub(super) fn new(dsk: &Bound<'py, PyDict>) -> PyResult<(Self, Vec<Bound<'py, PyAny>>)> {
        let len = dsk.len();
        let mut this = Self {
            objects: Vec::with_capacity(len),
            hashes: Vec::with_capacity(len),
            table: HashTable::with_capacity(len),
            kinds: 0,
        };
        let mut values = Vec::with_capacity(len);
        for (key, value) in dsk.iter() {
            let hash = spread(key.hash()?);
            this.kinds |= kind_of(&key);
            // They are keys of a dict: no two are equal, so nothing has to be compared.
            this.table.insert_unique(hash, this.objects.len() as u32, |&slot| this.hashes[slot as usize]);
            this.hashes.push(hash);
            this.objects.push(key);
            values.push(value);
        }
        if u32::try_from(this.objects.len()).is_ok_and(|len| len < super::draft::LIMIT) {
            Ok((this, values))
        } else {
            Err(PyRuntimeError::new_err("the graph has too many tasks"))
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// A key by its number.
    pub(super) fn key(&self, slot: u32) -> &Bound<'py, PyAny> {
        &self.objects[slot as usize]
    }

    /// The error for a key that is not among them: needed by the task of key number `dependent`, or asked for.
    pub(super) fn missing(&self, key: &Bound<'py, PyAny>, dependent: Option<u32>) -> PyErr {
        failures::missing_key(key, dependent.map(|slot| self.key(slot)), &self.objects)
    }

    /// All keys, in order.
    pub(super) fn into_objects(self) -> Vec<Bound<'py, PyAny>> {
        self.objects
    }

    /// The number of the key that equals `object`.
    ///
    /// # Errors
    ///
    /// What hashing and comparing raise.
    pub(super) fn get(&self, object: &Bound<'py, PyAny>) -> PyResult<Option<u32>> {
        let hash = spread(object.hash()?);
        let mut raised = None;
        let found = self.table.find(hash, |&slot| {
            let slot = slot as usize;
            self.hashes[slot] == hash
                && (self.objects[slot].is(object)
                    || self.objects[slot].eq(object).unwrap_or_else(|error| {
                        raised = Some(error);
                        true
                    }))
        });
        raised.map_or(Ok(found.copied()), Err)
    }

    /// The number of the key that equals `object`, which may be unhashable: then it is no key.
    ///
    /// # Errors
    ///
    /// What hashing and comparing raise, except `TypeError`.
    pub(super) fn get_if_key(&self, object: &Bound<'py, PyAny>) -> PyResult<Option<u32>> {
        let kind = kind_of(object);
        if kind != kind::OTHER && self.kinds & (kind | kind::OTHER) == 0 {
            return Ok(None);
        }
        match self.get(object) {
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => Ok(None),
            other => other,
        }
    }
}

/// Python's hash of a small integer is the integer; the table wants all bits to differ.
fn spread(hash: isize) -> u64 {
    (hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
