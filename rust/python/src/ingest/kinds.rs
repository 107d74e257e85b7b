//! What a Python object is to the ingestion, decided once per type.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType};
use rustc_hash::FxHashMap;

use crate::sizes::Size;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `None`.
    None,
    /// `True` and `False`.
    Bool,
    /// `int`, `float` and what is derived from them.
    Number,
    /// `str` and what is derived from it.
    Text,
    /// A function or a class: part of a task's shape wherever it stands.
    Function,
    /// Exactly `tuple`, and so on.
    Tuple,
    List,
    Set,
    FrozenSet,
    Dict,
    /// Derived from `tuple`, and so on.
    TupleLike,
    NamedTuple,
    ListLike,
    SetLike,
    DictLike,
    /// An instance of a dataclass.
    Dataclass,
    /// Exactly the class of object references.
    ObjectRef,
    /// A reference to a key.
    TaskRef,
    /// Anything else with a true `__dask_future__`.
    Future,
    /// Exactly `Alias`, and so on.
    Alias,
    DataNode,
    Task,
    ListNode,
    TupleNode,
    SetNode,
    DictNode,
    /// Any other node.
    OtherNode,
    /// What is only ever a constant.
    Other,
}

impl Kind {
    /// Whether a legacy graph may mean a key by such an object.
    pub(super) const fn may_be_key(self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::Text | Self::Tuple | Self::TupleLike | Self::NamedTuple)
    }

    /// Whether it is a node of a graph, or refers to one.
    pub(super) const fn is_node(self) -> bool {
        matches!(
            self,
            Self::TaskRef
                | Self::Alias
                | Self::DataNode
                | Self::Task
                | Self::ListNode
                | Self::TupleNode
                | Self::SetNode
                | Self::DictNode
                | Self::OtherNode
        )
    }
}

/// What `eagleray._task_spec` hands over.
pub(super) struct Spec {
    task_ref: Py<PyType>,
    node: Py<PyType>,
    exact: Vec<(Py<PyType>, Kind)>,
    pub(super) identity_cast: Py<PyAny>,
    pub(super) to_container: Py<PyAny>,
    pub(super) dict_constructor: Py<PyAny>,
    pub(super) execute_subgraph: Py<PyAny>,
    pub(super) call_node: Py<PyAny>,
    pub(super) describe: Py<PyAny>,
    pub(super) key_prefix: Py<PyAny>,
    fused_functions: Py<PyAny>,
    pub(super) dict_has_pairs: bool,
}

impl Spec {
    /// The one of this process.
    pub(super) fn get(py: Python<'_>) -> PyResult<&Self> {
        static SPEC: PyOnceLock<Spec> = PyOnceLock::new();
        SPEC.get_or_try_init(py, || Self::new(py))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("eagleray._task_spec")?;
        let class = |name: &str| -> PyResult<Py<PyType>> { Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind()) };
        let get = |name: &str| -> PyResult<Py<PyAny>> { Ok(module.getattr(name)?.unbind()) };
        Ok(Self {
            task_ref: class("TaskRef")?,
            node: class("GraphNode")?,
            exact: vec![
                (class("Alias")?, Kind::Alias),
                (class("DataNode")?, Kind::DataNode),
                (class("Task")?, Kind::Task),
                (class("List")?, Kind::ListNode),
                (class("Tuple")?, Kind::TupleNode),
                (class("Set")?, Kind::SetNode),
                (class("Dict")?, Kind::DictNode),
            ],
            identity_cast: get("identity_cast")?,
            to_container: get("to_container")?,
            dict_constructor: get("dict_constructor")?,
            execute_subgraph: get("execute_subgraph")?,
            call_node: get("call_node")?,
            describe: get("describe")?,
            key_prefix: get("key_prefix")?,
            fused_functions: get("fused_functions")?,
            dict_has_pairs: module.getattr("dict_has_pairs")?.extract()?,
        })
    }
}

/// The kinds of the types met so far in a graph.
pub(super) struct Kinds<'py> {
    pub(super) spec: &'py Spec,
    object_ref: Bound<'py, PyType>,
    /// By address; the types are kept alive.
    known: FxHashMap<usize, (Kind, Size, Bound<'py, PyType>)>,
    /// Executors of fused dataframe tasks.
    fused: Vec<Bound<'py, PyAny>>,
}

impl<'py> Kinds<'py> {
    pub(super) fn new(object_ref: &Bound<'py, PyType>) -> PyResult<Self> {
        let py = object_ref.py();
        let spec = Spec::get(py)?;
        let fused = spec.fused_functions.bind(py).call0()?.extract()?;
        Ok(Self { spec, object_ref: object_ref.clone(), known: FxHashMap::default(), fused })
    }

    /// Whether `function` is `execute(tasks, dependencies, outkey)`.
    pub(super) fn is_fused(&self, function: &Bound<'py, PyAny>) -> bool {
        self.fused.iter().any(|fused| fused.is(function))
    }

