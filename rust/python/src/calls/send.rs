//! Calls on their way to the session.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use eagleray_core::graph::Csr;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ClassSpec, Demand, GraphKind, GraphSpec, WHOLE};
use eagleray_runtime::program::{Part, Program, RetryFilter, Template};
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
use crate::template::{self, CALL, CONST, FUNC, INPUT, MAKES_ACTOR, NO_BATCH, OF_CALL};

/// What taking a part of a result is measured as.
const PARTS: u64 = 0x7061_7274;

/// A graph of one call, or of the tasks that take the parts of a result, or of both.
pub(super) struct Submission<'a> {
    role: &'a Arc<Role>,
    options: &'a RemoteOptions,
    pub(super) program: Program,
    /// What the results are parts of.
    whole: Option<ObjectId>,
    spec: GraphSpec,
    part: Part,
}

impl<'a> Submission<'a> {
    fn new(role: &'a Arc<Role>, options: &'a RemoteOptions, externals: Vec<ObjectId>, kind: GraphKind) -> Self {
        let spec = GraphSpec {
            id: role.client.next_graph(),
            inputs: Csr::new(),
            externals,
            position: Vec::new(),
            class: Vec::new(),
            classes: Vec::new(),
            demands: Vec::new(),
            priority: options.spec.priority,
            outputs: Vec::new(),
            kind,
            contained: Vec::new(),
        };
        Self { role, options, program: Program::default(), whole: None, spec, part: Part::default() }
    }

    /// A graph whose task 0 is a call.
    pub(super) fn of_call(
        role: &'a Arc<Role>,
        options: &'a RemoteOptions,
        draft: &mut Draft<'_>,
        kind: GraphKind,
    ) -> Self {
        let mut submission = Self::new(role, options, std::mem::take(&mut draft.externals), kind);
        let mut hasher = FxHasher::default();
        hasher.write_u64(draft.fingerprint);
        hasher.write_u64(options.spec.fingerprint);
        // A call of an actor runs on what the actor has.
        let demand = options.spec.demand.clone().filter(|_| submission.spec.kind != GraphKind::Calls);
        let class = ClassSpec {
            fingerprint: hasher.finish(),
            max_retries: options.spec.max_retries,
            retries: options.spec.retries,
            demand: u32::from(demand.is_some()),
        };
        submission.spec.demands.extend(demand);
        if class.retries > 0 {
            let filter = RetryFilter { classes: vec![0], exceptions: options.spec.retry_exceptions.clone() };
            submission.program.retry_filters.push(filter);
        }
        submission.spec.contained = std::mem::take(&mut draft.contained);
        submission.part.functions.append(&mut draft.functions);
        let batch = if draft.batch.is_some() { 0 } else { NO_BATCH };
        submission.part.batches.extend(draft.batch.take());
        let (template, class) = submission.shape(&draft.words, 0..submission.part.functions.len() as u32, class);
        let key = if matches!(submission.spec.kind, GraphKind::Actor(_)) { MAKES_ACTOR } else { OF_CALL };
        let reads = draft.tasks..draft.tasks + submission.spec.externals.len() as u32;
        submission.task([class, batch, template, key], reads, &draft.parameters);
        submission
    }

    /// A graph of tasks that take the parts of an object.
    pub(super) fn of_parts(role: &'a Arc<Role>, options: &'a RemoteOptions, object: ObjectId) -> Self {
        Self::new(role, options, vec![object], GraphKind::Independent)
    }

    /// Adds the tasks that take the parts of what has this input number: the call, or the only object from outside.
    pub(super) fn take_parts(&mut self, py: Python<'_>, number: u32, parts: u32) -> PyResult<()> {
        let external = self.spec.externals.first().filter(|_| self.spec.class.is_empty());
        self.whole = Some(external.copied().unwrap_or(ObjectId { graph: self.spec.id, index: number }));
        let class = ClassSpec { fingerprint: PARTS, max_retries: self.options.spec.max_retries, retries: 0, demand: 0 };
        let words = [1, CALL, 3, 0, FUNC, 0, INPUT, 0, CONST, 1, CONST, 2];
        let function = self.part.functions.len() as u32;
        self.part.functions.push(part_function(py)?.clone());
        let batch = self.part.batches.len() as u32;
        // The constant at place `i` is `i`.
        self.part.batches.push(dump_constants(PyList::new(py, 0..=parts)?.as_any())?.0);
        let (template, class) = self.shape(&words, function..function + 1, class);
        for part in 0..parts {
            self.task([class, batch, template, OF_CALL], number..number + 1, &[number, parts, part]);
        }
        Ok(())
    }

    /// Numbers of a template with these functions and of a class.
    fn shape(&mut self, words: &[u32], functions: Range<u32>, class: ClassSpec) -> (u32, u32) {
        let code = template::to_bytes(words).into();
        self.program.templates.push(Template { code, functions: functions.collect() });
        self.spec.classes.push(class);
        (self.program.templates.len() as u32 - 1, self.spec.classes.len() as u32 - 1)
    }

    fn task(&mut self, header: [u32; template::HEADER], reads: Range<u32>, parameters: &[u32]) {
        self.spec.position.push(self.spec.class.len() as u32);
        self.spec.class.push(header[template::CLASS]);
        self.spec.inputs.push_row(reads);
        self.program.code.push_row(header.into_iter().chain(parameters.iter().copied()));
    }

    /// A call that asks for nothing asks for one CPU: it must be placed.
    pub(super) fn demand_something(&mut self) {
        if self.spec.classes[0].demand == 0 {
            self.spec.demands.push(Demand { cpu: WHOLE, others: Vec::new() });
            self.spec.classes[0].demand = 1;
        }
    }

    /// Submits the graph. Gives refs to the results of these tasks.
    pub(super) fn send(self, py: Python<'_>, wanted: Range<u32>) -> PyResult<Vec<ObjectRef>> {
        let Self { role, options, program, whole, mut spec, part } = self;
        let (id, tasks) = (spec.id, spec.class.len());
        let of = if spec.kind == GraphKind::Calls { Of::ActorsCalls } else { Of::Calls };
        spec.outputs = wanted.clone().collect();
        role.client.submit(spec, program).map_err(raise)?;
        // From here on the results are held: the refs let go of them, whatever happens next.
        let refs = if wanted.is_empty() {
            Vec::new()
        } else {
            let keys = Keys::of_calls(id, (0..tasks).map(|_| options.key(py)).collect(), of);
            let made = |index| ObjectRef::made(role, ObjectId { graph: id, index }, &keys, whole);
            wanted.map(made).collect()
        };
        role.client.extend(id, part, tasks as u32).map_err(raise)?;
        Ok(refs)
    }
}
