//! The walk through a ranked graph that puts its tasks in order.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use super::paths::{Path, Paths};
use super::rank::Ranked;
use super::targets::Targets;

/// The state of the walk. Tasks are named by rank.
pub(super) struct Walk<'a> {
    graph: &'a Ranked,
    /// What was put in order so far.
    order: Vec<u32>,
    /// Of each task how many dependencies are not in order yet.
    missing: Vec<u32>,
    marks: Vec<Mark>,
    /// How many tasks are [`Mark::within_reach`].
    within_reach: usize,
    /// Tasks that became free to run and were not looked at since.
    runnable: Vec<u32>,
    /// What is to be put in order next, from the end: the way to the target, and what that needs.
    critical: Vec<u32>,
    targets: Targets,
    /// The outputs that were not taken as target in the order of their ranks: a range of places.
    left: core::ops::Range<usize>,
    /// Whether outputs of high rank are taken first.
    longest_first: bool,
    outputs: Outputs,
    paths: Paths,
    scratch: Scratch,
}

/// What to do when the way forward leads to an output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    /// The rule of Dask: an output runs once one more dependency, at the end of this way, makes it runnable. Until then
    /// ways to it are forgotten.
    AtOnce,
    /// The rule for all other tasks holds for outputs, too: the ways are remembered, and run together. Where outputs need
    /// overlapping or regrouped inputs, this lets far fewer results live.
    WhenFree,
}

/// What is known of a task.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// It is in order.
    done: bool,
    /// A dependency of it is in order, it is not.
    within_reach: bool,
    /// It is on a path that was looked at, and need not be looked at again.
    on_path: bool,
}

/// Emptied and kept, so that there is no allocation at each use.
#[derive(Default)]
struct Scratch {
    candidates: Vec<u32>,
    branches: VecDeque<(u32, Path)>,
    paths: Vec<Path>,
    waiting: VecDeque<Path>,
    way: Vec<u32>,
    followers: Vec<u32>,
    known: Vec<u32>,
}

impl<'a> Walk<'a> {
    /// Before the first step.
    pub(super) fn new(graph: &'a Ranked, outputs: Outputs) -> Self {
        let tasks = graph.task_of.len();
        let roots = (0..tasks as u32).filter(|&task| graph.deps.row(task).is_empty());
        let inner_roots = roots.clone().filter(|&task| !graph.dependents.row(task).is_empty());
        let targets = Targets::new(&graph.place_of, inner_roots.map(|root| graph.outputs_of(root)));
        Self {
            graph,
            order: Vec::with_capacity(tasks),
            missing: (0..tasks as u32).map(|task| graph.deps.row(task).len() as u32).collect(),
            marks: vec![Mark::default(); tasks],
            within_reach: 0,
            runnable: Vec::new(),
            critical: Vec::new(),
            targets,
            left: 0..graph.outputs.len(),
            longest_first: longest_first(graph, roots),
            outputs,
            paths: Paths::new(tasks),
            scratch: Scratch::default(),
        }
    }

    /// All tasks in order.
    pub(super) fn run(mut self) -> Vec<u32> {
        while let Some(target) = self.next_target() {
            self.aim_at(target);
            self.follow_critical();
            self.follow_runnable();
        }
        self.order
    }

    /// The output to aim at: if anything is under way, one that needs few more roots.
    fn next_target(&mut self) -> Option<u32> {
        if self.within_reach > 0 {
            if let Some(place) = self.targets.best() {
                return Some(self.graph.outputs[place as usize]);
            }
        }
        loop {
            let place = if self.longest_first { self.left.next_back() } else { self.left.next() }?;
            let output = self.graph.outputs[place];
            if !self.marks[output as usize].done {
                return Some(output);
            }
        }
    }

    /// Fills `critical`: from the target back along the dependency of the highest rank, with all others on the way.
    fn aim_at(&mut self, target: u32) {
        self.critical.push(target);
        let mut next = self.graph.deps.row(target).last().copied();
        while let Some(task) = next {
            self.critical.push(task);
            let undone = self.graph.deps.row(task).iter().copied().filter(|&dep| !self.marks[dep as usize].done);
            let from = self.critical.len();
            self.critical.extend(undone);
            next = self.critical[from..].last().copied();
        }
    }

