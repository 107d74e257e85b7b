//! One graph at the head: a table of tasks and a table of objects.
//!
//! A task and the object it makes have the same index but are two records: whether work is to be done and whether its
//! result can be had are different questions, and mixing them multiplies states.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use super::positions::Positions;
use super::resources::Need;
use super::{Asks, Rank};
use crate::graph::Csr;
use crate::ids::{GraphId, ObjectId, RunId, WorkerId};
use crate::message::{ClassSpec, Failure, GraphKind, GraphSpec, Place, Refusal, WHOLE};

/// Where a task stands. `Waiting` and `Ready` differ by `missing` and by admission, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// Not admitted yet, or an input is not made yet.
    Waiting,
    /// In one of the graph's ready sets.
    Ready,
    /// It misses nothing, but some of what it reads only one worker has, which was asked to publish it.
    Publishing,
    /// In a run in flight.
    Assigned,
    /// It has run, or its value was supplied.
    Done,
    /// It will not run any more.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Inputs that are not made. An external input counts until it is published.
    pub(super) missing: u32,
    /// The number of the cut that assigned it: tells which tasks are in the same run.
    pub(super) cut: u32,
    pub(super) state: TaskState,
    /// Deaths of a worker under it.
    pub(super) deaths: u8,
    /// How often it raised and was run again.
    pub(super) raised: u16,
    /// Deaths of workers that had not begun it, but would have next.
    pub(super) strays: u8,
    /// How often it found an input from outside its graph missing.
    pub(super) misses: u8,
    /// The driver made its value: no worker can make it again.
    pub(super) supplied: bool,
    /// Balancing has moved it. It moves only long tasks again.
    pub(super) moved: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    /// Where its published bytes are.
    pub(super) place: Option<Place>,
    /// The worker that has it as a Python object.
    pub(super) resident: Option<WorkerId>,
    /// Tasks of this graph that read it and are not done.
    pub(super) consumers: u32,
    /// Peers and other graphs that hold it.
    pub(super) holders: u32,
    /// Its worker was asked to publish it.
    pub(super) asked: bool,
    /// It cannot be encoded: only tasks in its worker can read it.
    pub(super) stays: bool,
    /// Its worker could not publish it. Made again, it counts as failed if it stays.
    pub(super) must_leave: bool,
}

const _: () = assert!(core::mem::size_of::<Task>() + core::mem::size_of::<Object>() <= 64);

impl Object {
    /// Whether somebody still needs it.
    pub(super) fn needed(&self) -> bool {
        self.consumers > 0 || self.holders > 0
    }

    /// No worker has it any more. Who makes it again has not been asked to publish it.
    pub(super) fn forget_resident(&mut self) {
        self.resident = None;
        self.asked = false;
        self.stays = false;
    }

    /// Whether a task can read it, in whatever worker.
    pub(super) fn made(&self) -> bool {
        self.place.is_some() || self.resident.is_some()
    }
}

/// An input from outside.
#[derive(Clone, Debug)]
pub(super) struct External {
    pub(super) object: ObjectId,
    /// The tasks that read it.
    pub(super) readers: Vec<u32>,
    /// Its bytes are published; else the readers miss it.
    pub(super) available: bool,
    /// The graph is counted among the object's holders. A running graph is, while it has readers that are not done.
    pub(super) held: bool,
    /// Why it will never be there.
    pub(super) failed: Option<Failure>,
}

/// Tasks of one demand that any worker can run when there is enough for them.
#[derive(Debug)]
pub(super) struct Special {
    pub(super) need: Need,
    /// Their positions.
    pub(super) ready: BTreeSet<u32>,
    /// Since when the first of them finds too little.
    pub(super) since: Option<u64>,
}

/// Where a graph stands as a whole.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Running,
    /// Nothing new starts. What runs may end, its results are dropped.
    Ended(Failure),
}

