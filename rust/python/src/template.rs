//! The code of tasks: what `ingest` writes and `executor` compiles.
//!
//! A task is a row `[class, batch, template, key, parameters…]`. A *template* is the shape of a task: a list of steps in
//! the order of execution, each an expression; the last step's value is the task's result. A plain call is one step, a
//! fused task has as many as its inner graph. Tasks of the same shape share a template; what differs between them
//! stands in the parameters.
//!
//! A template's code is a list of little-endian `u32` words: the number of steps, then each step's expression in
//! prefix order:
//!
//! | words | value |
//! |---|---|
//! | `INPUT p` | the object whose input number is parameter `p` (see `GraphSpec::inputs`: `n < len` is task `n`'s result, `len + k` external object `k`) |
//! | `CONST p` | the constant whose place in the task's batch is parameter `p` |
//! | `FUNC f` | entry `f` of the template's `functions`, loaded |
//! | `LOCAL s` | the value of step `s`, an earlier one |
//! | `CALL n k`, function, n expressions, if `k > 0`: names, k expressions | a call; `names` is an expression that gives the tuple of `k` keyword names (a `FUNC` entry: it is part of the shape) |
//! | `LIST n`, `TUPLE n`, `SET n`, n expressions | a container, new in each task |
//! | `DICT n`, n × (key, value) | the same |
//!
//! A batch is the pickle of a list of constants. A function entry is the pickle of any object that belongs to the shape.

/// Words of a row before its parameters.
pub(crate) const HEADER: usize = 4;

/// Where a row has its class.
pub(crate) const CLASS: usize = 0;

/// Where a row names the batch of the task's constants, or [`NO_BATCH`].
pub(crate) const BATCH: usize = 1;

/// `key` of a row when no worker hook needs it; else the place of the key among the batch's constants.
pub(crate) const NO_KEY: u32 = u32::MAX;

/// Where a row has its key.
pub(crate) const KEY: usize = 3;

/// `key` of the row of a call: there is no graph of the user's that it is of.
pub(crate) const OF_CALL: u32 = u32::MAX - 1;

/// The same for a call that makes its worker an actor's.
pub(crate) const MAKES_ACTOR: u32 = u32::MAX - 2;

/// `batch` of a row without constants.
pub(crate) const NO_BATCH: u32 = u32::MAX;

pub(crate) const INPUT: u32 = 0;
pub(crate) const CONST: u32 = 1;
pub(crate) const FUNC: u32 = 2;
pub(crate) const LOCAL: u32 = 3;
pub(crate) const CALL: u32 = 4;
pub(crate) const LIST: u32 = 5;
pub(crate) const TUPLE: u32 = 6;
pub(crate) const SET: u32 = 7;
pub(crate) const DICT: u32 = 8;

/// A template's code as bytes.
pub(crate) fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A template's code from bytes; `None` if they are not whole words.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
