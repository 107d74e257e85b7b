//! The whole-state checker: what must be true of a head between two events. For tests and the simulation.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::graph::{Graph, TaskState};
use super::{FxMap, Head, Role, Watcher};
use crate::ids::{GraphId, ObjectId};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(Violation(format!($($text)+)));
        }
    };
}

impl Head {
    /// Checks every invariant of the head's tables. Slow: linear in all that there is.
    pub fn check(&self) -> Result<(), Violation> {
        let mut holders: FxMap<ObjectId, u32> = FxMap::default();
        for peer in self.peers.values() {
            for (&object, &count) in &peer.holds {
                *holders.entry(object).or_insert(0) += count;
            }
        }
        for graph in self.graphs.values() {
            for external in graph.externals.iter().filter(|e| e.held) {
                *holders.entry(external.object).or_insert(0) += 1;
            }
        }
        let contained = self.graphs.values().flat_map(|graph| &graph.contained);
        let detached = self.graphs.iter().filter(|(_, graph)| graph.detached);
        let detached = detached.map(|(&graph, _)| ObjectId { graph, index: 0 }).collect::<alloc::vec::Vec<_>>();
        for object in self.contents.values().flatten().chain(contained).chain(&detached) {
            *holders.entry(*object).or_insert(0) += 1;
        }
        for (stream, found) in &self.streams {
            for part in &found.parts {
                *holders.entry(*part).or_insert(0) += 1;
            }
            let graph = self.graphs.get(&stream.graph);
            let held = graph.is_some_and(|g| g.objects.get(stream.index as usize).is_some_and(|o| o.holders > 0));
            ensure!(held, "{stream:?} has parts, and nobody holds it");
            ensure!(
                found.who_waits().next().is_none() || self.status(*stream).is_none(),
                "{stream:?} is over and waited for"
            );
        }
        ensure!(self.loose.is_empty(), "objects are not let go");
        ensure!(self.broken.is_empty(), "graphs do not know that their inputs have failed");
        for object in self.contents.keys() {
            let exists = self.puts.contains_key(object) || self.is_published(*object);
            ensure!(exists, "{object:?} is gone and holds others");
        }
        self.check_actors()?;
        for (&object, put) in &self.puts {
            let found = holders.get(&object).copied().unwrap_or(0);
            ensure!(put.holders == found, "{object:?} counts {} holders of {found}", put.holders);
            ensure!(put.holders > 0, "{object:?} is kept for nobody");
        }
        for (&id, graph) in &self.graphs {
            self.check_graph(id, graph, &holders)?;
        }
        for (&worker_id, worker) in &self.workers {
            let nexts = self.streams.values().flat_map(super::streams::Stream::who_waits);
            let nexts = nexts.filter(|peer| peer.worker() == Some(worker_id)).count();
            let waits = self.waits.values().filter(|w| w.peer.worker() == Some(worker_id)).count() + nexts;
            let ahead = self.streams.values().flat_map(|found| &found.ahead);
            let ahead = ahead.filter(|question| question.peer.worker() == Some(worker_id)).count();
            ensure!(worker.ahead as usize == ahead, "{worker_id:?} counts {} of being ahead", worker.ahead);
            ensure!(worker.waits as usize == waits, "{worker_id:?} counts {} waits of {waits}", worker.waits);
            for flight in &worker.flights {
                let graph = self.graphs.get(&flight.graph);
                ensure!(graph.is_some(), "{worker_id:?} runs tasks of {:?}, which is gone", flight.graph);
                let Some(graph) = graph else { continue };
                ensure!(
                    flight.upto <= flight.limit,
                    "{worker_id:?} run {} has ended tasks beyond its limit",
                    flight.seq
                );
                for &task in &flight.tasks[flight.upto as usize..flight.limit as usize] {
                    let record = &graph.tasks[task as usize];
                    let killed = graph.stands_alone() && record.state == TaskState::Failed;
                    ensure!(
                        killed || (record.state == TaskState::Assigned && record.cut == flight.cut),
                        "task {task} of {:?} is in run {} of {worker_id:?} and {:?}",
                        flight.graph,
                        flight.seq,
                        record.state
                    );
                }
            }
            let special = worker.flights.iter().find(|f| f.demand > 0);
            let actor = worker.role != Role::Pool;
            ensure!(
                actor
                    || worker.holding.is_some() == special.is_some()
                        && (special.is_none() || worker.flights.len() == 1),
                "{worker_id:?} holds {:?}",
                worker.holding
            );
            for object in &worker.kept {
                let record = self.graphs.get(&object.graph).map(|g| g.objects[object.index as usize]);
                ensure!(record.is_some_and(|r| r.needed()), "{worker_id:?} keeps {object:?} for nobody");
            }
        }
        for (object, watchers) in &self.watchers {
            ensure!(self.status(*object).is_none(), "{object:?} has ended and is watched");
            ensure!(!watchers.is_empty(), "{object:?} is watched by nobody");
            for watcher in watchers {
                let wants = match watcher {
                    Watcher::Wait(id) => self.waits.get(id).is_some_and(|wait| wait.objects.contains(object)),
                    Watcher::Graph(id, k) => self.graphs.get(id).is_some_and(|graph| {
                        let external = &graph.externals[*k as usize];
                        external.object == *object && external.held && !external.available
                    }),
                };
                ensure!(wants, "{object:?} is watched by {watcher:?}, which does not wait for it");
                if let Watcher::Graph(..) = watcher {
                    let times = watchers.iter().filter(|other| *other == watcher).count();
                    ensure!(times == 1, "{object:?} is watched by {watcher:?} {times} times");
                }
            }
        }
        for (&id, wait) in &self.waits {
            let ended = wait.objects.iter().filter(|o| self.status(**o).is_some()).count();
            ensure!(wait.ended as usize == ended, "question {id} counts {} ended of {ended}", wait.ended);
            ensure!(wait.ended < wait.need, "question {id} is not answered");
        }
        for (rank, id) in &self.queue {
            let graph = self.graphs.get(id);
            ensure!(
                graph.is_some_and(|g| g.rank == *rank && g.running() && g.unfinished > 0 && !g.is_calls()),
                "{id:?} is queued without need"
            );
        }
        for &id in self.queue.values() {
            ensure!(
                !self.graphs[&id].has_ready() || self.ready.contains(id, &self.graphs[&id]),
                "{id:?} has tasks to assign and is not looked at"
            );
        }
        let demanding = self.ready.iter().filter(|(.., asks)| asks.special).count();
        let light = self.ready.iter().filter(|(.., asks)| asks.light).count();
        ensure!(self.ready.light as usize == light, "{} graphs of {light} ask for less than a CPU", self.ready.light);
        ensure!(
            self.ready.demanding as usize == demanding,
            "{} graphs of {demanding} have demands",
            self.ready.demanding
        );
        let spreads = self.graphs.iter().filter_map(|(&id, graph)| Some((graph.spread_at?, id)));
        ensure!(
            spreads.collect::<alloc::collections::BTreeSet<_>>() == self.spreads,
            "{:?} are to be looked at",
            self.spreads
        );
        let nested = self.deepest();
        ensure!(
            self.wanted <= self.config.max_workers.max(self.config.slots) + self.workers.len() as u32,
            "{} workers are wanted, depth {nested}",
            self.wanted
        );
        let held = self.resources.free_beside(self.workers.values().filter_map(|w| w.holding.as_ref()));
        ensure!(held.is_some(), "more is held than there is");
        let (free, gpus) = self.resources.free();
        ensure!(held == Some((free, gpus.to_vec())), "what is free is miscounted");
        Ok(())
    }

