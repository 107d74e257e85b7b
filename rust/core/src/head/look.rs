//! What a user may see of the head: graphs, tasks, objects, and who holds these. Nothing here changes anything.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::iter;

use super::graph::{Graph, Standing, TaskState};
use super::{Amounts, FxMap, Head, Worker};
use crate::graph::Csr;
use crate::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use crate::message::{ActorEnd, Failure, FailureKind, GraphKind, Place, WHOLE};

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStanding {
    /// Inputs of it are not made, or are where no other task can read them.
    Waits,
    /// It could run.
    Ready,
    /// A run of this worker has it.
    Assigned(WorkerId),
    /// The same, behind tasks that make what it reads, as far as the worker has told.
    Follows(WorkerId),
    /// It has begun in this worker and goes on outside of a run.
    Deferred(WorkerId),
    /// It has run, or its value was supplied.
    Done,
    /// It will not run any more.
    Failed,
}

/// What to know of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskView<'a> {
    /// How it stands.
    pub standing: TaskStanding,
    /// How often it was begun, as far as that is known: attempts after which it was run again count.
    pub attempts: u32,
    /// Why it has failed, if it has; of the task that made an actor, why the actor is gone.
    pub failure: Option<&'a Failure>,
    /// Its class.
    pub class: u32,
}

/// Which worker has each assigned task of the graphs, and which of them are deferred.
#[derive(Debug, Default)]
pub struct Whereabouts(FxMap<ObjectId, (WorkerId, bool)>);

/// A graph, as long as it is known.
#[derive(Clone, Copy, Debug)]
pub struct GraphView<'a> {
    id: GraphId,
    graph: &'a Graph,
}

/// A graph to which nothing refers any more.
#[derive(Debug)]
pub struct EndedGraph {
    id: GraphId,
    graph: Graph,
}

/// What the tasks of a graph read.
#[derive(Clone, Debug)]
pub struct Edges {
    id: GraphId,
    inputs: Csr,
    externals: Vec<ObjectId>,
    class: Vec<u32>,
}

impl Edges {
    /// The graph.
    pub fn id(&self) -> GraphId {
        self.id
    }

    /// What a task reads.
    pub fn inputs(&self, task: u32) -> impl Iterator<Item = ObjectId> + '_ {
        let len = self.class.len() as u32;
        let row = if task < len { self.inputs.row(task) } else { &[] };
        row.iter().map(move |&input| match input.checked_sub(len) {
            None => ObjectId { graph: self.id, index: input },
            Some(external) => self.externals[external as usize],
        })
    }

    /// The class of a task, if there is one of this number.
    pub fn class(&self, task: u32) -> Option<u32> {
        self.class.get(task as usize).copied()
    }
}

/// What to know of an object that is made, or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// It.
    pub object: ObjectId,
    /// Where its published bytes are.
    pub place: Option<Place>,
    /// The worker that has it as a Python object.
    pub resident: Option<WorkerId>,
    /// Tasks of its graph that read it and are not done.
    pub consumers: u32,
    /// How many hold it: peers, graphs, values, streams.
    pub holders: u32,
    /// The peers among these.
    pub peers: Vec<PeerId>,
    /// How its task stands; `None` of one that was put.
    pub task: Option<TaskStanding>,
}

/// What to know of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// The actor that it makes or is.
    pub actor: Option<ObjectId>,
    /// Its task waits for a computation of its own.
    pub blocked: bool,
    /// Nesting of what it runs.
    pub depth: Option<u32>,
    /// How many results it keeps.
    pub kept: u32,
}

/// Graphs that are over, until they are taken.
#[derive(Debug, Default)]
pub(super) struct Ended(VecDeque<EndedGraph>);

impl Ended {
    pub(super) fn add(&mut self, id: GraphId, mut graph: Graph) {
        // Only what can be looked at is kept.
        graph.objects = Vec::new();
        graph.position = Vec::new();
        graph.at = Vec::new();
        graph.scratch = Vec::new();
        graph.dependents = Csr::new();
        for external in &mut graph.externals {
            external.readers = Vec::new();
        }
        self.0.push_back(EndedGraph { id, graph });
    }
}

