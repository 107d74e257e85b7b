//! Fused tasks: the nodes of an inner graph become the steps of one task.

use std::mem;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustc_hash::FxHashSet;

use super::compile::{Compiler, Mode, Stop, arguments};
use super::draft::IN_PROGRESS;
use super::kinds::Kind;

/// Inner graphs of more nodes may be deep, so their steps are not found by recursion.
const LARGE: usize = 64;

/// An inner graph: what keys mean in it.
pub(super) struct Scope<'py> {
    /// No other scope of the graph has it.
    id: u32,
    /// Where its dependencies are evaluated; see `Compiler::scope`.
    parent: usize,
    nodes: Bound<'py, PyDict>,
    inkeys: Vec<Bound<'py, PyAny>>,
    dependencies: Vec<Bound<'py, PyAny>>,
}

/// The arguments of a fused task, taken apart.
struct Parts<'py> {
    nodes: Bound<'py, PyDict>,
    outkey: Bound<'py, PyAny>,
    inkeys: Vec<Bound<'py, PyAny>>,
    dependencies: Vec<Bound<'py, PyAny>>,
}

impl<'py> Compiler<'py> {
    /// Writes the value of a fused task; `false`, and nothing written, if its inner graph is not of a known form.
    pub(super) fn subgraph(&mut self, function: &Bound<'py, PyAny>, args: &Bound<'py, PyTuple>) -> Result<bool, Stop> {
        let parts = if self.kinds.is_fused(function) { self.fused_parts(args)? } else { self.subgraph_parts(args)? };
        let Some(parts) = parts else { return Ok(false) };
        let mark = self.draft.step_mark();
        let outer = self.scope;
        let scopes = self.scopes.len();
        let id = self.next_scope_id;
        self.next_scope_id += 1;
        self.scopes.push(Scope {
            id,
            parent: outer,
            nodes: parts.nodes,
            inkeys: parts.inkeys,
            dependencies: parts.dependencies,
        });
        self.scope = self.scopes.len();
        let written = self.nested(|this| this.output(id, &parts.outkey));
        self.scope = outer;
        self.scopes.truncate(scopes);
        match written {
            Err(Stop::Unrecognised) => {
                self.draft.back_to_step(mark);
                Ok(false)
            }
            other => other,
        }
    }

