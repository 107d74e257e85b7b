//! What one call does, written as a task: its template, its row, and the objects that it reads.

use bytes::Bytes;
use eagleray_core::ids::ObjectId;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustc_hash::FxHashMap;

use super::code::RemoteCode;
use super::options::RemoteOptions;
use crate::contained::Contained;
use crate::failures::Names;
use crate::pickles::{dump_batch, put_literal};
use crate::puts::Puts;
use crate::refs::ObjectRef;
use crate::role::Role;
use crate::template::{CALL, CONST, FUNC, INPUT};
use crate::{sizes, value};

/// See the module. It is to be there until it is submitted: the graph holds what it reads only then. The functions of its template are the code and, if there are any, the names of its keyword arguments.
pub(super) struct Draft<'a> {
    /// How many tasks its graph has.
    pub(super) tasks: u32,
    /// The template's code.
    pub(super) words: Vec<u32>,
    /// The row behind its header: numbers of inputs, and places of constants.
    pub(super) parameters: Vec<u32>,
    /// Which of them are numbers of inputs.
    pub(super) input_parameters: Vec<u32>,
    /// What it reads, by number.
    pub(super) externals: Vec<ObjectId>,
    /// The pickled functions.
    pub(super) functions: Vec<Bytes>,
    /// The pickled constants, if there are any.
    pub(super) batch: Option<Bytes>,
    /// What code and constants name.
    pub(super) contained: Vec<ObjectId>,
    /// The same for the same code.
    pub(super) fingerprint: u64,
    /// Large arguments.
    _puts: Puts<'a>,
    _held: Contained,
}

/// The arguments of a call while they are looked at.
struct Arguments<'a> {
    role: &'a Role,
    /// The first number of an external object.
    tasks: u32,
    words: Vec<u32>,
    parameters: Vec<u32>,
    input_parameters: Vec<u32>,
    externals: Vec<ObjectId>,
    number_of: FxHashMap<ObjectId, u32>,
    constants: Vec<Py<PyAny>>,
    puts: Puts<'a>,
    /// The number of each large argument, by address.
    literals: Vec<(usize, u32)>,
}

/// The error for what cannot be pickled.
type Explain<'a> = dyn Fn(&Bound<'_, PyAny>, PyErr) -> PyErr + 'a;

impl Arguments<'_> {
    fn add(&mut self, argument: &Bound<'_, PyAny>, explain: &Explain<'_>) -> PyResult<()> {
        if let Ok(reference) = argument.cast::<ObjectRef>() {
            let object = reference.get().object(self.role)?;
            let next = self.externals.len() as u32;
            let number = *self.number_of.entry(object).or_insert(next);
            if number == next {
                self.externals.push(object);
            }
            self.parameter(INPUT, self.tasks + number);
        } else if sizes::is_big(argument)? {
            let number = self.literal(argument, explain)?;
            self.parameter(INPUT, self.tasks + number);
        } else {
            self.parameter(CONST, self.constants.len() as u32);
            self.constants.push(argument.clone().unbind());
        }
        Ok(())
    }

    fn parameter(&mut self, word: u32, parameter: u32) {
        let place = self.parameters.len() as u32;
        self.words.extend([word, place]);
        if word == INPUT {
            self.input_parameters.push(place);
        }
        self.parameters.push(parameter);
    }

    /// Puts a large argument. The same object is put once.
    fn literal(&mut self, argument: &Bound<'_, PyAny>, explain: &Explain<'_>) -> PyResult<u32> {
        let address = argument.as_ptr() as usize;
        if let Some((_, number)) = self.literals.iter().find(|(known, _)| *known == address) {
            return Ok(*number);
        }
        let encoded = value::encode(argument.py(), argument);
        let object = put_literal(self.role, encoded.map_err(|cause| explain(argument, cause))?)?;
        self.puts.add(object);
        let number = self.externals.len() as u32;
        self.externals.push(object);
        self.literals.push((address, number));
        Ok(number)
    }
}

impl<'a> Draft<'a> {
    /// Writes a call as a task of a graph of `tasks` tasks. An `actor` is the first object that it reads, and none of the
    /// arguments.
    ///
    /// Raises `TypeError` for an argument that cannot be pickled.
    pub(super) fn new(
        role: &'a Role,
        code: &RemoteCode,
        args: &Bound<'_, PyTuple>,
        kwargs: &Bound<'_, PyDict>,
        options: &RemoteOptions,
        tasks: u32,
        actor: Option<ObjectId>,
    ) -> PyResult<Self> {
        let py = args.py();
        let count = args.len() + kwargs.len();
        let mut arguments = Arguments {
            role,
            tasks,
            words: Vec::with_capacity(8 + 2 * count),
            parameters: Vec::with_capacity(count),
            input_parameters: Vec::new(),
            externals: Vec::new(),
            number_of: FxHashMap::default(),
            constants: Vec::new(),
            puts: Puts::new(role),
            literals: Vec::new(),
        };
        if let Some(actor) = actor {
            arguments.externals.push(actor);
            arguments.number_of.insert(actor, 0);
        }
        let explain = |object: &Bound<'_, PyAny>, cause: PyErr| {
            let node = code.as_called(args, kwargs).unwrap_or_else(|_| py.None());
            let names = Names { keys: &[options.key(py)], nodes: &[node], externals: [&[], &[]] };
            names.not_picklable(object, cause)
        };
        let mut functions = vec![code.pickle.clone()];
        arguments.words.extend([1, CALL, args.len() as u32, kwargs.len() as u32, FUNC, 0]);
        for argument in args.iter_borrowed() {
            arguments.add(&argument, &explain)?;
        }
        if !kwargs.is_empty() {
            functions.push(code.names(&PyTuple::new(py, kwargs.keys())?)?);
            arguments.words.extend([FUNC, 1]);
            for (_, argument) in kwargs.iter() {
                arguments.add(&argument, &explain)?;
            }
        }
        let Arguments { words, parameters, input_parameters, externals, constants, puts, .. } = arguments;
        let (batch, held) = if constants.is_empty() {
            (None, Contained::default())
        } else {
            let (batch, held) = dump_batch(py, &constants, explain)?;
            (Some(batch), held)
        };
        let mut contained = held.objects();
        contained.extend(code.contained.objects());
        Ok(Self {
            tasks,
            words,
            parameters,
            input_parameters,
            externals,
            functions,
            batch,
            contained,
            fingerprint: code.fingerprint,
            _puts: puts,
            _held: held,
        })
    }
}