impl Head {
    /// The graphs there are.
    pub fn graphs(&self) -> impl Iterator<Item = GraphView<'_>> + '_ {
        self.graphs.iter().map(|(&id, graph)| GraphView { id, graph })
    }

    /// A graph, if it is known.
    pub fn graph(&self, id: GraphId) -> Option<GraphView<'_>> {
        self.graphs.get(&id).map(|graph| GraphView { id, graph })
    }

    /// The graph that was over first among those that were not taken: of each there is one
    /// [`Forget`](crate::message::ToNode::Forget), in the same order.
    pub fn take_ended(&mut self) -> Option<EndedGraph> {
        self.ended.0.pop_front()
    }

    /// Where the assigned tasks are.
    pub fn whereabouts(&self) -> Whereabouts {
        let mut map = FxMap::default();
        for (&id, worker) in &self.workers {
            for flight in &worker.flights {
                let limit = (flight.limit as usize).min(flight.tasks.len());
                for &index in flight.tasks.get(flight.upto as usize..limit).unwrap_or_default() {
                    map.insert(ObjectId { graph: flight.graph, index }, (id, false));
                }
            }
            map.extend(worker.deferred.iter().map(|&object| (object, (id, true))));
        }
        Whereabouts(map)
    }

    /// The task at a place of a run that is in flight.
    pub fn task_of(&self, run: RunId, index: u32) -> Option<ObjectId> {
        let flight = self.workers.get(&run.worker)?.flights.iter().find(|flight| flight.seq == run.seq)?;
        Some(ObjectId { graph: flight.graph, index: *flight.tasks.get(index as usize)? })
    }

    /// What a worker is for, if it is up.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView> {
        let worker = self.workers.get(&id)?;
        Some(WorkerView {
            actor: worker.actor(),
            blocked: worker.blocked(),
            depth: worker.depth(),
            kept: worker.kept.len() as u32,
        })
    }

    /// What a class of a graph demands, by name, in units of 1 / [`WHOLE`]. Nothing of calls of actors.
    pub fn demand_of(&self, graph: GraphView<'_>, class: u32) -> Amounts {
        let demand = graph.graph.classes.get(class as usize).map_or(0, |class| class.demand);
        if demand == 0 {
            let cpu = if graph.graph.is_calls() { 0 } else { WHOLE };
            return iter::once(("CPU".into(), cpu)).filter(|(_, cpu)| *cpu > 0).collect();
        }
        let Some(special) = graph.graph.special.get(demand as usize - 1) else { return Vec::new() };
        let others = special.need.others.iter().map(|&(number, amount)| (self.resources.name(number), amount));
        iter::once(("CPU".into(), special.need.cpu)).chain(others).filter(|(_, amount)| *amount > 0).collect()
    }

    /// Objects that are made, or held: at most `most`, and how many there are.
    pub fn objects(&self, most: usize) -> (Vec<ObjectInfo>, u64) {
        let mut found = Vec::new();
        let mut total = 0;
        let mut add = |info: &dyn Fn() -> ObjectInfo| {
            total += 1;
            if found.len() < most {
                found.push(info());
            }
        };
        let mut puts: Vec<_> = self.puts.iter().collect();
        puts.sort_unstable_by_key(|(object, _)| **object);
        for (&object, put) in puts {
            let place = Some(put.place);
            let (holders, peers) = (put.holders, Vec::new());
            add(&|| ObjectInfo {
                object,
                place,
                resident: None,
                consumers: 0,
                holders,
                peers: peers.clone(),
                task: None,
            });
        }
        let whereabouts = self.whereabouts();
        for graph in self.graphs() {
            for (index, record) in (0u32..).zip(&graph.graph.objects) {
                if record.holders > 0 || record.made() {
                    let object = ObjectId { graph: graph.id, index };
                    add(&|| ObjectInfo {
                        object,
                        place: record.place,
                        resident: record.resident,
                        consumers: record.consumers,
                        holders: record.holders,
                        peers: Vec::new(),
                        task: graph.task(index, &whereabouts).map(|task| task.standing),
                    });
                }
            }
        }
        let mut place_of: BTreeMap<ObjectId, usize> = BTreeMap::new();
        place_of.extend(found.iter().enumerate().map(|(place, info)| (info.object, place)));
        for (&peer, record) in &self.peers {
            for object in record.holds.keys() {
                if let Some(&place) = place_of.get(object) {
                    found[place].peers.push(peer);
                }
            }
        }
        (found, total)
    }
}

