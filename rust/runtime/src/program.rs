//! What a graph's tasks do, as bytes the runtime carries and does not understand.
//!
//! A task travels as `[class, batch, template, key, parameters…]`. A *template* is the shape of a call (or, for a fused task, of
//! several), naming functions of its graph by number; tasks of the same shape share one. Constants are pickled a batch
//! of tasks at a time. Who encodes and decodes all this is `eagleray-python`; here it is only sent to each worker once.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::Run;

/// The shape of a task.
#[derive(Clone, Debug)]
pub struct Template {
    /// What the executor compiles.
    pub code: Bytes,
    /// The functions of the graph's program that it calls.
    pub functions: Vec<u32>,
}

/// What is known of a graph's tasks when it is submitted. Functions and batches follow as [`Part`]s.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The shapes.
    pub templates: Vec<Template>,
    /// Row `i`: `[class, batch, template, key, parameters…]` of task `i`.
    pub code: Csr,
    /// The hooks that run in workers, pickled; sent to each worker once.
    pub hooks: Option<Bytes>,
    /// What surrounds its tasks, pickled, if that is not what workers have by themselves; sent to each worker once.
    pub surroundings: Option<Bytes>,
    /// After which exceptions tasks are run again; sent to each worker once.
    pub retry_filters: Vec<RetryFilter>,
    /// Of an actor: what those are told who look for it by name.
    pub actor_meta: Option<Bytes>,
    /// What tasks of each class are called, for people: by the number of the class, as far as that is known.
    pub names: Vec<Arc<str>>,
}

/// Tasks of these classes are run again if they raise. Those of others are not.
#[derive(Clone, Debug)]
pub struct RetryFilter {
    /// The classes, by number.
    pub classes: Vec<u32>,
    /// Only these exceptions count: a tuple of classes, pickled. All do, if absent.
    pub exceptions: Option<Bytes>,
}

/// Functions and batches of constants, in the order of their numbers. What is sent before an admission covers all that
/// the admitted tasks name.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The next functions, pickled.
    pub functions: Vec<Bytes>,
    /// The next batches of constants, pickled.
    pub batches: Vec<Bytes>,
}

/// Something a worker must know before it can execute a run, sent to it once.
#[derive(Clone, Debug)]
pub enum Intro {
    /// What `INPUT` numbers of the run's graph mean: it has `len` tasks and these external objects.
    Graph {
        /// Tasks.
        len: u32,
        /// Objects from outside.
        externals: Vec<ObjectId>,
    },
    /// Function `id` of the run's graph is blob `blob`. Blobs are equal bytes, whatever graph they came with; the bytes
    /// are absent if the worker has had them.
    Function {
        /// Its number in the graph's program.
        id: u32,
        /// Its number in the session.
        blob: u32,
        /// Its pickle.
        bytes: Option<Bytes>,
    },
    /// A template of the run's graph.
    Template {
        /// Its number in the graph's program.
        id: u32,
        /// The shape.
        template: Template,
    },
    /// A batch of constants of the run's graph.
    Batch {
        /// Its number in the graph's program.
        id: u32,
        /// Its pickle.
        bytes: Bytes,
    },
    /// The worker hooks of the run's graph.
    Hooks(Bytes),
    /// After which exceptions tasks of the run's graph are run again.
    RetryFilter(RetryFilter),
    /// What surrounds the tasks of the run's graph.
    Surroundings(Bytes),
}

/// The bytes of an object. Laid out by `eagleray-python`'s value codec, the same in both forms.
#[derive(Clone, Debug)]
pub enum Value {
    /// In memory of this process.
    Inline(Bytes),
    /// In a shared segment, mapped read-only; it stays as long as this is held.
    Sealed(eagleray_store::Block),
}

/// A run as its worker receives it.
#[derive(Debug)]
pub struct RunProgram {
    /// Tasks, their outputs' flags and the published inputs.
    pub run: Run,
    /// Row `i`: the code of the run's `i`-th task.
    pub code: Csr,
    /// What the worker must load first.
    pub intros: Vec<Intro>,
    /// The values of the run's inputs.
    pub inputs: Vec<(ObjectId, Value)>,
}