#[derive(Debug)]
pub(super) struct Graph {
    pub(super) inputs: Csr,
    pub(super) dependents: Csr,
    pub(super) position: Vec<u32>,
    pub(super) at: Vec<u32>,
    pub(super) class: Vec<u32>,
    pub(super) classes: Vec<ClassSpec>,
    pub(super) tasks: Vec<Task>,
    pub(super) objects: Vec<Object>,
    pub(super) externals: Vec<External>,
    /// Tasks that any worker can run.
    pub(super) ready: Positions,
    /// Tasks that read what only one worker has.
    pub(super) ready_on: BTreeMap<WorkerId, Positions>,
    /// By demand, less one: tasks that wait for more than a slot.
    pub(super) special: Vec<Special>,
    /// Positions below may be assigned.
    pub(super) admitted: u32,
    /// Tasks neither done nor failed.
    pub(super) unfinished: u32,
    /// The same by class, for the estimate of what remains.
    pub(super) unfinished_of: Vec<u32>,
    /// Objects with holders.
    pub(super) held: u32,
    /// Runs in flight.
    pub(super) runs: u32,
    /// Tasks whose values the driver supplied. Those are kept until the graph is finished and its results are published:
    /// lineage begins with them. Empty when they have been let go.
    pub(super) supplied: Vec<u32>,
    /// Tasks that are [`TaskState::Publishing`].
    pub(super) publishing: u32,
    pub(super) cuts: u32,
    /// Scratch of a cut: how many inputs a task still misses if the cut's tasks were done.
    pub(super) scratch: Vec<(u32, u32)>,
    pub(super) standing: Standing,
    pub(super) kind: GraphKind,
    /// The number of what its tasks demand, if each of them demands something.
    pub(super) demands: u32,
    /// Of tasks that stand for themselves, those that have failed.
    pub(super) failures: BTreeMap<u32, Failure>,
    /// Tasks in runs that are not to be run, or no longer: by force, and with what they have submitted.
    pub(super) cancelled: BTreeMap<u32, (bool, bool)>,
    /// Objects that constants of it name, which it holds as long as it holds what it reads from outside.
    pub(super) contained: Vec<ObjectId>,
    /// It is an actor's that lives though nobody holds it.
    pub(super) detached: bool,
    /// The run of which a task submitted it.
    pub(super) parent: Option<RunId>,
    /// Of calls: the first position that no run has and that has not ended.
    next_call: u32,
    /// Nesting: 0 for the user's program, one more for what is computed inside a task.
    pub(super) depth: u32,
    pub(super) rank: Rank,
    /// More than one worker is worth waking for it.
    pub(super) spread: bool,
    /// The worker that has it while it is not spread.
    pub(super) home: Option<WorkerId>,
    /// When to look whether it is worth spreading.
    pub(super) spread_at: Option<u64>,
}

