//! Nodes in, code out: what one task does.
//!
//! Every function that writes an expression returns whether the expression is *changed*: whether its value is another
//! object than the one it was written for. A container without a changed item is a constant as a whole, so its code is
//! taken back and the container itself written.

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PySet, PyTuple};
use rustc_hash::FxHashMap;

use super::draft::{Draft, LIMIT, Mark, tag};
use super::externals::Externals;
use super::graph::{Graph, Target};
use super::kinds::{Kind, Kinds, fields};
use super::subgraph::Scope;
use super::templates::Templates;
use crate::template::{CALL, DICT, LIST, SET, TUPLE};

/// How deep calls and containers may be nested. Python gives up at about the same depth.
pub(super) const MAX_DEPTH: u32 = 500;

/// Why an expression was not written.
pub(super) enum Stop {
    /// An inner graph is not of a known form; it can only be called as it is.
    Unrecognised,
    /// Something was raised.
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl<'a, 'py> From<pyo3::CastError<'a, 'py>> for Stop {
    fn from(error: pyo3::CastError<'a, 'py>) -> Self {
        Self::Raised(error.into())
    }
}

/// Where an object stands, which decides what in it means a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// An argument of a node: nodes and references count, and object references at any depth.
    Argument,
    /// In a container that Dask does not look into: only object references count.
    Plain,
    /// In a legacy graph: keys, tasks and containers of them count too.
    Legacy,
    /// An argument of a legacy task: as before, but the values of a dict are arguments of a node.
    LegacyArgument,
}

/// Writes the code of the tasks of one graph.
pub(super) struct Compiler<'py> {
    pub(super) py: Python<'py>,
    pub(super) kinds: Kinds<'py>,
    pub(super) graph: Graph<'py>,
    pub(super) externals: Externals<'py>,
    pub(super) templates: Templates<'py>,
    pub(super) draft: Draft<'py>,
    /// Inner graphs around the present place.
    pub(super) scopes: Vec<Scope<'py>>,
    /// The innermost that counts: its place in `scopes` plus one; zero is the graph.
    pub(super) scope: usize,
    pub(super) next_scope_id: u32,
    /// Whether the value of a key is large. It may have many readers, and asking some objects for their size is slow.
    big_literals: FxHashMap<u32, bool>,
    depth: u32,
    /// The number of the key whose task is being written.
    present: u32,
    code: Vec<u32>,
}

impl<'py> Compiler<'py> {
    pub(super) fn new(py: Python<'py>, kinds: Kinds<'py>, graph: Graph<'py>) -> Self {
        let templates = Templates::new(py, kinds.spec);
        Self {
            py,
            kinds,
            graph,
            externals: Externals::new(py),
            templates,
            draft: Draft::default(),
            scopes: Vec::new(),
            scope: 0,
            next_scope_id: 0,
            big_literals: FxHashMap::default(),
            depth: 0,
            present: 0,
            code: Vec::new(),
        }
    }

    /// Writes the task of a key: its template and where its parameters begin.
    pub(super) fn task(&mut self, slot: u32) -> PyResult<(u32, usize)> {
        self.draft.clear();
        self.present = slot;
        let node = self.graph.node(slot).clone();
        match self.expression(&node, Mode::Legacy) {
            Ok(_) => {}
            Err(Stop::Raised(error)) => return Err(error),
            Err(Stop::Unrecognised) => unreachable!("an inner graph that is not recognised is called"),
        }
        if self.draft.params.len().max(self.draft.constants.len()) >= LIMIT as usize {
            return Err(pyo3::exceptions::PyOverflowError::new_err("the graph has too many arguments"));
        }
        self.draft.assemble(&mut self.code);
        let template = self.templates.intern(&self.code, &self.draft.functions)?;
        Ok((template, self.draft.first_param()))
    }

    /// Writes any object.
    pub(super) fn expression(&mut self, object: &Bound<'py, PyAny>, mode: Mode) -> Result<bool, Stop> {
        let kind = self.kinds.of(object)?;
        if kind == Kind::ObjectRef {
            let number = self.externals.reference(object)?;
            self.draft.input(tag::EXTERNAL | number);
            return Ok(true);
        }
        if mode != Mode::Plain && kind.is_node() {
            return self.nested(|this| this.node(object, kind));
        }
        match mode {
            Mode::Argument | Mode::Plain => self.plain(object, kind),
            Mode::Legacy | Mode::LegacyArgument => self.legacy(object, kind, mode),
        }
    }