    fn check_actors(&self) -> Result<(), Violation> {
        for (&actor, record) in &self.actors {
            let graph = self.graphs.get(&actor.graph);
            let state = graph.map(|graph| graph.tasks[0].state);
            ensure!(
                state.is_some_and(|state| state != TaskState::Failed && (state == TaskState::Done) == record.alive),
                "{actor:?} is alive: {}, and its task {state:?}",
                record.alive
            );
            let role = record.worker.map(|id| self.workers.get(&id).map(|worker| worker.role));
            let expected = if record.alive { Role::Actor(actor) } else { Role::Making(actor) };
            ensure!(role.is_none_or(|role| role == Some(expected)), "{actor:?} is in a worker of {role:?}");
            ensure!(record.worker.is_some() || !record.alive, "{actor:?} lives nowhere");
            for (peer, lane) in &record.lanes {
                for id in lane {
                    let graph = self.graphs.get(id);
                    ensure!(id.peer == *peer, "{id:?} is in the lane of {peer:?}");
                    ensure!(
                        graph.is_some_and(|g| g.running() && g.next_call() < g.len() && g.externals[0].object == actor),
                        "{id:?} waits for {actor:?} without need"
                    );
                }
            }
            ensure!(!self.overlooks(actor), "{actor:?} has calls that could start");
        }
        for (&id, graph) in self.graphs.iter().filter(|(_, graph)| graph.is_calls() && graph.running()) {
            let open = |&&task: &&u32| {
                matches!(
                    graph.tasks[task as usize].state,
                    TaskState::Waiting | TaskState::Ready | TaskState::Publishing
                )
            };
            let first = graph.at.iter().position(|task| open(&task)).map_or(graph.len(), |at| at as u32);
            ensure!(first == graph.next_call(), "{id:?} has its next call at {first}, not {}", graph.next_call());
            let record = self.actors.get(&graph.externals[0].object);
            let lined_up = record.is_some_and(|r| r.lanes.get(&id.peer).is_some_and(|lane| lane.contains(&id)));
            ensure!(lined_up == (first < graph.len()), "{id:?} is lined up: {lined_up}");
        }
        for name in self.names.values() {
            ensure!(self.actors.contains_key(name), "{name:?} has a name and is no more");
        }
        Ok(())
    }