    /// `_execute_subgraph(nodes, outkey, inkeys, *dependencies)`, or the same with one or two dicts from inkeys to
    /// dependencies.
    fn subgraph_parts(&mut self, args: &Bound<'py, PyTuple>) -> PyResult<Option<Parts<'py>>> {
        if args.len() < 3 {
            return Ok(None);
        }
        let Ok(nodes) = args.get_item(0)?.cast_into_exact::<PyDict>() else { return Ok(None) };
        let mut inkeys = Vec::new();
        let mut dependencies = Vec::new();
        let third = args.get_item(2)?;
        if matches!(self.kinds.of(&third)?, Kind::Tuple | Kind::List) {
            inkeys = third.extract()?;
            dependencies.extend(args.iter().skip(3));
        } else {
            for mapping in args.iter().skip(2) {
                if !self.pairs(&mapping, &mut inkeys, &mut dependencies)? {
                    return Ok(None);
                }
            }
        }
        checked(Parts { nodes, outkey: args.get_item(1)?, inkeys, dependencies })
    }

    /// `Fused._execute_internal_graph(nodes, dependencies, outkey)`.
    fn fused_parts(&mut self, args: &Bound<'py, PyTuple>) -> PyResult<Option<Parts<'py>>> {
        if args.len() != 3 {
            return Ok(None);
        }
        let mut list = args.get_item(0)?;
        if self.kinds.of(&list)? == Kind::DataNode {
            list = list.getattr(intern!(self.py, "value"))?;
        }
        if self.kinds.of(&list)? != Kind::List {
            return Ok(None);
        }
        let nodes = PyDict::new(self.py);
        for node in list.try_iter()? {
            let node = node?;
            if !self.kinds.of(&node)?.is_node() {
                return Ok(None);
            }
            nodes.set_item(node.getattr(intern!(self.py, "key"))?, node)?;
        }
        let mut inkeys = Vec::new();
        let mut dependencies = Vec::new();
        if !self.pairs(&args.get_item(1)?, &mut inkeys, &mut dependencies)? {
            return Ok(None);
        }
        checked(Parts { nodes, outkey: args.get_item(2)?, inkeys, dependencies })
    }

    /// Takes a dict, or the node of one, apart.
    fn pairs(
        &mut self,
        mapping: &Bound<'py, PyAny>,
        keys: &mut Vec<Bound<'py, PyAny>>,
        values: &mut Vec<Bound<'py, PyAny>>,
    ) -> PyResult<bool> {
        match self.kinds.of(mapping)? {
            Kind::Dict => {
                for (key, value) in mapping.cast::<PyDict>()?.iter() {
                    // In a plain dict a node would not be evaluated.
                    if self.kinds.of(&value)?.is_node() {
                        return Ok(false);
                    }
                    keys.push(key);
                    values.push(value);
                }
            }
            Kind::DictNode if self.kinds.spec.dict_has_pairs => {
                for pair in arguments(mapping)?.iter() {
                    let pair = arguments(&pair)?;
                    keys.push(pair.get_item(0)?);
                    values.push(pair.get_item(1)?);
                }
            }
            Kind::DictNode => {
                for (place, part) in arguments(mapping)?.iter().enumerate() {
                    if place % 2 == 0 { keys.push(part) } else { values.push(part) }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Writes the value of the inner graph of the present scope, with the steps for it.
    fn output(&mut self, scope: u32, outkey: &Bound<'py, PyAny>) -> Result<bool, Stop> {
        let nodes = self.scopes[self.scope - 1].nodes.clone();
        let Some(node) = nodes.get_item(outkey)? else {
            self.inner_reference(outkey)?;
            return Ok(true);
        };
        let place = (scope, node.as_ptr() as usize);
        self.draft.step_of.insert(place, IN_PROGRESS);
        if nodes.len() > LARGE {
            self.steps_bottom_up(&node)?;
        }
        if !is_evaluated(self.kinds.of(&node)?) {
            return Err(Stop::Unrecognised);
        }
        // The last step's value is the result, so the output's node is no step of its own.
        self.expression(&node, Mode::Argument)?;
        self.draft.step_of.remove(&place);
        Ok(true)
    }

    /// Writes the value that a key has in the present scope, which is an inner graph.
    pub(super) fn inner_reference(&mut self, key: &Bound<'py, PyAny>) -> Result<(), Stop> {
        let scope = &self.scopes[self.scope - 1];
        // Nearly always it is the same object.
        if let Some(place) = scope.inkeys.iter().position(|inkey| inkey.is(key)) {
            return self.dependency(place);
        }
        if let Some(node) = scope.nodes.get_item(key)? {
            return self.inner_node(&node);
        }
        for place in 0..scope.inkeys.len() {
            if scope.inkeys[place].eq(key)? {
                return self.dependency(place);
            }
        }
        Err(Stop::Unrecognised)
    }

    /// Writes a dependency of the present scope. It is evaluated in the scope around.
    fn dependency(&mut self, place: usize) -> Result<(), Stop> {
        let inner = self.scope;
        let scope = &self.scopes[inner - 1];
        let node = scope.dependencies[place].clone();
        let id = scope.id;
        self.scope = scope.parent;
        let written = match self.kinds.of(&node) {
            Ok(Kind::Task | Kind::OtherNode) => self.step(id, &node).map(|step| self.draft.local(step)),
            Ok(_) => self.expression(&node, Mode::Argument).map(drop),
            Err(error) => Err(error.into()),
        };
        self.scope = inner;
        written
    }

    /// Writes the value of a node of the present scope.
    fn inner_node(&mut self, node: &Bound<'py, PyAny>) -> Result<(), Stop> {
        match self.kinds.of(node)? {
            Kind::Alias | Kind::DataNode => self.expression(node, Mode::Argument).map(drop),
            kind if is_evaluated(kind) => {
                let step = self.step(self.scopes[self.scope - 1].id, node)?;
                self.draft.local(step);
                Ok(())
            }
            _ => Err(Stop::Unrecognised),
        }
    }

    /// The step that evaluates a node in the present scope; it is written if it has not been yet.
    fn step(&mut self, scope: u32, node: &Bound<'py, PyAny>) -> Result<u32, Stop> {
        let place = (scope, node.as_ptr() as usize);
        match self.draft.step_of.get(&place) {
            Some(&IN_PROGRESS) => return Err(Stop::Unrecognised),
            Some(&step) => return Ok(step),
            None => {}
        }
        self.draft.step_of.insert(place, IN_PROGRESS);
        let outer = mem::take(&mut self.draft.words);
        let written = self.expression(node, Mode::Argument);
        let words = mem::replace(&mut self.draft.words, outer);
        if let Err(stop) = written {
            self.draft.step_of.remove(&place);
            return Err(stop);
        }
        let step = self.draft.step_count;
        self.draft.steps.extend_from_slice(&words);
        self.draft.step_count += 1;
        self.draft.step_of.insert(place, step);
        Ok(step)
    }

    /// Writes the steps that the output's node needs, dependencies first, whatever the depth.
    fn steps_bottom_up(&mut self, output: &Bound<'py, PyAny>) -> Result<(), Stop> {
        let scope = &self.scopes[self.scope - 1];
        let (id, nodes) = (scope.id, scope.nodes.clone());
        let mut seen = FxHashSet::from_iter([output.as_ptr() as usize]);
        let mut stack = vec![(output.clone(), inner_dependencies(output, &nodes)?)];
        while let Some((_, waiting)) = stack.last_mut() {
            if let Some(next) = waiting.pop() {
                if seen.insert(next.as_ptr() as usize) {
                    let dependencies = inner_dependencies(&next, &nodes)?;
                    stack.push((next, dependencies));
                }
                continue;
            }
            let Some((node, _)) = stack.pop() else { break };
            let kind = self.kinds.of(&node)?;
            if !stack.is_empty() && is_evaluated(kind) && !matches!(kind, Kind::Alias | Kind::DataNode) {
                self.step(id, &node)?;
            }
        }
        Ok(())
    }
}

/// Whether a graph may have such a node, so that it is evaluated.
fn is_evaluated(kind: Kind) -> bool {
    kind.is_node() && kind != Kind::TaskRef
}

/// The nodes of an inner graph that a node of it depends on.
fn inner_dependencies<'py>(
    node: &Bound<'py, PyAny>,
    nodes: &Bound<'py, PyDict>,
) -> Result<Vec<Bound<'py, PyAny>>, Stop> {
    let mut found = Vec::new();
    for key in node.getattr_opt(intern!(node.py(), "dependencies"))?.ok_or(Stop::Unrecognised)?.try_iter()? {
        found.extend(nodes.get_item(key?)?);
    }
    Ok(found)
}

/// The parts, if each inkey has one dependency and none hides a node.
fn checked(parts: Parts<'_>) -> PyResult<Option<Parts<'_>>> {
    if parts.inkeys.len() != parts.dependencies.len() {
        return Ok(None);
    }
    for inkey in &parts.inkeys {
        if parts.nodes.contains(inkey)? {
            return Ok(None);
        }
    }
    Ok(Some(parts))
}
