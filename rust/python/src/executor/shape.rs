//! Templates, checked and compiled: from prefix expressions to operations on a stack.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::template::{self, CALL, CONST, DICT, FUNC, INPUT, LIST, LOCAL, SET, TUPLE};

/// Code that no correct program has: a mistake of whoever wrote it, or damage on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadProgram {
    /// The code ends within an expression, or is not made of whole words.
    Truncated,
    /// There are words behind the last step.
    Trailing,
    /// A template without steps has no result.
    NoSteps,
    /// No expression begins with this word.
    UnknownOpcode(u32),
    /// A function entry that the template does not have.
    FunctionOutOfRange(u32),
    /// A step that is not an earlier one.
    StepOutOfRange(u32),
    /// The names of keyword arguments are not a function entry.
    NamesNotConstant,
    /// More operands than a call or container can have.
    TooManyOperands,
    /// A template of a graph that was not added.
    UnknownTemplate(u32),
    /// The run does not have as many rows as tasks, or not as many flags.
    RowsDoNotFit,
    /// A row has fewer words than its template asks for.
    ShortRow(u32),
    /// A row's input number stands for no object.
    UnknownInput(u32),
}

impl fmt::Display for BadProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "template code ends too early"),
            Self::Trailing => write!(f, "template code goes on behind its last step"),
            Self::NoSteps => write!(f, "template has no steps"),
            Self::UnknownOpcode(word) => write!(f, "unknown opcode {word}"),
            Self::FunctionOutOfRange(entry) => write!(f, "template has no function entry {entry}"),
            Self::StepOutOfRange(step) => write!(f, "step {step} is not an earlier one"),
            Self::NamesNotConstant => write!(f, "keyword names are not a function entry"),
            Self::TooManyOperands => write!(f, "too many operands"),
            Self::UnknownTemplate(id) => write!(f, "unknown template {id}"),
            Self::RowsDoNotFit => write!(f, "rows, tasks and outputs of the run differ in number"),
            Self::ShortRow(place) => write!(f, "the row at place {place} is too short"),
            Self::UnknownInput(number) => write!(f, "input number {number} stands for no object"),
        }
    }
}

impl std::error::Error for BadProgram {}

/// An operation. Operands are taken from the stack, the result is put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Puts the task's `n`-th input.
    Input(u32),
    /// Puts the constant whose place is this parameter.
    Const(u32),
    /// Puts a function entry.
    Func(u32),
    /// Puts the value of a step, which is read again later.
    Local(u32),
    /// Puts the value of a step, which is read no more.
    Take(u32),
    /// Calls with this many positional arguments.
    Call(u32),
    /// Calls with positional and then `named` keyword arguments, whose names are function entry `names`.
    CallNamed {
        positional: u32,
        named: u32,
        names: u32,
    },
    List(u32),
    Tuple(u32),
    Set(u32),
    Dict(u32),
    /// Ends a step whose value is read later.
    Store(u32),
    /// Ends a step whose value is not.
    Discard,
}

/// A template, compiled.
pub(super) struct Shape {
    pub(super) ops: Box<[Op]>,
    /// The parameters that are input numbers, in the order of their first appearance.
    pub(super) inputs: Box<[u32]>,
    /// The functions of the graph that the entries are.
    pub(super) functions: Box<[u32]>,
    /// How many steps there are.
    pub(super) steps: usize,
    /// How many parameters a row must have.
    pub(super) parameters: usize,
    /// Whether a task needs its batch of constants.
    pub(super) has_constants: bool,
    /// The function entries, once loaded.
    pub(super) loaded: OnceLock<Box<[Py<PyAny>]>>,
    /// A task of this shape failed by writing to an input, and did well with copies.
    copies_inputs: AtomicBool,
}

impl Shape {
    /// Compiles a template's code.
    pub(super) fn compile(code: &[u8], functions: Vec<u32>) -> Result<Self, BadProgram> {
        let words = template::from_bytes(code).ok_or(BadProgram::Truncated)?;
        let (&steps, words) = words.split_first().ok_or(BadProgram::Truncated)?;
        if steps == 0 {
            return Err(BadProgram::NoSteps);
        }
        let mut compiler = Compiler {
            words,
            functions: functions.len(),
            ops: Vec::new(),
            inputs: Vec::new(),
            places: FxHashMap::default(),
            parameters: 0,
        };
        for step in 0..steps {
            compiler.expression(step)?;
            compiler.ops.push(Op::Store(step));
        }
        if !compiler.words.is_empty() {
            return Err(BadProgram::Trailing);
        }
        // The last step's value stays on the stack: it is the result.
        compiler.ops.pop();
        let Compiler { mut ops, inputs, parameters, .. } = compiler;
        mark_last_uses(&mut ops, steps as usize);
        Ok(Self {
            has_constants: ops.iter().any(|op| matches!(op, Op::Const(_))),
            ops: ops.into(),
            inputs: inputs.into(),
            functions: functions.into(),
            steps: steps as usize,
            parameters,
            loaded: OnceLock::new(),
            copies_inputs: AtomicBool::new(false),
        })
    }

