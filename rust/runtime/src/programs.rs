//! What workers must know to execute runs, and what each of them has been sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::Run;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::program::{Intro, Part, Program, RetryFilter, Template};

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number. False if it was there.
    fn insert(&mut self, n: u32) -> bool {
        let (word, bit) = (n as usize / 64, 1u64 << (n % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

/// What a worker has of one graph.
#[derive(Debug, Default)]
struct Sent {
    functions: Bits,
    templates: Bits,
    batches: Bits,
}

#[derive(Debug)]
struct GraphProgram {
    len: u32,
    externals: Vec<ObjectId>,
    templates: Vec<Template>,
    code: Csr,
    hooks: Option<Bytes>,
    retry_filters: Vec<RetryFilter>,
    surroundings: Option<Bytes>,
    /// Each function's blob.
    functions: Vec<u32>,
    batches: Vec<Bytes>,
    actor_meta: Bytes,
    names: Vec<Arc<str>>,
    sent: FxHashMap<WorkerId, Sent>,
}

/// A program that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the graph's program is malformed: {0}")]
pub(crate) struct BadProgram(&'static str);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    graphs: FxHashMap<GraphId, GraphProgram>,
    /// Functions pickled to the same bytes are one blob, whatever graph they came with, if that has the same surroundings:
    /// what unpickling makes of them may depend on these.
    blob_of: FxHashMap<(Bytes, Option<Bytes>), u32>,
    blobs: FxHashMap<u32, Blob>,
    next_blob: u32,
    known_blobs: FxHashMap<WorkerId, FxHashSet<u32>>,
    /// Blobs that had no graph when they were entered, oldest first.
    idle: VecDeque<u32>,
    idle_bytes: usize,
}

#[derive(Debug)]
struct Blob {
    bytes: Bytes,
    surroundings: Option<Bytes>,
    /// How many functions of graphs it is.
    users: u32,
}

/// Blobs without a graph are kept, because the next compute mostly has the same functions, up to so many and
const MOST_IDLE: usize = 1024;

/// so many bytes.
const MOST_IDLE_BYTES: usize = 16 << 20;

/// Who has to hear that a graph is over.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    /// Workers that know of it.
    pub(crate) workers: Vec<WorkerId>,
    /// Blobs that are gone, by the workers that have them.
    pub(crate) blobs: Vec<(WorkerId, Vec<u32>)>,
    /// What its classes are called.
    pub(crate) names: Vec<Arc<str>>,
}

/// Words of a task's code before its parameters: class, batch, template, key.
const HEADER: usize = 4;
const BATCH: usize = 1;
const TEMPLATE: usize = 2;
/// `batch` of a task without constants.
const NO_BATCH: u32 = u32::MAX;

impl Programs {
    /// A new graph's program, of `len` tasks.
    pub(crate) fn submit(
        &mut self,
        id: GraphId,
        len: u32,
        externals: Vec<ObjectId>,
        program: Program,
    ) -> Result<(), BadProgram> {
        let Program { templates, code, hooks, surroundings, retry_filters, actor_meta, names } = program;
        if self.graphs.contains_key(&id) {
            return Err(BadProgram("its number is taken"));
        }
        if code.len() != len as usize {
            return Err(BadProgram("its code does not fit its tasks"));
        }
        if (0..len).any(|task| code.row(task).len() < HEADER || code.row(task)[TEMPLATE] as usize >= templates.len()) {
            return Err(BadProgram("a task has no template"));
        }
        let graph = GraphProgram {
            len,
            externals,
            templates,
            code,
            hooks,
            retry_filters,
            surroundings,
            functions: Vec::new(),
            batches: Vec::new(),
            // What was read from a frame must not keep the whole frame alive.
            actor_meta: actor_meta.as_deref().map(Bytes::copy_from_slice).unwrap_or_default(),
            names,
            sent: FxHashMap::default(),
        };
        self.graphs.insert(id, graph);
        Ok(())
    }

    /// Whether an object is the result of a task of a graph that is known.
    pub(crate) fn has_task(&self, object: ObjectId) -> bool {
        self.graphs.get(&object.graph).is_some_and(|graph| object.index < graph.len)
    }

    /// What those are told who look for the actor that a graph makes.
    pub(crate) fn actor_meta(&self, id: GraphId) -> Option<Bytes> {
        self.graphs.get(&id).map(|graph| graph.actor_meta.clone())
    }

    /// What the classes of a graph are called.
    pub(crate) fn names(&self, id: GraphId) -> &[Arc<str>] {
        self.graphs.get(&id).map_or(&[], |graph| &graph.names)
    }

    /// More functions and batches of a graph.
    pub(crate) fn extend(&mut self, id: GraphId, part: Part) {
        let Self { graphs, blob_of, blobs, next_blob, .. } = self;
        let Some(graph) = graphs.get_mut(&id) else { return };
        for bytes in part.functions {
            let key = (bytes, graph.surroundings.clone());
            let blob = blob_of.get(&key).copied().unwrap_or_else(|| {
                // A pickle read from a frame must not keep the whole frame alive.
                let bytes = Bytes::copy_from_slice(&key.0);
                let surroundings = key.1.as_deref().map(Bytes::copy_from_slice);
                let blob = *next_blob;
                *next_blob += 1;
                blobs.insert(blob, Blob { bytes: bytes.clone(), surroundings: surroundings.clone(), users: 0 });
                blob_of.insert((bytes, surroundings), blob);
                blob
            });
            if let Some(blob) = blobs.get_mut(&blob) {
                blob.users += 1;
            }
            graph.functions.push(blob);
        }
        graph.batches.extend(part.batches);
    }

    /// The code of a run's tasks, and what its worker has not been sent yet; from now on it counts as sent.
    pub(crate) fn for_run(&mut self, run: &Run) -> Result<(Csr, Vec<Intro>), BadProgram> {
        let Self { graphs, blobs, known_blobs, .. } = self;
        let worker = run.id.worker;
        let graph = graphs.get_mut(&run.graph).ok_or(BadProgram("it was never submitted"))?;
        let mut intros = Vec::new();
        let sent = graph.sent.entry(worker).or_insert_with(|| {
            intros.push(Intro::Graph { len: graph.len, externals: graph.externals.clone() });
            intros.extend(graph.hooks.clone().map(Intro::Hooks));
            intros.extend(graph.retry_filters.iter().cloned().map(Intro::RetryFilter));
            intros.extend(graph.surroundings.clone().map(Intro::Surroundings));
            Sent::default()
        });
        let known = known_blobs.entry(worker).or_default();
        let mut code = Csr::with_capacity(run.tasks.len(), run.tasks.len() * (HEADER + 2));
        for &task in &run.tasks {
            let row = graph.code.row(task);
            code.push_row(row.iter().copied());
            let (batch, template) = (row[BATCH], row[TEMPLATE]);
            if sent.templates.insert(template) {
                let shape = &graph.templates[template as usize];
                for &id in &shape.functions {
                    let blob = *graph.functions.get(id as usize).ok_or(BadProgram("a function is missing"))?;
                    if sent.functions.insert(id) {
                        let bytes = known.insert(blob).then(|| blobs[&blob].bytes.clone());
                        intros.push(Intro::Function { id, blob, bytes });
                    }
                }
                intros.push(Intro::Template { id: template, template: shape.clone() });
            }
            if batch != NO_BATCH {
                let bytes = graph.batches.get(batch as usize).ok_or(BadProgram("a batch is missing"))?;
                if sent.batches.insert(batch) {
                    intros.push(Intro::Batch { id: batch, bytes: bytes.clone() });
                }
            }
        }
        Ok((code, intros))
    }

    /// A graph is over. Returns who has to hear of it.
    pub(crate) fn forget(&mut self, id: GraphId) -> Forgotten {
        let Some(mut graph) = self.graphs.remove(&id) else { return Forgotten::default() };
        let names = std::mem::take(&mut graph.names);
        let mut workers: Vec<WorkerId> = graph.sent.into_keys().collect();
        workers.sort_unstable();
        for id in graph.functions {
            if let Some(blob) = self.blobs.get_mut(&id) {
                blob.users -= 1;
                if blob.users == 0 {
                    self.idle.push_back(id);
                    self.idle_bytes += blob.bytes.len();
                }
            }
        }
        let mut gone = Vec::new();
        while self.idle.len() > MOST_IDLE || self.idle_bytes > MOST_IDLE_BYTES {
            let Some(id) = self.idle.pop_front() else { break };
            // It may be in use again, or have been entered twice.
            let Some(blob) = self.blobs.get(&id) else { continue };
            self.idle_bytes -= blob.bytes.len();
            if blob.users == 0 && !self.idle.contains(&id) {
                if let Some(blob) = self.blobs.remove(&id) {
                    self.blob_of.remove(&(blob.bytes, blob.surroundings));
                }
                gone.push(id);
            }
        }
        let mut blobs = Vec::new();
        for (&worker, known) in &mut self.known_blobs {
            let dropped: Vec<u32> = gone.iter().copied().filter(|id| known.remove(id)).collect();
            if !dropped.is_empty() {
                blobs.push((worker, dropped));
            }
        }
        blobs.sort_unstable();
        Forgotten { workers, blobs, names }
    }

    /// A worker is gone.
    pub(crate) fn worker_gone(&mut self, worker: WorkerId) {
        self.known_blobs.remove(&worker);
        for graph in self.graphs.values_mut() {
            graph.sent.remove(&worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use eagleray_core::ids::{PeerId, RunId};

    use super::*;

    fn graph_id() -> GraphId {
        GraphId { peer: PeerId::USER, seq: 1 }
    }

    fn run(worker: u32, tasks: &[u32]) -> Run {
        Run {
            id: RunId { worker: WorkerId(worker), seq: 0 },
            graph: graph_id(),
            tasks: tasks.to_vec(),
            outputs: vec![0; tasks.len()],
            inputs: vec![],
            gpus: vec![],
        }
    }

    fn program() -> Program {
        let template = |functions: &[u32]| Template { code: Bytes::new(), functions: functions.to_vec() };
        let mut code = Csr::new();
        code.push_row([0, 0, 0, 0, 5]);
        code.push_row([0, 0, 1, 0]);
        code.push_row([0, NO_BATCH, 0, 0, 6]);
        Program { templates: vec![template(&[0]), template(&[0, 1])], code, ..Program::default() }
    }

    fn names(intros: &[Intro]) -> Vec<String> {
        let name = |intro: &Intro| match intro {
            Intro::Graph { len, .. } => format!("graph of {len}"),
            Intro::Function { id, blob, bytes } => format!("function {id} blob {blob} {}", bytes.is_some()),
            Intro::Template { id, .. } => format!("template {id}"),
            Intro::Batch { id, .. } => format!("batch {id}"),
            Intro::Hooks(_) => "hooks".into(),
            Intro::RetryFilter(filter) => format!("filter of classes {:?}", filter.classes),
            Intro::Surroundings(_) => "surroundings".into(),
        };
        intros.iter().map(name).collect()
    }

    #[test]
    fn each_worker_is_sent_everything_once() {
        let mut programs = Programs::default();
        programs.submit(graph_id(), 3, vec![], program()).unwrap();
        let part = Part { functions: vec!["f".into(), "f".into()], batches: vec!["b".into()] };
        programs.extend(graph_id(), part);
        let (code, intros) = programs.for_run(&run(0, &[0, 1])).unwrap();
        assert_eq!(code.row(0), [0, 0, 0, 0, 5]);
        let first =
            ["graph of 3", "function 0 blob 0 true", "template 0", "batch 0", "function 1 blob 0 false", "template 1"];
        assert_eq!(names(&intros), first);
        assert!(programs.for_run(&run(0, &[0, 2])).unwrap().1.is_empty());
        assert_eq!(programs.for_run(&run(1, &[2])).unwrap().1.len(), 3);
        programs.worker_gone(WorkerId(0));
        assert_eq!(programs.for_run(&run(0, &[2])).unwrap().1.len(), 3);
        assert_eq!(programs.forget(graph_id()).workers, [WorkerId(0), WorkerId(1)]);
        assert!(programs.for_run(&run(0, &[0])).is_err());
    }

    #[test]
    fn hooks_and_surroundings_are_sent_before_anything_runs() {
        let mut programs = Programs::default();
        let program = Program { hooks: Some("h".into()), surroundings: Some("s".into()), ..program() };
        programs.submit(graph_id(), 3, vec![], program).unwrap();
        programs.extend(graph_id(), Part { functions: vec!["f".into(), "g".into()], batches: vec!["b".into()] });
        for worker in 0..2 {
            let (_, intros) = programs.for_run(&run(worker, &[0])).unwrap();
            assert_eq!(names(&intros)[..3], ["graph of 3", "hooks", "surroundings"]);
            assert!(programs.for_run(&run(worker, &[0])).unwrap().1.is_empty());
        }
    }

    #[test]
    fn a_function_is_unpickled_anew_where_surroundings_differ() {
        let mut programs = Programs::default();
        let mut blobs = Vec::new();
        for surroundings in [None, Some("s".into()), Some("t".into()), Some("s".into()), None] {
            programs.submit(graph_id(), 3, vec![], Program { surroundings, ..program() }).unwrap();
            programs.extend(graph_id(), Part { functions: vec!["f".into(), "g".into()], batches: vec!["b".into()] });
            let (_, intros) = programs.for_run(&run(0, &[0])).unwrap();
            blobs.extend(names(&intros).into_iter().filter(|name| name.starts_with("function 0")));
            programs.forget(graph_id());
        }
        let blob = |number: usize, sent: bool| format!("function 0 blob {number} {sent}");
        assert_eq!(blobs, [blob(0, true), blob(2, true), blob(4, true), blob(2, false), blob(0, false)]);
    }

    #[test]
    fn functions_that_no_graph_uses_do_not_add_up() {
        let mut programs = Programs::default();
        let mut dropped = 0;
        for n in 0..3 * MOST_IDLE {
            programs.submit(graph_id(), 3, vec![], program()).unwrap();
            let functions = vec![n.to_string().into(), "always".into()];
            programs.extend(graph_id(), Part { functions, batches: vec!["b".into()] });
            let (_, intros) = programs.for_run(&run(0, &[0, 1])).unwrap();
            let again = names(&intros).iter().any(|name| name.starts_with("function 1") && name.ends_with("false"));
            assert_eq!(again, n > 0, "a function of every graph is sent once");
            dropped += programs.forget(graph_id()).blobs.iter().map(|(_, blobs)| blobs.len()).sum::<usize>();
        }
        assert!(programs.blobs.len() <= MOST_IDLE && programs.blob_of.len() == programs.blobs.len());
        assert_eq!(programs.known_blobs[&WorkerId(0)].len(), programs.blobs.len());
        assert_eq!(dropped + programs.blobs.len(), 3 * MOST_IDLE + 1);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let mut programs = Programs::default();
        programs.submit(graph_id(), 3, vec![], program()).unwrap();
        assert_eq!(programs.for_run(&run(0, &[0])).unwrap_err(), BadProgram("a function is missing"));
        assert!(programs.submit(graph_id(), 4, vec![], program()).is_err());
    }
}
