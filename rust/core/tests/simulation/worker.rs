//! A worker as a model: it claims tasks on its page, makes values, keeps what it was told to keep.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;

use eagleray_core::ids::{GraphId, ObjectId, RunId, WorkerId};
use eagleray_core::message::{Place, Report, Run, Timing, Trouble, output};
use eagleray_core::page::{Page, WORDS};

/// What the node sends it.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Run(Run),
    Publish(Vec<ObjectId>),
    Drop(Vec<ObjectId>),
}

/// What it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    /// A claimed task, up to the step with this number.
    Task {
        index: u32,
        started: u64,
    },
    /// A claimed task that waits for the answer to a question.
    Blocked {
        index: u32,
        started: u64,
        token: u64,
    },
}

/// A run being executed.
#[derive(Debug)]
pub(crate) struct Executing {
    pub(crate) run: Run,
    /// Values of the run and how many of its tasks still read each.
    uses: BTreeMap<ObjectId, u32>,
    /// What did not work out, by object: the task failed, or only missed an input.
    bad: BTreeMap<ObjectId, bool>,
    pub(crate) report: Report,
    pub(crate) values: Vec<(ObjectId, u64)>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) words: [AtomicU64; WORDS],
    /// Runs whose words its page has, as the node knows.
    pub(crate) opened: VecDeque<u32>,
    /// Runs that were assigned and have not ended.
    pub(crate) assigned: BTreeMap<u32, Run>,
    pub(crate) inbox: VecDeque<Frame>,
    pub(crate) queue: VecDeque<Executing>,
    pub(crate) values: BTreeMap<ObjectId, u64>,
    pub(crate) doing: Doing,
    /// Only the step with this number is not out of date.
    pub(crate) step: u64,
    pub(crate) next_graph: u32,
    pub(crate) next_token: u64,
    /// Graphs it submitted and holds outputs of, while its task is blocked.
    pub(crate) nested: Option<GraphId>,
}

impl Worker {
    pub(crate) fn new(id: WorkerId) -> Self {
        Self {
            id,
            words: Default::default(),
            opened: VecDeque::new(),
            assigned: BTreeMap::new(),
            inbox: VecDeque::new(),
            queue: VecDeque::new(),
            values: BTreeMap::new(),
            doing: Doing::Nothing,
            step: 0,
            next_graph: 1,
            next_token: 1,
            nested: None,
        }
    }

    pub(crate) fn page(&self) -> Page<'_> {
        Page::new(&self.words).expect("a page has its words")
    }
}

impl Executing {
    /// `inputs` gives the objects that a task reads.
    pub(crate) fn new(run: Run, inputs: impl Fn(u32) -> Vec<ObjectId>) -> Self {
        let mut uses = BTreeMap::new();
        for &task in &run.tasks {
            for object in inputs(task) {
                *uses.entry(object).or_insert(0) += 1;
            }
        }
        let report = empty_report(run.id);
        Self { run, uses, bad: BTreeMap::new(), report, values: Vec::new() }
    }

    fn makes(&self, object: ObjectId) -> bool {
        object.graph == self.run.graph && self.run.tasks.contains(&object.index)
    }

    fn object(&self, index: u32) -> ObjectId {
        ObjectId { graph: self.run.graph, index: self.run.tasks[index as usize] }
    }

    /// What keeps a task from starting, if anything does.
    pub(crate) fn trouble(&self, inputs: &[ObjectId], can_read: impl Fn(ObjectId) -> bool) -> Option<Trouble> {
        if inputs.iter().any(|object| self.bad.get(object) == Some(&true)) {
            return Some(Trouble::Skipped);
        }
        let missing: Vec<ObjectId> = inputs.iter().copied().filter(|&object| !can_read(object)).collect();
        (!missing.is_empty()).then_some(Trouble::InputNotHere(missing))
    }

    /// A task ended without a value.
    pub(crate) fn troubled(&mut self, index: u32, inputs: &[ObjectId], trouble: Trouble) -> Vec<ObjectId> {
        let failed = !matches!(trouble, Trouble::InputNotHere(_));
        self.bad.insert(self.object(index), failed);
        if let Trouble::Retry(_) = trouble {
            // Who reads them in this run later finds them spoilt.
            let made: Vec<_> = inputs.iter().copied().filter(|object| self.makes(*object)).collect();
            self.bad.extend(made.into_iter().map(|object| (object, true)));
        }
        self.report.troubles.push((index, trouble));
        self.report.upto = index + 1;
        if failed { self.used(inputs) } else { Vec::new() }
    }

    /// A task ended with a value. Returns what the worker has no more use for.
    pub(crate) fn ended(&mut self, index: u32, inputs: &[ObjectId], class: u32, ns: u64, value: u64) -> Vec<ObjectId> {
        let object = self.object(index);
        let flags = self.run.outputs[index as usize];
        if flags & output::PUBLISH != 0 {
            let place = if flags & output::SEAL != 0 { Place::Sealed { len: 64 } } else { Place::Inline { len: 8 } };
            self.report.published.push((index, place));
            self.values.push((object, value));
        }
        self.report.upto = index + 1;
        match self.report.timings.iter_mut().find(|timing| timing.class == class) {
            Some(timing) => {
                timing.count += 1;
                timing.total_ns += ns;
                timing.max_ns = timing.max_ns.max(ns);
                timing.total_bytes += 8;
            }
            None => self.report.timings.push(Timing { class, count: 1, total_ns: ns, max_ns: ns, total_bytes: 8 }),
        }
        let mut unused = self.used(inputs);
        if flags & output::KEEP == 0 && self.uses.get(&object).is_none_or(|&uses| uses == 0) {
            unused.push(object);
        }
        unused
    }

    /// A task has read these. Returns those made in this run that no task of it reads any more.
    fn used(&mut self, inputs: &[ObjectId]) -> Vec<ObjectId> {
        let mut unused = Vec::new();
        for object in inputs {
            let Some(uses) = self.uses.get_mut(object) else { continue };
            *uses -= 1;
            let Some(at) = self.run.tasks.iter().position(|&task| object.index == task) else { continue };
            let here = object.graph == self.run.graph && !self.bad.contains_key(object);
            if *uses == 0 && here && self.run.outputs[at] & output::KEEP == 0 {
                unused.push(*object);
            }
        }
        unused
    }

    /// Takes out what is to be reported now.
    pub(crate) fn take_report(&mut self, ended: bool) -> (Report, Vec<(ObjectId, u64)>) {
        let mut report = std::mem::replace(&mut self.report, empty_report(self.run.id));
        self.report.upto = report.upto;
        report.ended = ended;
        (report, std::mem::take(&mut self.values))
    }
}

fn empty_report(run: RunId) -> Report {
    Report {
        run,
        upto: 0,
        ended: false,
        troubles: Vec::new(),
        published: Vec::new(),
        contained: Vec::new(),
        timings: Vec::new(),
    }
}
