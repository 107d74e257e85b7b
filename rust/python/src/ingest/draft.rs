//! The code of a task while it is being written.

use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::template::{CONST, FUNC, INPUT, LOCAL};

/// What a parameter is, in its two upper bits, until all tasks have their numbers.
pub(super) mod tag {
    pub(crate) const MASK: u32 = 0b11 << 30;
    /// The result of a task, by the number of its key.
    pub(crate) const SLOT: u32 = 0b00 << 30;
    /// A constant, by its place among all.
    pub(crate) const CONSTANT: u32 = 0b01 << 30;
    /// An object reference, or a constant that becomes an object, by its number in `Externals`.
    pub(crate) const EXTERNAL: u32 = 0b10 << 30;
}

/// No number that is tagged may reach this.
pub(super) const LIMIT: u32 = 1 << 30;

/// State of an inner node whose step is being written.
pub(super) const IN_PROGRESS: u32 = u32::MAX;

/// One task's code, and the constants and parameters of all tasks written so far.
#[derive(Default)]
pub(super) struct Draft<'py> {
    /// The expression being written.
    pub(super) words: Vec<u32>,
    /// The steps that are complete.
    pub(super) steps: Vec<u32>,
    /// How many they are.
    pub(super) step_count: u32,
    /// The task's functions.
    pub(super) functions: Vec<Bound<'py, PyAny>>,
    /// Steps of inner nodes, by scope and address of the node.
    pub(super) step_of: FxHashMap<(u32, usize), u32>,
    /// Tagged parameters of all tasks.
    pub(super) params: Vec<u32>,
    /// Where the present task's begin.
    first_param: usize,
    /// Constants of all tasks.
    pub(super) constants: Vec<Bound<'py, PyAny>>,
}

/// A place in a draft to go back to, while no step has been added since.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    words: usize,
    functions: usize,
    params: usize,
    constants: usize,
}

/// A place in a draft to go back to.
#[derive(Clone, Copy)]
pub(super) struct StepMark {
    mark: Mark,
    steps: usize,
    step_count: u32,
}

impl<'py> Draft<'py> {
    /// Begins another task.
    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.steps.clear();
        self.step_count = 0;
        self.functions.clear();
        self.step_of.clear();
        self.first_param = self.params.len();
    }

    /// Where the present task's parameters begin.
    pub(super) fn first_param(&self) -> usize {
        self.first_param
    }

    /// Puts the whole template's code into `code`.
    pub(super) fn assemble(&self, code: &mut Vec<u32>) {
        code.clear();
        code.push(self.step_count + 1);
        code.extend_from_slice(&self.steps);
        code.extend_from_slice(&self.words);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            words: self.words.len(),
            functions: self.functions.len(),
            params: self.params.len(),
            constants: self.constants.len(),
        }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.words.truncate(mark.words);
        self.functions.truncate(mark.functions);
        self.params.truncate(mark.params);
        self.constants.truncate(mark.constants);
    }

    pub(super) fn step_mark(&self) -> StepMark {
        StepMark { mark: self.mark(), steps: self.steps.len(), step_count: self.step_count }
    }

    pub(super) fn back_to_step(&mut self, to: StepMark) {
        self.back_to(to.mark);
        self.steps.truncate(to.steps);
        self.step_count = to.step_count;
        self.step_of.retain(|_, step| *step == IN_PROGRESS || *step < to.step_count);
    }

    /// Writes a constant.
    pub(super) fn constant(&mut self, value: &Bound<'py, PyAny>) {
        self.param(CONST, tag::CONSTANT | self.constants.len() as u32);
        self.constants.push(value.clone());
    }

    /// Writes the value of an object, given with its tag.
    pub(super) fn input(&mut self, tagged: u32) {
        self.param(INPUT, tagged);
    }

    fn param(&mut self, word: u32, tagged: u32) {
        self.words.extend([word, (self.params.len() - self.first_param) as u32]);
        self.params.push(tagged);
    }

    /// Writes an object that belongs to the shape.
    pub(super) fn function(&mut self, function: &Bound<'py, PyAny>) {
        let place = self.functions.iter().position(|known| known.is(function)).unwrap_or_else(|| {
            self.functions.push(function.clone());
            self.functions.len() - 1
        });
        self.words.extend([FUNC, place as u32]);
    }

    /// Writes the value of an earlier step.
    pub(super) fn local(&mut self, step: u32) {
        self.words.extend([LOCAL, step]);
    }
}