    /// Puts in order what is in `critical`, and whatever that needs.
    fn follow_critical(&mut self) {
        let mut walked_back = false;
        while let Some(task) = self.critical.pop() {
            if self.marks[task as usize].done {
                continue;
            }
            if self.missing[task as usize] == 0 {
                // Having gone back for more data, spend what it freed before more comes, unless that is very much.
                if walked_back && self.runnable.len() < self.critical.len() {
                    self.follow_runnable();
                }
                self.put(task);
                continue;
            }
            self.critical.push(task);
            let mut unknown = 0;
            let mut known = mem::take(&mut self.scratch.known);
            for &dep in self.graph.deps.row(task) {
                if self.marks[dep as usize].done {
                    continue;
                }
                if self.paths.lead_to(dep) {
                    known.push(dep);
                } else {
                    unknown += 1;
                    self.critical.push(dep);
                }
            }
            walked_back |= unknown > 1;
            // Last in, so first out: what is known to be runnable.
            for dep in known.drain(..) {
                let mut paths = mem::take(&mut self.scratch.paths);
                self.paths.take(dep, &mut paths);
                for path in paths.drain(..) {
                    for &way in self.paths.ways(&path).iter().rev() {
                        let undone = self.paths.backwards(way).take_while(|&task| !self.marks[task as usize].done);
                        self.critical.extend(undone);
                    }
                }
                self.scratch.paths = paths;
            }
            self.scratch.known = known;
        }
    }

    /// Looks at what became runnable, and puts in order what frees memory.
    ///
    /// From each runnable task the way forward leads to a task that needs more than one dependency, or to an output. If
    /// the known ways to it make it runnable, they are run. Otherwise they are only remembered: to run them early
    /// would make results that wait, to run them late would keep what they replace. Where a way splits, every branch
    /// that needs nothing else is a way.
    fn follow_runnable(&mut self) {
        self.paths.tidy();
        let mut candidates = mem::take(&mut self.scratch.candidates);
        let mut branches = mem::take(&mut self.scratch.branches);
        while !self.runnable.is_empty() {
            mem::swap(&mut candidates, &mut self.runnable);
            while let Some(task) = candidates.pop() {
                let Mark { done, on_path, .. } = self.marks[task as usize];
                if done || on_path {
                    continue;
                }
                if self.graph.dependents.row(task).is_empty() {
                    self.put(task);
                    continue;
                }
                let path = self.paths.start(task);
                branches.push_back((0, path));
                while let Some((splits, path)) = branches.pop_front() {
                    self.follow(path, splits, &mut branches);
                }
            }
        }
        self.scratch.candidates = candidates;
        self.scratch.branches = branches;
    }

    /// Follows one path. `splits` says how often it split before.
    fn follow(&mut self, mut path: Path, splits: u32, branches: &mut VecDeque<(u32, Path)>) {
        let graph = self.graph;
        let mut first = self.paths.last_but_one(path).is_none();
        let mut task = self.paths.last(path);
        // As long as the way leads through tasks that need nothing but the one before.
        loop {
            self.marks[task as usize].on_path = true;
            let dependents = graph.dependents.row(task);
            if !dependents.is_empty() && (first || graph.deps.row(task).len() == 1) {
                if let &[only] = dependents {
                    path = self.paths.longer(path, only);
                    task = only;
                    first = false;
                    continue;
                }
                for &dependent in dependents {
                    // Others belong to ways that interleave with this one.
                    if graph.deps.row(dependent).len() == 1 {
                        branches.push_back((splits + 1, self.paths.longer(path, dependent)));
                    }
                }
                return;
            }
            break;
        }
        let run_at_once = self.outputs == Outputs::AtOnce && graph.dependents.row(task).is_empty();
        let missing = self.missing[task as usize] as usize;
        if missing <= 1 && (run_at_once || !self.paths.lead_to(task)) {
            self.put_path(path);
            return;
        }
        self.marks[task as usize].on_path = false;
        if run_at_once {
            return;
        }
        let ways = self.paths.remember(path).len();
        if ways == 1 || ways < missing {
            return;
        }
        let mut paths = mem::take(&mut self.scratch.paths);
        self.paths.take(task, &mut paths);
        paths.retain(|&path| self.paths.last_but_one(path).is_none_or(|before| !self.marks[before as usize].done));
        if paths.len() < missing {
            for path in paths.drain(..) {
                self.paths.remember(path);
            }
        } else if splits > 1 && !paths.is_empty() {
            // What was split more than once is put in order only when the outer ways came together, too.
            let joined = self.paths.join(&paths);
            branches.push_back((splits - 1, joined));
            paths.clear();
        } else {
            self.put_paths(&mut paths);
        }
        self.scratch.paths = paths;
    }

