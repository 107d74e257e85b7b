//! What is known of each task before any is ordered, and the graph with tasks renamed to their ranks.

use alloc::vec;
use alloc::vec::Vec;

use super::spans::{SetId, Span, Spans};
use crate::graph::Csr;

/// A graph whose tasks are named by their rank.
///
/// A task ranks higher the more work stands behind it: by the size of the tree of all its dependencies (a task counts
/// once for each path to it), then by its direct dependencies, then by the roots it needs. Equal so far, the one whose
/// roots have few dependents ranks higher, and at last the one with the higher tie or the later one. This is `sort_key` of `dask.order`. Since the rank
/// is the name, comparing two tasks is comparing two numbers, and every row is sorted.
pub(super) struct Ranked {
    /// The task of each rank.
    pub(super) task_of: Vec<u32>,
    /// What each task depends on, ascending.
    pub(super) deps: Csr,
    /// What depends on each task, ascending.
    pub(super) dependents: Csr,
    /// The tasks nothing depends on, ascending. An output is known by its place here, or by its number: numbers are
    /// given depth first, so that outputs that need the same have numbers close to each other.
    pub(super) outputs: Vec<u32>,
    /// The place of each output by its number.
    pub(super) place_of: Vec<u32>,
    /// Sets of numbers of outputs.
    spans: Spans,
    /// Of each task the outputs that need it, in `spans`. That of an output is its own number.
    needed_by: Vec<SetId>,
}

/// Number of paths, which grows exponentially with the depth of a graph: `mantissa << exponent`. Exact below 2^62.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Paths {
    exponent: u32,
    mantissa: u64,
}

impl Paths {
    /// One more than the sum.
    fn sum_and_one(paths: impl Iterator<Item = Self> + Clone) -> Self {
        let mut exponent = paths.clone().map(|p| p.exponent).max().unwrap_or(0);
        let one = u128::from(exponent == 0);
        let mut mantissa =
            one + paths.map(|p| u128::from(p.mantissa.checked_shr(exponent - p.exponent).unwrap_or(0))).sum::<u128>();
        let excess = (u128::BITS - mantissa.leading_zeros()).saturating_sub(62);
        mantissa >>= excess;
        exponent += excess;
        Self { exponent, mantissa: mantissa as u64 }
    }
}

impl Ranked {
    /// Ranks the tasks of `deps`, which `topological` lists with dependencies before dependents. `ties` decides between
    /// tasks that are equal in all else.
    pub(super) fn new(deps: &Csr, dependents: &Csr, topological: &[u32], ties: &[u32]) -> Self {
        let tasks = deps.len();
        // A few spans per task on average is what keeps this linear.
        let many = 4 * (tasks + deps.items().len());

        let mut keys = sort_keys(deps, dependents, topological, ties, many);
        keys.sort_unstable();
        let task_of: Vec<u32> = keys.iter().map(|key| key.task).collect();
        drop(keys);
        let mut rank_of = vec![0; tasks];
        for (rank, &task) in task_of.iter().enumerate() {
            rank_of[task as usize] = rank as u32;
        }

        let (numbered, spans, needed_by) = outputs_by_need(dependents, topological, many);
        let mut outputs: Vec<u32> = numbered.iter().map(|&task| rank_of[task as usize]).collect();
        outputs.sort_unstable();
        let mut place_of = vec![0; outputs.len()];
        for (place, &output) in outputs.iter().enumerate() {
            place_of[needed_by[task_of[output as usize] as usize] as usize] = place as u32;
        }
        Self {
            needed_by: task_of.iter().map(|&task| needed_by[task as usize]).collect(),
            deps: renamed(deps, dependents, &task_of, &rank_of),
            dependents: renamed(dependents, deps, &task_of, &rank_of),
            task_of,
            outputs,
            place_of,
            spans,
        }
    }

    /// The number of an output.
    pub(super) fn number_of(&self, output: u32) -> u32 {
        self.needed_by[output as usize]
    }