    /// The key that an `Alias` stands for.
    pub(super) fn target(&mut self, alias: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let target = alias.getattr(intern!(alias.py(), "target"))?;
        // Before 2024.12.1 Dask wraps it.
        if self.of(&target)? == Kind::TaskRef { target.getattr(intern!(target.py(), "key")) } else { Ok(target) }
    }

    /// What `object` is.
    #[inline]
    pub(super) fn of(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Kind> {
        match self.known.get(&(object.get_type_ptr() as usize)) {
            Some(&(kind, ..)) => Ok(kind),
            None => Ok(self.learn(object)?.0),
        }
    }

    /// Whether `object` is so large that it should not travel among the constants of a batch.
    #[inline]
    pub(super) fn is_big(&mut self, object: &Bound<'py, PyAny>) -> PyResult<bool> {
        let size = match self.known.get(&(object.get_type_ptr() as usize)) {
            Some(&(_, size, _)) => size,
            None => self.learn(object)?.1,
        };
        size.is_big(object)
    }

    fn learn(&mut self, object: &Bound<'py, PyAny>) -> PyResult<(Kind, Size)> {
        let class = object.get_type();
        let kind = self.classify(object, &class)?;
        let size = match kind {
            Kind::Text
            | Kind::Tuple
            | Kind::List
            | Kind::Set
            | Kind::FrozenSet
            | Kind::Dict
            | Kind::Dataclass
            | Kind::Other => Size::of_instances(&class)?,
            _ => Size::Small,
        };
        self.known.insert(class.as_ptr() as usize, (kind, size, class));
        Ok((kind, size))
    }

    fn classify(&self, object: &Bound<'py, PyAny>, class: &Bound<'py, PyType>) -> PyResult<Kind> {
        let py = class.py();
        if class.is(&self.object_ref) {
            return Ok(Kind::ObjectRef);
        }
        if let Some((_, kind)) = self.spec.exact.iter().find(|(exact, _)| class.is(exact)) {
            return Ok(*kind);
        }
        let exact = [
            (py.get_type::<PyBool>(), Kind::Bool),
            (py.None().bind(py).get_type(), Kind::None),
            (py.get_type::<PyTuple>(), Kind::Tuple),
            (py.get_type::<PyList>(), Kind::List),
            (py.get_type::<PySet>(), Kind::Set),
            (py.get_type::<PyFrozenSet>(), Kind::FrozenSet),
            (py.get_type::<PyDict>(), Kind::Dict),
        ];
        if let Some((_, kind)) = exact.iter().find(|(exact, _)| class.is(exact)) {
            return Ok(*kind);
        }
        if class.is_subclass(self.spec.node.bind(py))? {
            return Ok(Kind::OtherNode);
        }
        if class.is_subclass(self.spec.task_ref.bind(py))? {
            return Ok(Kind::TaskRef);
        }
        let derived = [
            (py.get_type::<PyInt>(), Kind::Number),
            (py.get_type::<PyFloat>(), Kind::Number),
            (py.get_type::<PyString>(), Kind::Text),
            (py.get_type::<PyTuple>(), Kind::TupleLike),
            (py.get_type::<PyList>(), Kind::ListLike),
            (py.get_type::<PySet>(), Kind::SetLike),
            (py.get_type::<PyFrozenSet>(), Kind::SetLike),
            (py.get_type::<PyDict>(), Kind::DictLike),
            (py.get_type::<PyType>(), Kind::Function),
            (py.get_type::<PyCFunction>(), Kind::Function),
        ];
        for (base, kind) in derived {
            if class.is_subclass(&base)? {
                let named = kind == Kind::TupleLike && is_named_tuple(class)?;
                return Ok(if named { Kind::NamedTuple } else { kind });
            }
        }
        if class.name()? == "function" && object.is_callable() {
            return Ok(Kind::Function);
        }
        if class.hasattr(intern!(py, "__dask_future__"))? && object.getattr("__dask_future__")?.is_truthy()? {
            return Ok(Kind::Future);
        }
        let is_dataclass = class.hasattr(intern!(py, "__dataclass_fields__"))?;
        Ok(if is_dataclass { Kind::Dataclass } else { Kind::Other })
    }
}

/// As `dask.utils.is_namedtuple_instance`.
fn is_named_tuple(class: &Bound<'_, PyType>) -> PyResult<bool> {
    for name in ["_make", "_asdict", "_replace", "_fields", "_field_defaults"] {
        if !class.hasattr(name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names and values of the fields of a dataclass that its constructor takes. What was never set is left out.
pub(super) fn fields<'py>(object: &Bound<'py, PyAny>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let py = object.py();
    let mut found = Vec::new();
    for field in py.import("dataclasses")?.getattr("fields")?.call1((object,))?.try_iter()? {
        let field = field?;
        let name = field.getattr(intern!(py, "name"))?;
        if field.getattr(intern!(py, "init"))?.is_truthy()? {
            if let Some(value) = object.getattr_opt(name.cast::<PyString>()?)? {
                found.push((name, value));
            }
        }
    }
    Ok(found)
}