    /// Puts all of `paths` in order; those that are not runnable at first after the others.
    fn put_paths(&mut self, paths: &mut Vec<Path>) {
        let mut waiting = mem::take(&mut self.scratch.waiting);
        waiting.extend(paths.drain(..));
        let mut in_vain = 0;
        while let Some(path) = waiting.pop_front() {
            if self.put_path(path) {
                in_vain = 0;
            } else {
                in_vain += 1;
                waiting.push_back(path);
                if in_vain > waiting.len() {
                    break;
                }
            }
        }
        waiting.clear();
        self.scratch.waiting = waiting;
    }

    /// Puts the tasks of `path` in order as far as they are runnable; says whether all of them are in order.
    fn put_path(&mut self, path: Path) -> bool {
        let mut complete = true;
        let mut way = mem::take(&mut self.scratch.way);
        for i in 0..self.paths.ways(&path).len() {
            let last = self.paths.ways(&path)[i];
            // Each task of a way depends on the one before: what is done is at its beginning.
            way.extend(self.paths.backwards(last).take_while(|&task| !self.marks[task as usize].done));
            while let Some(task) = way.pop() {
                if self.missing[task as usize] > 0 {
                    complete = false;
                    way.clear();
                } else {
                    self.put(task);
                }
            }
        }
        self.scratch.way = way;
        complete
    }

    /// Puts a task in order, and after it the only dependents that it makes runnable.
    fn put(&mut self, task: u32) {
        let graph = self.graph;
        let mut followers = mem::take(&mut self.scratch.followers);
        followers.push(task);
        while let Some(task) = followers.pop() {
            let mark = &mut self.marks[task as usize];
            if mark.done {
                continue;
            }
            self.within_reach -= usize::from(mark.within_reach);
            *mark = Mark { done: true, within_reach: false, on_path: false };
            self.order.push(task);
            let dependents = graph.dependents.row(task);
            if dependents.is_empty() {
                self.targets.leave(graph.number_of(task));
            } else if graph.deps.row(task).is_empty() {
                self.targets.root_ran(graph.outputs_of(task));
            }
            for &dependent in dependents {
                let mark = &mut self.marks[dependent as usize];
                if !mark.within_reach {
                    mark.within_reach = true;
                    self.within_reach += 1;
                    if graph.dependents.row(dependent).is_empty() {
                        self.targets.within_reach(graph.number_of(dependent));
                    }
                }
                let missing = &mut self.missing[dependent as usize];
                *missing -= 1;
                if *missing == 0 {
                    if dependents.len() == 1 {
                        followers.push(dependent);
                    } else {
                        self.runnable.push(dependent);
                    }
                }
            }
        }
        self.scratch.followers = followers;
    }
}

/// Whether to take outputs of high rank first. If there are about as many roots as outputs, and some are needed by more
/// outputs than others, the quickest ones come first.
fn longest_first(graph: &Ranked, roots: impl Iterator<Item = u32> + Clone) -> bool {
    let number_of_roots = roots.clone().count();
    let difference = number_of_roots.abs_diff(graph.outputs.len());
    if difference * 5 >= number_of_roots * 4 {
        return true;
    }
    let mut needed_by = roots
        .map(|root| if graph.dependents.row(root).is_empty() { 0 } else { graph.outputs_len(root) })
        .skip_while(|&outputs| outputs == 0);
    let first = needed_by.next();
    needed_by.all(|outputs| Some(outputs) == first)
}