    /// The numbers of the outputs that need `task`.
    pub(super) fn outputs_of(&self, task: u32) -> &[Span] {
        self.spans.spans_of(self.needed_by[task as usize])
    }

    /// How many outputs need `task`.
    pub(super) fn outputs_len(&self, task: u32) -> u32 {
        self.spans.len_of(self.needed_by[task as usize])
    }
}

/// By what tasks are ranked; the order of the fields is the order of importance.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    paths: Paths,
    deps: u32,
    roots: u32,
    /// The largest number of dependents among the roots, subtracted from the largest `u32`.
    few_dependents: u32,
    tie: u32,
    task: u32,
}

/// The keys of all tasks, in any order.
fn sort_keys(deps: &Csr, dependents: &Csr, topological: &[u32], ties: &[u32], many: usize) -> Vec<SortKey> {
    let tasks = deps.len();
    let mut paths = vec![Paths::default(); tasks];
    let mut most_dependents = vec![0u32; tasks];
    let mut roots: Vec<SetId> = vec![0; tasks];
    let mut next_root = 0;
    for &task in topological {
        if deps.row(task).is_empty() {
            roots[task as usize] = next_root;
            next_root += 1;
        }
    }
    let mut spans = Spans::new(next_root, many);
    let mut keys = Vec::with_capacity(tasks);
    for &task in topological {
        let row = deps.row(task);
        let i = task as usize;
        paths[i] = Paths::sum_and_one(row.iter().map(|&dep| paths[dep as usize]));
        let needed_roots = if row.is_empty() {
            most_dependents[i] = dependents.row(task).len() as u32;
            // Dask gives a root no roots.
            0
        } else {
            most_dependents[i] = row.iter().map(|&dep| most_dependents[dep as usize]).max().unwrap_or(0);
            roots[i] = spans.union(row.iter().map(|&dep| roots[dep as usize]));
            spans.len_of(roots[i])
        };
        keys.push(SortKey {
            paths: paths[i],
            deps: row.len() as u32,
            roots: needed_roots,
            few_dependents: u32::MAX - most_dependents[i],
            tie: ties[i],
            task,
        });
    }
    keys
}

/// The outputs by number, and of each task the set of the numbers of outputs that need it.
fn outputs_by_need(dependents: &Csr, topological: &[u32], many: usize) -> (Vec<u32>, Spans, Vec<SetId>) {
    let is_output = |task: &u32| dependents.row(*task).is_empty();
    let numbered: Vec<u32> = topological.iter().copied().filter(is_output).collect();
    let mut needed_by: Vec<SetId> = vec![0; dependents.len()];
    for (number, &task) in numbered.iter().enumerate() {
        needed_by[task as usize] = number as u32;
    }
    let mut spans = Spans::new(numbered.len() as u32, many);
    for task in topological.iter().rev().filter(|task| !is_output(task)) {
        let row = dependents.row(*task);
        needed_by[*task as usize] = spans.union(row.iter().map(|&dependent| needed_by[dependent as usize]));
    }
    (numbered, spans, needed_by)
}

/// `edges` with tasks named by rank. `turned` is `edges` turned round: going through it by rank fills each row in
/// ascending order.
fn renamed(edges: &Csr, turned: &Csr, task_of: &[u32], rank_of: &[u32]) -> Csr {
    let mut offsets = Vec::with_capacity(task_of.len() + 1);
    offsets.push(0);
    let mut end = 0;
    for &task in task_of {
        end += edges.row(task).len() as u32;
        offsets.push(end);
    }
    let mut next = offsets.clone();
    let mut items = vec![0; end as usize];
    for (rank, &task) in task_of.iter().enumerate() {
        for &other in turned.row(task) {
            let place = &mut next[rank_of[other as usize] as usize];
            items[*place as usize] = rank as u32;
            *place += 1;
        }
    }
    Csr::from_parts(offsets, items).unwrap_or_default()
}
