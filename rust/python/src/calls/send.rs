//! Calls on their way to the session.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ClassSpec, Demand, GraphKind, WHOLE};
use eagleray_runtime::calls::{Call, Shape, Task};
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHasher;

use super::code::part_function;
use super::draft::Draft;
use super::options::RemoteOptions;
use crate::keys::{Keys, Of};
use crate::pickles::dump_constants;
use crate::refs::ObjectRef;
use crate::role::{Role, raise};
use crate::template::{self, CALL, CONST, FUNC, INPUT, MAKES_ACTOR, OF_CALL};

/// What taking a part of a result is measured as.
const PARTS: u64 = 0x7061_7274;

/// How often it is done again at least when a worker died meanwhile.
const PART_RETRIES: u8 = 3;

/// A call, or the tasks that take the parts of a result, or both.
pub(super) struct Submission<'a> {
    role: &'a Arc<Role>,
    options: &'a RemoteOptions,
    call: Call,
    /// What the results are parts of, if that was submitted before.
    whole: Option<ObjectId>,
}

impl<'a> Submission<'a> {
    fn new(role: &'a Arc<Role>, options: &'a RemoteOptions, externals: Vec<ObjectId>, kind: GraphKind) -> Self {
        let call = Call {
            kind,
            priority: options.spec.priority,
            surroundings: None,
            shapes: Vec::with_capacity(1),
            batches: Vec::new(),
            tasks: Vec::with_capacity(1),
            externals,
            contained: Vec::new(),
            wanted: 0..0,
            alone: options.alone,
        };
        Self { role, options, call, whole: None }
    }

    /// What a worker calls.
    pub(super) fn of_call(
        role: &'a Arc<Role>,
        options: &'a RemoteOptions,
        draft: &mut Draft<'_>,
        kind: GraphKind,
    ) -> Self {
        let mut submission = Self::new(role, options, std::mem::take(&mut draft.externals), kind);
        let call = &mut submission.call;
        let mut hasher = FxHasher::default();
        hasher.write_u64(draft.fingerprint);
        hasher.write_u64(options.spec.fingerprint);
        let spec = &options.spec;
        let (max_retries, retries) = (spec.max_retries, spec.retries);
        // One that says what it asks for gets a worker that has nothing else to do.
        let demand = spec.demand.clone().or_else(|| options.alone.then(one_cpu));
        call.contained = std::mem::take(&mut draft.contained);
        let batch = draft.batch.take().map(|batch| {
            call.batches.push(batch);
            0
        });
        call.shapes.push(Shape {
            code: template::to_bytes(&draft.words).into(),
            functions: std::mem::take(&mut draft.functions),
            inputs: std::mem::take(&mut draft.input_parameters),
            class: ClassSpec { fingerprint: hasher.finish(), max_retries, retries, demand: 0, part: false },
            // A call of an actor runs on what the actor has.
            demand: demand.filter(|_| call.kind != GraphKind::Calls),
            retry: (retries > 0).then(|| spec.retry_exceptions.clone()),
            name: Arc::clone(&options.label),
        });
        let reads = draft.tasks..draft.tasks + call.externals.len() as u32;
        call.tasks.push(Task {
            shape: 0,
            batch,
            key: if matches!(call.kind, GraphKind::Actor(_)) { MAKES_ACTOR } else { OF_CALL },
            parameters: std::mem::take(&mut draft.parameters),
            inputs: reads.collect(),
        });
        submission
    }

    /// Tasks that take the parts of an object.
    pub(super) fn of_parts(role: &'a Arc<Role>, options: &'a RemoteOptions, object: ObjectId) -> Self {
        Self { whole: Some(object), ..Self::new(role, options, vec![object], GraphKind::Independent) }
    }

    /// What surrounds the call.
    pub(super) fn within(&mut self, surroundings: Option<Bytes>) {
        self.call.surroundings = surroundings;
    }

    /// Adds the tasks that take the parts of what has this input number: the call, or the only object from outside.
    pub(super) fn take_parts(&mut self, py: Python<'_>, number: u32, parts: u32) -> PyResult<()> {
        // What it runs is not the user's: that its worker is ended by somebody says nothing of the call.
        let max_retries = self.options.spec.max_retries.max(PART_RETRIES);
        let words = [1, CALL, 3, 0, FUNC, 0, INPUT, 0, CONST, 1, CONST, 2];
        self.call.shapes.push(Shape {
            code: template::to_bytes(&words).into(),
            functions: vec![part_function(py)?.clone()],
            inputs: vec![0],
            class: ClassSpec { fingerprint: PARTS, max_retries, retries: 0, demand: 0, part: true },
            demand: None,
            retry: None,
            name: Arc::clone(&self.options.label),
        });
        // The constant at place `i` is `i`.
        self.call.batches.push(dump_constants(PyList::new(py, 0..=parts)?.as_any())?.0);
        let (shape, batch) = (self.call.shapes.len() - 1, self.call.batches.len() - 1);
        for part in 0..parts {
            self.call.tasks.push(Task {
                shape,
                batch: Some(batch),
                key: OF_CALL,
                parameters: vec![number, parts, part],
                inputs: vec![number],
            });
        }
        Ok(())
    }

    /// Submits all of it. Gives refs to the results of these tasks.
    pub(super) fn send(self, py: Python<'_>, wanted: Range<u32>) -> PyResult<Vec<ObjectRef>> {
        let Self { role, options, mut call, whole } = self;
        call.wanted = wanted.clone();
        let tasks = call.tasks.len() as u32;
        let of = match call.kind {
            GraphKind::Calls => Of::ActorsCalls(call.externals[0]),
            _ => Of::Calls,
        };
        let ObjectId { graph, index: first } = role.client.call(call).map_err(raise)?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let keys = Keys::of_calls(py, graph, first..first + tasks, &options.key(py), of);
        let whole = whole.or_else(|| (tasks > 1).then_some(ObjectId { graph, index: first }));
        let made = |task| ObjectRef::made(role, ObjectId { graph, index: first + task }, &keys, whole);
        Ok(wanted.map(made).collect())
    }

    /// Submits it as the call that makes an actor.
    pub(super) fn make_actor(self, py: Python<'_>, meta: Bytes) -> PyResult<ObjectRef> {
        let Self { role, options, mut call, .. } = self;
        // It must be placed.
        call.shapes[0].demand.get_or_insert_with(one_cpu);
        call.wanted = 0..1;
        let max_restarts = if let GraphKind::Actor(spec) = &call.kind { spec.max_restarts } else { 0 };
        let actor = role.client.create_actor(call, meta).map_err(raise)?;
        let keys = Keys::of_calls(py, actor.graph, 0..1, &options.key(py), Of::Actor { max_restarts });
        Ok(ObjectRef::made(role, actor, &keys, None))
    }
}

/// What a call asks for that says nothing of it.
fn one_cpu() -> Demand {
    Demand { cpu: WHOLE, others: Vec::new() }
}
