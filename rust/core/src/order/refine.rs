//! Changes to a given order that let results live shorter: what only makes results is put off, what frees them is put
//! forward.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::graph::Csr;

/// Added to the position of a task that makes the number of live results grow: such tasks come after all others.
const GROWS: u32 = 1 << 31;

/// How often an order is changed. A third time almost never helps.
const ROUNDS: u32 = 2;

/// A graph whose orders are to be compared and changed.
///
/// A result is live from the moment its task runs until its last dependent ran, so a task's inputs and its result are
/// live together. What nothing depends on is dropped at once.
pub(super) struct Refiner<'a> {
    deps: &'a Csr,
    dependents: &'a Csr,
    /// No order has a lower peak: some task needs that many inputs.
    least_peak: u32,
}

/// All tasks of a graph in some order, and how many results are live at once at most.
pub(super) struct Sequence {
    pub(super) tasks: Vec<u32>,
    pub(super) peak: u32,
}

impl<'a> Refiner<'a> {
    /// `dependents` is `deps` turned round.
    pub(super) fn new(deps: &'a Csr, dependents: &'a Csr) -> Self {
        let widest = (0..deps.len() as u32).map(|task| deps.row(task).len()).max().unwrap_or(0);
        Self { deps, dependents, least_peak: widest as u32 + 1 }
    }

    /// Whether it is certain that no order is better than `sequence`.
    pub(super) fn is_optimal(&self, sequence: &Sequence) -> bool {
        sequence.peak <= self.least_peak
    }

    /// An order that follows `tasks`, any permutation, as far as dependencies allow.
    pub(super) fn made_valid(&self, tasks: &[u32]) -> Vec<u32> {
        self.eager(&self.lazy(tasks))
    }

    /// The best of `tasks`, an order, and what comes of changing it.
    pub(super) fn refined(&self, tasks: Vec<u32>) -> Sequence {
        let peak = self.peak(&tasks);
        let mut best = Sequence { tasks, peak };
        let mut last: Option<Vec<u32>> = None;
        for _ in 0..ROUNDS {
            if self.is_optimal(&best) {
                break;
            }
            let tasks = self.made_valid(last.as_ref().unwrap_or(&best.tasks));
            let peak = self.peak(&tasks);
            if peak < best.peak {
                best = Sequence { tasks: tasks.clone(), peak };
            }
            last = Some(tasks);
        }
        best
    }

    /// How many results are live at once at most.
    fn peak(&self, tasks: &[u32]) -> u32 {
        let mut uses_left = self.uses();
        let (mut live, mut peak) = (0u32, 0);
        for &task in tasks {
            live += 1;
            peak = peak.max(live);
            live -= u32::from(uses_left[task as usize] == 0);
            for &dep in self.deps.row(task) {
                uses_left[dep as usize] -= 1;
                live -= u32::from(uses_left[dep as usize] == 0);
            }
        }
        peak
    }

    /// The same order, but what does not make the number of live results grow runs as soon as it can.
    fn eager(&self, tasks: &[u32]) -> Vec<u32> {
        let position = positions(tasks);
        let mut uses_left = self.uses();
        let mut missing = self.inputs();
        // Of each task how many inputs nothing else still needs.
        let mut frees: Vec<u32> = (0..tasks.len() as u32)
            .map(|task| self.deps.row(task).iter().filter(|&&dep| uses_left[dep as usize] == 1).count() as u32)
            .collect();
        let key = |task: u32, frees: &[u32]| {
            let grows = frees[task as usize] == 0 && !self.dependents.row(task).is_empty();
            position[task as usize] | if grows { GROWS } else { 0 }
        };
        let mut ready: BinaryHeap<Reverse<u32>> =
            tasks.iter().filter(|&&task| missing[task as usize] == 0).map(|&task| Reverse(key(task, &frees))).collect();
        let mut done = vec![false; tasks.len()];
        let mut order = Vec::with_capacity(tasks.len());
        while let Some(Reverse(next)) = ready.pop() {
            let task = tasks[(next & !GROWS) as usize];
            if core::mem::replace(&mut done[task as usize], true) {
                continue;
            }
            order.push(task);
            for &dep in self.deps.row(task) {
                uses_left[dep as usize] -= 1;
                if uses_left[dep as usize] == 1 {
                    let last_user = self.dependents.row(dep).iter().copied().find(|&user| !done[user as usize]);
                    if let Some(user) = last_user {
                        frees[user as usize] += 1;
                        if missing[user as usize] == 0 && frees[user as usize] == 1 {
                            ready.push(Reverse(key(user, &frees)));
                        }
                    }
                }
            }
            for &dependent in self.dependents.row(task) {
                missing[dependent as usize] -= 1;
                if missing[dependent as usize] == 0 {
                    ready.push(Reverse(key(dependent, &frees)));
                }
            }
        }
        order
    }

    /// The same order, but what does not make the number of live results fall runs as late as it can. That is
    /// [`eager`](Self::eager) with time running backwards: there a task takes its result away and brings its inputs.
    fn lazy(&self, tasks: &[u32]) -> Vec<u32> {
        let end = tasks.len() as u32;
        let position = positions(tasks);
        let mut missing = self.uses();
        let mut live = vec![false; tasks.len()];
        // Of each task how many inputs are not live.
        let mut brings = self.inputs();
        let key = |task: u32, brings: &[u32]| {
            let grows = brings[task as usize] > u32::from(!self.dependents.row(task).is_empty());
            (end - 1 - position[task as usize]) | if grows { GROWS } else { 0 }
        };
        let mut ready: BinaryHeap<Reverse<u32>> = tasks
            .iter()
            .filter(|&&task| missing[task as usize] == 0)
            .map(|&task| Reverse(key(task, &brings)))
            .collect();
        let mut done = vec![false; tasks.len()];
        let mut order = Vec::with_capacity(tasks.len());
        while let Some(Reverse(next)) = ready.pop() {
            let task = tasks[(end - 1 - (next & !GROWS)) as usize];
            if core::mem::replace(&mut done[task as usize], true) {
                continue;
            }
            order.push(task);
            for &dep in self.deps.row(task) {
                if !core::mem::replace(&mut live[dep as usize], true) {
                    for &user in self.dependents.row(dep) {
                        brings[user as usize] -= 1;
                        if missing[user as usize] == 0 && !done[user as usize] {
                            ready.push(Reverse(key(user, &brings)));
                        }
                    }
                }
                missing[dep as usize] -= 1;
                if missing[dep as usize] == 0 {
                    ready.push(Reverse(key(dep, &brings)));
                }
            }
        }
        order.reverse();
        order
    }

    /// Of each task how many depend on it.
    fn uses(&self) -> Vec<u32> {
        row_lengths(self.dependents)
    }

    /// Of each task on how many it depends.
    fn inputs(&self) -> Vec<u32> {
        row_lengths(self.deps)
    }
}

fn row_lengths(edges: &Csr) -> Vec<u32> {
    edges.offsets().windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The inverse of a permutation.
pub(super) fn positions(tasks: &[u32]) -> Vec<u32> {
    let mut position = vec![0; tasks.len()];
    for (place, &task) in tasks.iter().enumerate() {
        position[task as usize] = place as u32;
    }
    position
}
