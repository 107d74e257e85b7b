//! Objects that come into a graph from outside: references in it, and large constants.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustc_hash::FxHashMap;

use super::draft::tag;

/// What the tasks of a graph read besides each other's results.
pub(super) struct Externals<'py> {
    objects: Vec<(Bound<'py, PyAny>, Origin)>,
    number_of_ref: Bound<'py, PyDict>,
    number_of_literal: FxHashMap<usize, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ref,
    Literal,
}

/// The externals that are in use, in their final order.
pub(super) struct Numbered {
    /// Object references.
    pub(super) refs: Vec<Py<PyAny>>,
    /// Large constants.
    pub(super) literals: Vec<Py<PyAny>>,
    /// The final number of each, references before literals.
    pub(super) number: Vec<u32>,
}

impl<'py> Externals<'py> {
    pub(super) fn new(py: Python<'py>) -> Self {
        Self { objects: Vec::new(), number_of_ref: PyDict::new(py), number_of_literal: FxHashMap::default() }
    }

    /// The number of an object reference. Equal ones have the same.
    ///
    /// # Errors
    ///
    /// What its hash or comparison raises.
    pub(super) fn reference(&mut self, object: &Bound<'py, PyAny>) -> PyResult<u32> {
        if let Some(number) = self.number_of_ref.get_item(object)? {
            return number.extract();
        }
        let number = self.push(object, Origin::Ref);
        self.number_of_ref.set_item(object, number)?;
        Ok(number)
    }

    /// The number of a large constant. The same object has the same.
    pub(super) fn literal(&mut self, object: &Bound<'py, PyAny>) -> u32 {
        let address = object.as_ptr() as usize;
        if let Some(&number) = self.number_of_literal.get(&address) {
            return number;
        }
        let number = self.push(object, Origin::Literal);
        self.number_of_literal.insert(address, number);
        number
    }

    fn push(&mut self, object: &Bound<'py, PyAny>, origin: Origin) -> u32 {
        self.objects.push((object.clone(), origin));
        self.objects.len() as u32 - 1
    }

    /// Leaves out those that no parameter names and that `requested` does not contain: they were met in code that was
    /// given up.
    pub(super) fn number(self, params: &[u32], requested: &[u32]) -> Numbered {
        let mut used = vec![false; self.objects.len()];
        if !used.is_empty() {
            let named = params.iter().filter(|&param| param & tag::MASK == tag::EXTERNAL);
            for &number in named.chain(requested) {
                used[(number & !tag::MASK) as usize] = true;
            }
        }
        let mut number = vec![u32::MAX; used.len()];
        let mut next = 0;
        let mut collect = |wanted: Origin| {
            let mut found = Vec::new();
            for (place, (object, origin)) in self.objects.iter().enumerate() {
                if used[place] && *origin == wanted {
                    number[place] = next;
                    next += 1;
                    found.push(object.clone().unbind());
                }
            }
            found
        };
        let refs = collect(Origin::Ref);
        let literals = collect(Origin::Literal);
        Numbered { refs, literals, number }
    }
}