impl Worker {
    fn actor(&self) -> Option<ObjectId> {
        match self.role {
            super::Role::Pool => None,
            super::Role::Making(actor) | super::Role::Actor(actor) => Some(actor),
        }
    }
}

impl<'a> GraphView<'a> {
    /// Its id.
    pub fn id(self) -> GraphId {
        self.id
    }

    /// How many tasks it has.
    pub fn len(self) -> u32 {
        self.graph.len()
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// What is read by whom, as a copy.
    pub fn edges(self) -> Edges {
        let externals = self.graph.externals.iter().map(|external| external.object).collect();
        Edges { id: self.id, inputs: self.graph.inputs.clone(), externals, class: self.graph.class.clone() }
    }

    /// The class of a task, if there is one of this number.
    pub fn class(self, task: u32) -> Option<u32> {
        self.graph.class.get(task as usize).copied()
    }

    /// What its tasks are to each other.
    pub fn kind(self) -> &'a GraphKind {
        &self.graph.kind
    }

    /// The object that input number `input` stands for: see [`GraphSpec`](crate::message::GraphSpec).
    pub fn object(self, input: u32) -> ObjectId {
        self.graph.object_id(self.id, input)
    }

    /// What a task reads.
    pub fn inputs(self, task: u32) -> impl Iterator<Item = ObjectId> + 'a {
        let row = if task < self.len() { self.graph.inputs.row(task) } else { &[] };
        row.iter().map(move |&input| self.object(input))
    }

    /// The actor that its tasks call.
    pub fn called(self) -> Option<ObjectId> {
        self.graph.externals.first().filter(|_| self.graph.is_calls()).map(|external| external.object)
    }

    /// A task, if there is one of this number.
    pub fn task(self, task: u32, whereabouts: &Whereabouts) -> Option<TaskView<'a>> {
        let record = self.graph.tasks.get(task as usize)?;
        let over = match &self.graph.standing {
            Standing::Running => None,
            Standing::Ended(failure) => Some(failure),
        };
        let standing = match record.state {
            TaskState::Done => TaskStanding::Done,
            TaskState::Failed => TaskStanding::Failed,
            // A task whose run was taken back comes back with the next turn.
            TaskState::Assigned => match whereabouts.0.get(&ObjectId { graph: self.id, index: task }) {
                Some(&(worker, false)) if record.missing > 0 => TaskStanding::Follows(worker),
                Some(&(worker, false)) => TaskStanding::Assigned(worker),
                Some(&(worker, true)) => TaskStanding::Deferred(worker),
                None if over.is_some() => TaskStanding::Failed,
                None => TaskStanding::Ready,
            },
            _ if over.is_some() => TaskStanding::Failed,
            TaskState::Ready => TaskStanding::Ready,
            TaskState::Waiting | TaskState::Publishing => TaskStanding::Waits,
        };
        let begun = !matches!(standing, TaskStanding::Waits | TaskStanding::Ready | TaskStanding::Follows(_));
        let failure = self.graph.failures.get(&task).or(over).filter(|_| standing == TaskStanding::Failed);
        let attempts = u32::from(record.raised) + u32::from(record.deaths) + u32::from(begun);
        // An actor's object is gone with the actor, though the task that made it has done so.
        let made = failure.is_some_and(|failure| match &failure.kind {
            FailureKind::ActorDied(death) if failure.origin == (ObjectId { graph: self.id, index: task }) => {
                matches!(death.end, ActorEnd::Killed | ActorEnd::Exited | ActorEnd::Released)
            }
            _ => false,
        });
        let standing = if made { TaskStanding::Done } else { standing };
        Some(TaskView { standing, attempts, failure, class: self.graph.class[task as usize] })
    }
}

impl EndedGraph {
    /// How many failures it remembers.
    pub fn failures(&self) -> usize {
        self.graph.failures.len()
    }

    /// What it was.
    pub fn view(&self) -> GraphView<'_> {
        GraphView { id: self.id, graph: &self.graph }
    }
}