impl Graph {
    /// `needs` are what the spec's demands come to.
    pub(super) fn new(spec: GraphSpec, needs: Vec<Need>, depth: u32, rank: Rank) -> Result<Self, Refusal> {
        let n = spec.inputs.len();
        let malformed = Refusal::MalformedGraph;
        let len = u32::try_from(n).map_err(|_| malformed("too many tasks"))?;
        if spec.position.len() != n || spec.class.len() != n {
            return Err(malformed("tables of different lengths"));
        }
        let mut at = vec![u32::MAX; n];
        for (task, &position) in spec.position.iter().enumerate() {
            match at.get_mut(position as usize) {
                Some(slot) if *slot == u32::MAX => *slot = task as u32,
                _ => return Err(malformed("the order is not a permutation")),
            }
        }
        if spec.classes.iter().any(|class| class.demand as usize > needs.len()) {
            return Err(malformed("unknown demand"));
        }
        let mut unfinished_of = vec![0; spec.classes.len()];
        for &class in &spec.class {
            *unfinished_of.get_mut(class as usize).ok_or(malformed("unknown class"))? += 1;
        }
        let mut externals: Vec<External> = spec
            .externals
            .iter()
            .map(|&object| External { object, readers: Vec::new(), available: false, held: false, failed: None })
            .collect();
        let mut tasks = Vec::with_capacity(n);
        let mut objects = vec![
            Object {
                place: None,
                resident: None,
                consumers: 0,
                holders: 0,
                asked: false,
                stays: false,
                must_leave: false
            };
            n
        ];
        if spec.externals.iter().any(|object| object.graph == spec.id) {
            return Err(malformed("it reads itself from outside"));
        }
        for task in 0..len {
            for &input in spec.inputs.row(task) {
                if input < len {
                    if spec.position[input as usize] >= spec.position[task as usize] {
                        return Err(malformed("a task comes before its input"));
                    }
                    objects[input as usize].consumers += 1;
                } else {
                    let external = externals.get_mut((input - len) as usize).ok_or(malformed("unknown input"))?;
                    external.readers.push(task);
                }
            }
            tasks.push(Task {
                missing: spec.inputs.row(task).len() as u32,
                cut: 0,
                state: TaskState::Waiting,
                deaths: 0,
                raised: 0,
                strays: 0,
                misses: 0,
                supplied: false,
                moved: false,
            });
        }
        if spec.outputs.iter().any(|&task| task >= len) {
            return Err(malformed("unknown output"));
        }
        Ok(Self {
            dependents: spec.inputs.transposed(),
            inputs: spec.inputs,
            position: spec.position,
            at,
            class: spec.class,
            classes: spec.classes,
            tasks,
            objects,
            externals,
            ready: Positions::new(len),
            ready_on: BTreeMap::new(),
            special: needs.into_iter().map(|need| Special { need, ready: BTreeSet::new(), since: None }).collect(),
            admitted: 0,
            unfinished: len,
            unfinished_of,
            held: 0,
            runs: 0,
            supplied: Vec::new(),
            publishing: 0,
            cuts: 0,
            scratch: vec![(0, 0); n],
            standing: Standing::Running,
            kind: spec.kind,
            demands: 0,
            failures: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            contained: Vec::new(),
            detached: false,
            parent: None,
            next_call: 0,
            depth,
            rank,
            spread: false,
            home: None,
            spread_at: None,
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.tasks.len() as u32
    }

    pub(super) fn running(&self) -> bool {
        matches!(self.standing, Standing::Running)
    }

    /// Whether a failure takes only those along that read it.
    pub(super) fn stands_alone(&self) -> bool {
        self.kind != GraphKind::Computation
    }

    pub(super) fn is_actor(&self) -> bool {
        matches!(self.kind, GraphKind::Actor(_))
    }

    pub(super) fn is_calls(&self) -> bool {
        self.kind == GraphKind::Calls
    }

    /// Of calls: the position of the next, or how many there are.
    pub(super) fn next_call(&self) -> u32 {
        self.next_call
    }

    /// Looks for the next call again.
    pub(super) fn seek_call(&mut self) {
        let waits = |&&task: &&u32| {
            !matches!(self.tasks[task as usize].state, TaskState::Assigned | TaskState::Done | TaskState::Failed)
        };
        self.next_call = self.at.iter().position(|task| waits(&task)).map_or(self.len(), |at| at as u32);
    }

    pub(super) fn has_ready(&self) -> bool {
        self.has_ordinary() || self.special.iter().any(|special| !special.ready.is_empty())
    }

    /// What kind of demands it has.
    pub(super) fn asks(&self) -> Asks {
        let light = self.special.iter().any(|special| special.need.cpu < WHOLE);
        Asks { special: !self.special.is_empty(), light }
    }

    /// Whether a task is ready that needs a CPU and nothing else.
    pub(super) fn has_ordinary(&self) -> bool {
        !self.ready.is_empty() || self.ready_on.values().any(|set| !set.is_empty())
    }

    /// The first position of ready tasks of a demand that any worker can run.
    #[inline]
    pub(super) fn first_ready(&self, demand: u32) -> Option<u32> {
        match demand {
            0 => self.ready.first(),
            _ => self.special[demand as usize - 1].ready.first().copied(),
        }
    }

    /// Takes a position out of those.
    #[inline]
    pub(super) fn remove_ready(&mut self, demand: u32, position: u32) -> bool {
        match demand {
            0 => self.ready.remove(position),
            _ => self.special[demand as usize - 1].ready.remove(&position),
        }
    }

    /// What a task demands: see [`ClassSpec::demand`].
    pub(super) fn demand(&self, task: u32) -> u32 {
        if self.special.is_empty() { 0 } else { self.classes[self.class[task as usize] as usize].demand }
    }

    /// Whether a task is a call that is not to be run again, whatever becomes of its worker.
    pub(super) fn is_once(&self, task: u32) -> bool {
        self.kind != GraphKind::Computation
            && !self.is_actor()
            && self.classes[self.class[task as usize] as usize].max_retries == 0
    }

    /// Whether a task takes a part of a result.
    pub(super) fn is_part(&self, task: u32) -> bool {
        self.classes[self.class[task as usize] as usize].part
    }

    /// Whether a task takes a part of what `last` has made, or has taken another part of: see [`ClassSpec::part`].
    pub(super) fn belongs(&self, task: u32, last: u32) -> bool {
        let whole = |task| self.inputs.row(task).first().filter(|_| self.is_part(task));
        whole(task).is_some_and(|&of| of < self.len() && (of == last || whole(last) == Some(&of)))
    }

    /// Counts a failure of a task. True if it is to be run again.
    pub(super) fn retries(&mut self, task: u32) -> bool {
        let most = self.classes[self.class[task as usize] as usize].retries;
        // As in Ray, what a call may survive is one number for exceptions and deaths.
        let together = self.stands_alone();
        let record = &mut self.tasks[task as usize];
        let before = record.raised.saturating_add(if together { u16::from(record.deaths) } else { 0 });
        if before >= most && most < u16::MAX {
            return false;
        }
        record.raised = record.raised.saturating_add(1);
        true
    }

    /// Counts the death of a worker that ran a task. True if that is to be run again.
    pub(super) fn survives(&mut self, task: u32) -> bool {
        let most = self.classes[self.class[task as usize] as usize].max_retries;
        let together = self.stands_alone();
        let record = &mut self.tasks[task as usize];
        record.deaths = record.deaths.saturating_add(1);
        let failed = u16::from(record.deaths).saturating_add(if together { record.raised } else { 0 });
        most == u8::MAX || failed <= u16::from(most)
    }

    /// The object that input number `input` stands for.
    pub(super) fn object_id(&self, id: GraphId, input: u32) -> ObjectId {
        if input < self.len() {
            ObjectId { graph: id, index: input }
        } else {
            self.externals[(input - self.len()) as usize].object
        }
    }

    /// Whether a task that reads an input from outside has yet to run, or runs.
    pub(super) fn has_unfinished_reader(&self, external: u32) -> bool {
        let finished = |&task: &u32| matches!(self.tasks[task as usize].state, TaskState::Done | TaskState::Failed);
        !self.externals[external as usize].readers.iter().all(finished)
    }

    /// Takes a task out of whatever ready set it is in, or from among those that wait for a publication.
    pub(super) fn unready(&mut self, task: u32) {
        if self.tasks[task as usize].state == TaskState::Publishing {
            self.publishing -= 1;
        } else {
            let position = self.position[task as usize];
            let demand = self.demand(task);
            if demand > 0 {
                let special = &mut self.special[demand as usize - 1];
                special.ready.remove(&position);
                if special.ready.is_empty() {
                    special.since = None;
                }
            } else if !self.ready.remove(position) {
                for set in self.ready_on.values_mut() {
                    if set.remove(position) {
                        break;
                    }
                }
            }
        }
        self.tasks[task as usize].state = TaskState::Waiting;
    }

    /// Counts a task as finished, well or not.
    pub(super) fn finish(&mut self, task: u32, state: TaskState) {
        self.tasks[task as usize].state = state;
        self.unfinished -= 1;
        self.unfinished_of[self.class[task as usize] as usize] -= 1;
    }

    /// Counts a finished task as unfinished again.
    pub(super) fn reopen(&mut self, task: u32) {
        self.tasks[task as usize].state = TaskState::Waiting;
        self.unfinished += 1;
        self.unfinished_of[self.class[task as usize] as usize] += 1;
    }

    /// Whether a value that nobody needs is kept all the same.
    pub(super) fn keeps(&self, task: u32) -> bool {
        self.tasks[task as usize].supplied && !self.supplied.is_empty() && self.running()
    }

    /// Whether nothing refers to it any more.
    pub(super) fn over(&self) -> bool {
        self.held == 0 && self.runs == 0 && (self.unfinished == 0 || !self.running())
    }
}