    fn check_graph(&self, id: GraphId, graph: &Graph, holders: &FxMap<ObjectId, u32>) -> Result<(), Violation> {
        let len = graph.len();
        ensure!(!graph.over(), "{id:?} is over and still there");
        let queued = self.queue.get(&graph.rank) == Some(&id);
        ensure!(queued == (graph.running() && graph.unfinished > 0 && !graph.is_calls()), "{id:?} is queued: {queued}");
        let runs = self.workers.values().flat_map(|w| &w.flights).filter(|f| f.graph == id).count();
        ensure!(graph.runs as usize == runs, "{id:?} counts {} runs of {runs}", graph.runs);
        let (mut unfinished, mut held, mut ready) = (0, 0, 0);
        let mut unfinished_of = vec![0; graph.classes.len()];
        for task in 0..len {
            let record = &graph.tasks[task as usize];
            let object = &graph.objects[task as usize];
            let finished = matches!(record.state, TaskState::Done | TaskState::Failed);
            if !finished {
                unfinished += 1;
                unfinished_of[graph.class[task as usize] as usize] += 1;
            }
            held += u32::from(object.holders > 0);
            let found = holders.get(&ObjectId { graph: id, index: task }).copied().unwrap_or(0);
            ensure!(object.holders == found, "object {task} of {id:?} counts {} holders of {found}", object.holders);
            if let Some(worker) = object.resident {
                ensure!(self.workers.contains_key(&worker), "object {task} of {id:?} is in {worker:?}, which is gone");
            }
            ensure!(!object.asked || object.resident.is_some(), "object {task} of {id:?} is asked of nobody");
            if !graph.running() {
                continue;
            }
            let unread =
                |next: &&u32| !matches!(graph.tasks[**next as usize].state, TaskState::Done | TaskState::Failed);
            let consumers = graph.dependents.row(task).iter().filter(unread).count();
            ensure!(
                object.consumers as usize == consumers,
                "object {task} of {id:?} counts {} of {consumers}",
                object.consumers
            );
            ensure!(
                record.state != TaskState::Done || !object.needed() || object.made(),
                "object {task} of {id:?} is needed, was made, and is gone"
            );
            if !finished {
                let missing = graph.inputs.row(task).iter().filter(|&&input| {
                    if input < len {
                        !graph.objects[input as usize].made()
                    } else {
                        !graph.externals[(input - len) as usize].available
                    }
                });
                let missing = missing.count();
                ensure!(
                    record.missing as usize == missing,
                    "task {task} of {id:?} counts {} of {missing} missing",
                    record.missing
                );
            }
            let position = graph.position[task as usize];
            let mut sets = u32::from(graph.ready.contains(position));
            sets += graph.ready_on.values().filter(|set| set.contains(position)).count() as u32;
            let special = graph.special.iter().position(|special| special.ready.contains(&position));
            ensure!(
                special.is_none_or(|k| graph.demand(task) == k as u32 + 1),
                "task {task} of {id:?} is among those of demand {special:?}"
            );
            ensure!(
                sets == 0 || graph.demand(task) == 0,
                "task {task} of {id:?}, of demand {}, is among those of none",
                graph.demand(task)
            );
            sets += u32::from(special.is_some());
            ensure!(
                sets == u32::from(record.state == TaskState::Ready),
                "task {task} of {id:?}, {:?}, is in {sets} ready sets",
                record.state
            );
            ready += sets;
            match record.state {
                TaskState::Waiting => {
                    ensure!(
                        record.missing > 0 || position >= graph.admitted,
                        "task {task} of {id:?} waits for nothing"
                    );
                }
                TaskState::Publishing => ensure!(
                    graph.inputs.row(task).iter().any(|&i| i < len && graph.objects[i as usize].asked),
                    "task {task} of {id:?} waits for a publication nobody was asked for"
                ),
                _ => {}
            }
        }
        if graph.running() {
            for (k, external) in (0u32..).zip(&graph.externals) {
                let object = external.object;
                ensure!(
                    external.held || external.failed.is_some() || !graph.has_unfinished_reader(k),
                    "{id:?} has yet to read {object:?} and does not hold it"
                );
                let watched = self.watchers.get(&object).is_some_and(|w| w.contains(&Watcher::Graph(id, k)));
                ensure!(
                    watched == (external.held && !external.available),
                    "{id:?} watches {object:?}, which is held: {}, and there: {}",
                    external.held,
                    external.available
                );
            }
        }
        let counted: u32 = graph.ready.len()
            + graph.ready_on.values().map(super::positions::Positions::len).sum::<u32>()
            + graph.special.iter().map(|special| special.ready.len() as u32).sum::<u32>();
        ensure!(ready == counted, "{id:?} counts {counted} ready of {ready}");
        ensure!(graph.unfinished == unfinished, "{id:?} counts {} unfinished of {unfinished}", graph.unfinished);
        ensure!(graph.unfinished_of == unfinished_of, "{id:?} miscounts its classes");
        let publishing = graph.tasks.iter().filter(|t| t.state == TaskState::Publishing).count();
        ensure!(graph.publishing as usize == publishing, "{id:?} counts {} of {publishing}", graph.publishing);
        ensure!(graph.held == held, "{id:?} counts {} held of {held}", graph.held);
        Ok(())
    }
}
