//! Ways from a runnable task forward, to the next task that needs more than one dependency.

use alloc::vec;
use alloc::vec::Vec;
use core::slice;

/// No step, no list.
const NONE: u32 = u32::MAX;

/// The ways found so far, and which of them are known to lead to which task.
#[derive(Default)]
pub(super) struct Paths {
    /// Ways that split share what they have in common, so a step knows the one before it.
    steps: Vec<Step>,
    /// The last steps of the ways of joined paths.
    joined: Vec<u32>,
    /// Of each task where in `lists` the paths are that lead to it.
    list_of: Vec<u32>,
    /// Lists are reused: most tasks that have one have it for a short time.
    lists: Vec<Vec<Path>>,
    free_lists: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Step {
    task: u32,
    before: u32,
}

/// A path in [`Paths`].
#[derive(Clone, Copy)]
pub(super) enum Path {
    /// One way, by its last step.
    Way(u32),
    /// Several ways to the same task, one after the other: a range of [`Paths::joined`].
    Joined {
        /// Where the last steps of the ways begin.
        start: u32,
        /// Where they end.
        end: u32,
    },
}

impl Paths {
    /// For a graph of so many tasks.
    pub(super) fn new(tasks: usize) -> Self {
        Self { list_of: vec![NONE; tasks], ..Self::default() }
    }

    /// A path of one task.
    pub(super) fn start(&mut self, task: u32) -> Path {
        self.step(task, NONE)
    }

    /// `path` and `task` after it.
    pub(super) fn longer(&mut self, path: Path, task: u32) -> Path {
        let before = self.last_step(path);
        self.step(task, before)
    }

    /// One path through all of `paths`.
    pub(super) fn join(&mut self, paths: &[Path]) -> Path {
        let start = self.joined.len() as u32;
        for path in paths {
            match *path {
                Path::Way(step) => self.joined.push(step),
                Path::Joined { start, end } => self.joined.extend_from_within(start as usize..end as usize),
            }
        }
        Path::Joined { start, end: self.joined.len() as u32 }
    }

    /// The task at the end of `path`.
    pub(super) fn last(&self, path: Path) -> u32 {
        self.steps[self.last_step(path) as usize].task
    }

    /// The task before the last one.
    pub(super) fn last_but_one(&self, path: Path) -> Option<u32> {
        let before = self.steps[self.last_step(path) as usize].before;
        (before != NONE).then(|| self.steps[before as usize].task)
    }

    /// The last steps of the ways of `path`.
    pub(super) fn ways<'a>(&'a self, path: &'a Path) -> &'a [u32] {
        match path {
            Path::Way(step) => slice::from_ref(step),
            Path::Joined { start, end } => &self.joined[*start as usize..*end as usize],
        }
    }

    /// The tasks of the way that ends with `step`, backwards.
    pub(super) fn backwards(&self, mut step: u32) -> impl Iterator<Item = u32> {
        core::iter::from_fn(move || {
            let here = self.steps.get(step as usize)?;
            step = here.before;
            Some(here.task)
        })
    }

    /// Whether a path is known to lead to `task`.
    pub(super) fn lead_to(&self, task: u32) -> bool {
        self.list_of[task as usize] != NONE
    }

    /// Remembers that `path` leads to its last task. Says which paths do now.
    pub(super) fn remember(&mut self, path: Path) -> &mut Vec<Path> {
        let task = self.last(path);
        let place = &mut self.list_of[task as usize];
        if *place == NONE {
            *place = self.free_lists.pop().unwrap_or_else(|| {
                self.lists.push(Vec::new());
                self.lists.len() as u32 - 1
            });
        }
        let list = &mut self.lists[*place as usize];
        list.push(path);
        list
    }

    /// Forgets the paths to `task`, and appends them to `taken`.
    pub(super) fn take(&mut self, task: u32, taken: &mut Vec<Path>) {
        let place = core::mem::replace(&mut self.list_of[task as usize], NONE);
        if let Some(list) = self.lists.get_mut(place as usize) {
            taken.append(list);
            self.free_lists.push(place);
        }
    }

    /// To be called when no path is in use but those remembered: if there are none, memory is used from the start again.
    pub(super) fn tidy(&mut self) {
        if self.free_lists.len() == self.lists.len() {
            self.steps.clear();
            self.joined.clear();
        }
    }

    fn step(&mut self, task: u32, before: u32) -> Path {
        self.steps.push(Step { task, before });
        Path::Way(self.steps.len() as u32 - 1)
    }

    fn last_step(&self, path: Path) -> u32 {
        match path {
            Path::Way(step) => step,
            Path::Joined { end, .. } => self.joined[end as usize - 1],
        }
    }
}