    /// Runs `write` one level deeper.
    pub(super) fn nested(&mut self, write: impl FnOnce(&mut Self) -> Result<bool, Stop>) -> Result<bool, Stop> {
        if self.depth == MAX_DEPTH {
            let message = format!("a task nests calls or containers more than {MAX_DEPTH} deep");
            return Err(Stop::Raised(PyRecursionError::new_err(message)));
        }
        self.depth += 1;
        let result = write(self);
        self.depth -= 1;
        result
    }

    fn node(&mut self, node: &Bound<'py, PyAny>, kind: Kind) -> Result<bool, Stop> {
        let py = self.py;
        match kind {
            Kind::TaskRef => self.reference(&node.getattr(intern!(py, "key"))?)?,
            Kind::Alias => {
                let target = self.kinds.target(node)?;
                self.reference(&target)?;
            }
            Kind::DataNode => {
                self.expression(&node.getattr(intern!(py, "value"))?, Mode::Plain)?;
            }
            Kind::Task => self.call_of_task(node)?,
            Kind::ListNode => self.items(LIST, &arguments(node)?)?,
            Kind::TupleNode => self.items(TUPLE, &arguments(node)?)?,
            Kind::SetNode => self.items(SET, &arguments(node)?)?,
            Kind::DictNode => self.dict_node(&arguments(node)?)?,
            _ => self.call_of_node(node)?,
        }
        Ok(true)
    }

    fn call_of_task(&mut self, task: &Bound<'py, PyAny>) -> Result<(), Stop> {
        let function = task.getattr(intern!(self.py, "func"))?;
        let args = arguments(task)?;
        let kwargs = task.getattr(intern!(self.py, "kwargs"))?.cast_into::<PyDict>().map_err(PyErr::from)?;
        let spec = self.kinds.spec;
        if function.is(&spec.execute_subgraph) || self.kinds.is_fused(&function) {
            if kwargs.is_empty() && self.subgraph(&function, &args)? {
                return Ok(());
            }
        } else if kwargs.len() == 1 && (function.is(&spec.identity_cast) || function.is(&spec.to_container)) {
            if let Some(container) = self.container_made(&function, &kwargs)? {
                return self.items(container, &args);
            }
        }
        self.call(&function, args.iter(), args.len(), Mode::Argument, Some(&kwargs))
    }

    /// The container that `function`, a cast of its arguments, makes.
    fn container_made(&self, function: &Bound<'py, PyAny>, kwargs: &Bound<'py, PyDict>) -> PyResult<Option<u32>> {
        let py = self.py;
        let name =
            if function.is(&self.kinds.spec.identity_cast) { intern!(py, "typ") } else { intern!(py, "constructor") };
        Ok(kwargs.get_item(name)?.and_then(|class| {
            if class.is(py.get_type::<PyList>()) {
                Some(LIST)
            } else if class.is(py.get_type::<PyTuple>()) {
                Some(TUPLE)
            } else if class.is(py.get_type::<PySet>()) {
                Some(SET)
            } else if class.is(&self.kinds.spec.dict_constructor) {
                Some(DICT)
            } else {
                None
            }
        }))
    }

