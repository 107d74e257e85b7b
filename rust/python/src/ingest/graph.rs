//! The graph as it came: keys, nodes, and what each key stands for.

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::compile::{MAX_DEPTH, is_call};
use super::keys::Keys;
use super::kinds::{Kind, Kinds, fields};
use crate::failures;

/// What a key stands for in the end, aliases followed. Each names the number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A task.
    Task(u32),
    /// A value; it is the key's node now.
    Literal(u32),
    /// An object reference; it is the key's node now.
    Ref(u32),
}

#[derive(Clone, Copy)]
enum State {
    Unseen,
    Following,
    Known(Target),
}

/// What a node is by itself.
enum Class {
    Task,
    Literal,
    Ref,
    Alias(u32),
}

/// A graph's nodes by the number of their key.
pub(super) struct Graph<'py> {
    pub(super) keys: Keys<'py>,
    nodes: Vec<Bound<'py, PyAny>>,
    states: Vec<State>,
    /// Tasks that are needed and have not been written yet.
    pending: Vec<u32>,
}

impl<'py> Graph<'py> {
    pub(super) fn new(dsk: &Bound<'py, PyDict>) -> PyResult<Self> {
        let (keys, nodes) = Keys::new(dsk)?;
        let states = vec![State::Unseen; keys.len()];
        Ok(Self { keys, nodes, states, pending: Vec::new() })
    }

    /// The node of a key; of a literal the value.
    pub(super) fn node(&self, slot: u32) -> &Bound<'py, PyAny> {
        &self.nodes[slot as usize]
    }

    /// Keys and nodes of those whose number is wanted, in order.
    pub(super) fn into_parts(self, wanted: impl Fn(usize) -> bool) -> (Vec<Py<PyAny>>, Vec<Py<PyAny>>) {
        let keys = self.keys.into_objects().into_iter();
        let parts = keys.zip(self.nodes).enumerate().filter(|(slot, _)| wanted(*slot));
        parts.map(|(_, (key, node))| (key.unbind(), node.unbind())).unzip()
    }

    /// A task that a key in use depends on and that was not returned before.
    pub(super) fn next_pending(&mut self) -> Option<u32> {
        self.pending.pop()
    }

    /// What a key stands for. A task is noted as needed.
    ///
    /// # Errors
    ///
    /// `RuntimeError` if aliases lead in a circle, `MissingKeyError` if one leads nowhere.
    pub(super) fn resolve(&mut self, slot: u32, kinds: &mut Kinds<'py>) -> PyResult<Target> {
        if let State::Known(target) = self.states[slot as usize] {
            return Ok(target);
        }
        // Only aliases need more than one step, so nothing is allocated for most keys.
        let mut path = Vec::new();
        let mut slot = slot;
        let target = loop {
            match self.states[slot as usize] {
                State::Known(target) => break target,
                State::Following => {
                    let from = path.iter().position(|&seen| seen == slot).unwrap_or(0);
                    return Err(self.cycle(&path[from..]));
                }
                State::Unseen => {}
            }
            let target = match self.classify(slot, kinds)? {
                Class::Task => {
                    self.pending.push(slot);
                    Target::Task(slot)
                }
                Class::Literal => Target::Literal(slot),
                Class::Ref => Target::Ref(slot),
                Class::Alias(next) => {
                    self.states[slot as usize] = State::Following;
                    path.push(slot);
                    slot = next;
                    continue;
                }
            };
            self.states[slot as usize] = State::Known(target);
            break target;
        };
        for seen in path {
            self.states[seen as usize] = State::Known(target);
        }
        Ok(target)
    }

    /// The error for keys of which each depends on the next, and the last on the first.
    pub(super) fn cycle(&self, slots: &[u32]) -> PyErr {
        let keys: Vec<_> = slots.iter().map(|&slot| self.keys.key(slot)).collect();
        failures::cycle(self.keys.key(0).py(), &keys)
    }

    fn classify(&mut self, slot: u32, kinds: &mut Kinds<'py>) -> PyResult<Class> {
        let node = self.nodes[slot as usize].clone();
        let py = node.py();
        let kind = kinds.of(&node)?;
        match kind {
            Kind::ObjectRef => return Ok(Class::Ref),
            Kind::Alias => return self.follow(slot, &kinds.target(&node)?),
            Kind::TaskRef | Kind::Future => return self.follow(slot, &node.getattr(intern!(py, "key"))?),
            Kind::DataNode => {
                let value = node.getattr(intern!(py, "value"))?;
                let class = if kinds.of(&value)? == Kind::ObjectRef {
                    Class::Ref
                } else if self.refers(&value, false, kinds, 0)? {
                    return Ok(Class::Task);
                } else {
                    Class::Literal
                };
                self.nodes[slot as usize] = value;
                return Ok(class);
            }
            Kind::Tuple if is_call(node.cast::<PyTuple>()?) => return Ok(Class::Task),
            _ => {}
        }
        if kind.may_be_key() {
            if let Some(target) = self.keys.get_if_key(&node)? {
                return self.alias(slot, target);
            }
        }
        Ok(if self.refers(&node, true, kinds, 0)? { Class::Task } else { Class::Literal })
    }

    fn follow(&self, slot: u32, key: &Bound<'py, PyAny>) -> PyResult<Class> {
        match self.keys.get(key)? {
            Some(target) => self.alias(slot, target),
            None => Err(self.keys.missing(key, Some(slot))),
        }
    }

    fn alias(&self, slot: u32, target: u32) -> PyResult<Class> {
        if target == slot {
            // Dask takes a key that stands for itself for one that the graph does not have.
            return Err(self.keys.missing(self.keys.key(slot), Some(slot)));
        }
        Ok(Class::Alias(target))
    }

    /// Whether an object refers to a task or to an object; `legacy`: also by a mere key or tuple.
    fn refers(&self, object: &Bound<'py, PyAny>, legacy: bool, kinds: &mut Kinds<'py>, depth: u32) -> PyResult<bool> {
        let kind = kinds.of(object)?;
        if kind == Kind::ObjectRef {
            return Ok(true);
        }
        if legacy {
            if kind.is_node() || kind == Kind::Future {
                return Ok(true);
            }
            if kind == Kind::Tuple && is_call(object.cast::<PyTuple>()?) {
                return Ok(true);
            }
            if kind.may_be_key() && self.keys.get_if_key(object)?.is_some() {
                return Ok(true);
            }
        }
        let walked = match kind {
            Kind::Tuple | Kind::List | Kind::Set | Kind::Dict => true,
            Kind::FrozenSet | Kind::NamedTuple | Kind::Dataclass => true,
            Kind::TupleLike | Kind::ListLike | Kind::SetLike => legacy,
            _ => false,
        };
        if !walked {
            return Ok(false);
        }
        if depth == MAX_DEPTH {
            return Err(PyRecursionError::new_err(format!("a value nests containers more than {MAX_DEPTH} deep")));
        }
        if kind == Kind::Dataclass {
            for (_, value) in fields(object)? {
                if self.refers(&value, false, kinds, depth + 1)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if let Ok(tuple) = object.cast::<PyTuple>() {
            for item in tuple.iter() {
                if self.refers(&item, legacy, kinds, depth + 1)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if let Ok(dict) = object.cast::<PyDict>() {
            for (key, value) in dict.iter() {
                if self.refers(&key, false, kinds, depth + 1)? || self.refers(&value, false, kinds, depth + 1)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for item in object.try_iter()? {
            if self.refers(&item?, legacy, kinds, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