    /// Whether tasks of this shape get private copies of their inputs.
    pub(super) fn copies_inputs(&self) -> bool {
        self.copies_inputs.load(Ordering::Relaxed)
    }

    /// From now on they do.
    pub(super) fn set_copies_inputs(&self) {
        self.copies_inputs.store(true, Ordering::Relaxed);
    }
}

/// Turns the last use of each step into a [`Op::Take`], and the end of a step that nobody uses into a [`Op::Discard`]: a
/// value inside a task lives no longer than it must.
fn mark_last_uses(ops: &mut [Op], steps: usize) {
    let mut used = vec![false; steps];
    for op in ops.iter_mut().rev() {
        match *op {
            Op::Local(step) if !std::mem::replace(&mut used[step as usize], true) => *op = Op::Take(step),
            Op::Store(step) if !used[step as usize] => *op = Op::Discard,
            _ => {}
        }
    }
}

/// An expression whose operands are being read.
struct Open {
    /// What is emitted behind them.
    op: Op,
    /// How many are missing.
    missing: u64,
    /// Keyword operands still to be announced by their names.
    named: u32,
}

struct Compiler<'a> {
    /// What is not read yet.
    words: &'a [u32],
    functions: usize,
    ops: Vec<Op>,
    inputs: Vec<u32>,
    /// Where each parameter stands in `inputs`.
    places: FxHashMap<u32, u32>,
    parameters: usize,
}

impl Compiler<'_> {
    fn word(&mut self) -> Result<u32, BadProgram> {
        let (&word, rest) = self.words.split_first().ok_or(BadProgram::Truncated)?;
        self.words = rest;
        Ok(word)
    }

    fn parameter(&mut self) -> Result<u32, BadProgram> {
        let parameter = self.word()?;
        self.parameters = self.parameters.max(parameter as usize + 1);
        Ok(parameter)
    }

    fn function(&mut self) -> Result<u32, BadProgram> {
        let entry = self.word()?;
        if entry as usize >= self.functions { Err(BadProgram::FunctionOutOfRange(entry)) } else { Ok(entry) }
    }

    /// Reads the expression of step `step`. Without recursion: how deep expressions may nest is nobody's concern.
    fn expression(&mut self, step: u32) -> Result<(), BadProgram> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            if let Some(begun) = self.begin(step)? {
                open.push(begun);
            }
            // Ends what has all its operands now.
            loop {
                let Some(last) = open.last_mut() else { return Ok(()) };
                if last.missing > 0 {
                    last.missing -= 1;
                    break;
                }
                if last.named > 0 {
                    if self.word()? != FUNC {
                        return Err(BadProgram::NamesNotConstant);
                    }
                    let names = self.function()?;
                    let Op::Call(positional) = last.op else { unreachable!("only calls have names") };
                    let named = std::mem::take(&mut last.named);
                    last.op = Op::CallNamed { positional, named, names };
                    last.missing = u64::from(named);
                    continue;
                }
                self.ops.push(last.op);
                open.pop();
            }
        }
    }

    /// Reads an expression up to its first operand: `None` if it has none to come.
    fn begin(&mut self, step: u32) -> Result<Option<Open>, BadProgram> {
        let op = match self.word()? {
            INPUT => {
                let parameter = self.parameter()?;
                let next = self.inputs.len() as u32;
                let place = *self.places.entry(parameter).or_insert(next);
                if place == next {
                    self.inputs.push(parameter);
                }
                Op::Input(place)
            }
            CONST => Op::Const(self.parameter()?),
            FUNC => Op::Func(self.function()?),
            LOCAL => {
                let earlier = self.word()?;
                if earlier >= step {
                    return Err(BadProgram::StepOutOfRange(earlier));
                }
                Op::Local(earlier)
            }
            CALL => {
                let (positional, named) = (self.word()?, self.word()?);
                // Both are held against what is there, as each operand takes a word at least.
                if u64::from(positional) + u64::from(named) > self.words.len() as u64 {
                    return Err(BadProgram::TooManyOperands);
                }
                return Ok(Some(Open { op: Op::Call(positional), missing: u64::from(positional) + 1, named }));
            }
            word @ (LIST | TUPLE | SET | DICT) => {
                let count = self.word()?;
                let missing = if word == DICT { u64::from(count) * 2 } else { u64::from(count) };
                if missing > self.words.len() as u64 {
                    return Err(BadProgram::TooManyOperands);
                }
                let op = match word {
                    LIST => Op::List(count),
                    TUPLE => Op::Tuple(count),
                    SET => Op::Set(count),
                    _ => Op::Dict(count),
                };
                return Ok(Some(Open { op, missing, named: 0 }));
            }
            word => return Err(BadProgram::UnknownOpcode(word)),
        };
        self.ops.push(op);
        Ok(None)
    }
}