    /// Writes a call.
    fn call(
        &mut self,
        function: &Bound<'py, PyAny>,
        args: impl Iterator<Item = Bound<'py, PyAny>>,
        count: usize,
        mode: Mode,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<(), Stop> {
        let named = kwargs.map_or(0, PyDictMethods::len);
        self.draft.words.extend([CALL, count as u32, named as u32]);
        self.part_of_shape(function)?;
        for argument in args {
            self.expression(&argument, mode)?;
        }
        if let Some(kwargs) = kwargs.filter(|_| named > 0) {
            let (names, values): (Vec<_>, Vec<_>) = kwargs.iter().unzip();
            let names = self.templates.keyword_names(&names)?;
            self.draft.function(&names);
            for value in values {
                self.expression(&value, Mode::Argument)?;
            }
        }
        Ok(())
    }

    /// Writes what belongs to the shape, as what is called does, unless a call may change it.
    fn part_of_shape(&mut self, function: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.templates.is_one_too_many(function) || self.templates.is_changing(function)? {
            self.draft.constant(function);
        } else {
            self.draft.function(function);
        }
        Ok(())
    }

    /// Writes a container of arguments of a node.
    fn items(&mut self, container: u32, args: &Bound<'py, PyTuple>) -> Result<(), Stop> {
        let len = if container == DICT { args.len() / 2 } else { args.len() };
        self.draft.words.extend([container, len as u32]);
        for argument in args.iter() {
            self.expression(&argument, Mode::Argument)?;
        }
        Ok(())
    }

    fn dict_node(&mut self, args: &Bound<'py, PyTuple>) -> Result<(), Stop> {
        if !self.kinds.spec.dict_has_pairs {
            return self.items(DICT, args);
        }
        self.draft.words.extend([DICT, args.len() as u32]);
        for pair in args.iter() {
            for part in arguments(&pair)?.iter() {
                self.expression(&part, Mode::Argument)?;
            }
        }
        Ok(())
    }

    /// Writes a call of a node of unknown kind with the values of its dependencies.
    fn call_of_node(&mut self, node: &Bound<'py, PyAny>) -> Result<(), Stop> {
        let dependencies = node.getattr(intern!(self.py, "dependencies"))?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        self.draft.words.extend([CALL, dependencies.len() as u32 + 2, 0]);
        let call_node = self.kinds.spec.call_node.bind(self.py);
        self.draft.function(call_node);
        self.draft.constant(node);
        self.draft.constant(&PyTuple::new(self.py, &dependencies)?.into_any());
        for key in &dependencies {
            self.reference(key)?;
        }
        Ok(())
    }

    /// Writes the value that a key stands for in the present scope.
    pub(super) fn reference(&mut self, key: &Bound<'py, PyAny>) -> Result<(), Stop> {
        if self.scope > 0 {
            return self.inner_reference(key);
        }
        match self.graph.keys.get(key)? {
            Some(slot) => self.slot(slot),
            None => Err(Stop::Raised(self.graph.keys.missing(key, Some(self.present)))),
        }
    }

    /// Writes the value of a key of the graph.
    fn slot(&mut self, slot: u32) -> Result<(), Stop> {
        match self.graph.resolve(slot, &mut self.kinds)? {
            Target::Task(slot) => self.draft.input(tag::SLOT | slot),
            Target::Literal(slot) => {
                let value = self.graph.node(slot).clone();
                let is_big = if let Some(&known) = self.big_literals.get(&slot) {
                    known
                } else {
                    let is_big = self.kinds.is_big(&value)?;
                    self.big_literals.insert(slot, is_big);
                    is_big
                };
                self.sized(&value, is_big);
            }
            Target::Ref(slot) => {
                let number = self.externals.reference(&self.graph.node(slot).clone())?;
                self.draft.input(tag::EXTERNAL | number);
            }
        }
        Ok(())
    }

    /// Writes an object in which nothing refers to anything, if it is no container.
    fn plain(&mut self, object: &Bound<'py, PyAny>, kind: Kind) -> Result<bool, Stop> {
        match kind {
            Kind::None | Kind::Bool | Kind::Function => {
                self.part_of_shape(object)?;
                Ok(false)
            }
            Kind::Tuple => self.container(object, TUPLE, object.cast::<PyTuple>()?.iter(), Mode::Plain),
            Kind::List => self.container(object, LIST, object.cast::<PyList>()?.iter(), Mode::Plain),
            Kind::Set => self.container(object, SET, object.cast::<PySet>()?.iter(), Mode::Plain),
            Kind::Dict => self.dict(object, Mode::Plain),
            Kind::FrozenSet => self.cast(object, object.cast::<PyFrozenSet>()?.iter().collect(), false, Mode::Plain),
            Kind::NamedTuple => self.cast(object, object.cast::<PyTuple>()?.iter().collect(), true, Mode::Plain),
            Kind::Dataclass => self.dataclass(object),
            Kind::Number => {
                self.draft.constant(object);
                Ok(false)
            }
            _ => self.value(object),
        }
    }

    /// Writes an object of a legacy graph, as `dask._task_spec.convert_legacy_task` understands it.
    fn legacy(&mut self, object: &Bound<'py, PyAny>, kind: Kind, mode: Mode) -> Result<bool, Stop> {
        if kind == Kind::Tuple {
            let tuple = object.cast::<PyTuple>()?;
            if is_call(tuple) {
                let function = tuple.get_item(0)?;
                self.nested(|this| {
                    this.call(&function, tuple.iter().skip(1), tuple.len() - 1, Mode::LegacyArgument, None)?;
                    Ok(true)
                })?;
                return Ok(true);
            }
        }
        if kind.may_be_key() {
            if let Some(slot) = self.graph.keys.get_if_key(object)? {
                self.slot(slot)?;
                return Ok(true);
            }
        }
        match kind {
            Kind::Tuple => self.container(object, TUPLE, object.cast::<PyTuple>()?.iter(), Mode::Legacy),
            Kind::List => self.container(object, LIST, object.cast::<PyList>()?.iter(), Mode::Legacy),
            Kind::Set => self.container(object, SET, object.cast::<PySet>()?.iter(), Mode::Legacy),
            Kind::FrozenSet => self.cast(object, object.cast::<PyFrozenSet>()?.iter().collect(), false, mode),
            Kind::TupleLike => self.cast(object, object.cast::<PyTuple>()?.iter().collect(), false, mode),
            Kind::NamedTuple => self.cast(object, object.cast::<PyTuple>()?.iter().collect(), true, mode),
            Kind::ListLike => self.cast(object, object.cast::<PyList>()?.iter().collect(), false, mode),
            Kind::SetLike => self.cast(object, object.try_iter()?.collect::<PyResult<_>>()?, false, mode),
            Kind::Dict | Kind::DictLike if mode == Mode::LegacyArgument => self.dict(object, Mode::Argument),
            Kind::Future => {
                self.reference(&object.getattr(intern!(self.py, "key"))?)?;
                Ok(true)
            }
            _ => self.plain(object, kind),
        }
    }

    /// Writes the parts of an object whose making was written from `mark` on; takes that back for an object that holds
    /// nothing to be replaced, which is a constant.
    fn parts_or_constant(
        &mut self,
        object: &Bound<'py, PyAny>,
        mark: Mark,
        parts: impl IntoIterator<Item = Bound<'py, PyAny>>,
        mode: Mode,
    ) -> Result<bool, Stop> {
        let changed = self.nested(|this| {
            let mut changed = false;
            for part in parts {
                changed |= this.expression(&part, mode)?;
            }
            Ok(changed)
        })?;
        if changed {
            return Ok(true);
        }
        self.draft.back_to(mark);
        self.value(object)
    }

    /// Writes a container, or the constant that it is.
    fn container(
        &mut self,
        object: &Bound<'py, PyAny>,
        container: u32,
        items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
        mode: Mode,
    ) -> Result<bool, Stop> {
        let mark = self.draft.mark();
        self.draft.words.extend([container, items.len() as u32]);
        self.parts_or_constant(object, mark, items, mode)
    }

    /// Writes a dict, or the constant that it is.
    fn dict(&mut self, object: &Bound<'py, PyAny>, mode: Mode) -> Result<bool, Stop> {
        let dict = object.cast::<PyDict>()?;
        let mark = self.draft.mark();
        self.draft.words.extend([DICT, dict.len() as u32]);
        self.parts_or_constant(object, mark, dict.iter().flat_map(|(key, value)| [key, value]), mode)
    }

    /// Writes a container of a derived type, made by calling its type, or the constant that it is.
    fn cast(
        &mut self,
        object: &Bound<'py, PyAny>,
        items: Vec<Bound<'py, PyAny>>,
        spread: bool,
        mode: Mode,
    ) -> Result<bool, Stop> {
        let mode = if mode == Mode::Plain { mode } else { Mode::Legacy };
        let mark = self.draft.mark();
        let count = if spread { items.len() } else { 1 };
        self.draft.words.extend([CALL, count as u32, 0]);
        self.draft.function(object.get_type().as_any());
        if !spread {
            self.draft.words.extend([TUPLE, items.len() as u32]);
        }
        self.parts_or_constant(object, mark, items, mode)
    }

    /// Writes a dataclass, made again from its fields, or the constant that it is.
    fn dataclass(&mut self, object: &Bound<'py, PyAny>) -> Result<bool, Stop> {
        let (names, values): (Vec<_>, Vec<_>) = fields(object)?.into_iter().unzip();
        let mark = self.draft.mark();
        self.draft.words.extend([CALL, 0, names.len() as u32]);
        self.draft.function(object.get_type().as_any());
        if !names.is_empty() {
            let names = self.templates.keyword_names(&names)?;
            self.draft.function(&names);
        }
        self.parts_or_constant(object, mark, values, Mode::Plain)
    }

    /// Writes a constant: among those of its batch, or as an object of its own if it is large.
    fn value(&mut self, object: &Bound<'py, PyAny>) -> Result<bool, Stop> {
        let is_big = self.kinds.is_big(object)?;
        Ok(self.sized(object, is_big))
    }

    fn sized(&mut self, object: &Bound<'py, PyAny>, is_big: bool) -> bool {
        if is_big {
            let number = self.externals.literal(object);
            self.draft.input(tag::EXTERNAL | number);
        } else {
            self.draft.constant(object);
        }
        is_big
    }
}

/// The arguments of a node.
pub(super) fn arguments<'py>(node: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    Ok(node.getattr(intern!(node.py(), "args"))?.cast_into::<PyTuple>()?)
}

/// Whether a tuple of a legacy graph is a task.
pub(super) fn is_call(tuple: &Bound<'_, PyTuple>) -> bool {
    !tuple.is_empty() && tuple.get_borrowed_item(0).is_ok_and(|first| first.is_callable())
}
