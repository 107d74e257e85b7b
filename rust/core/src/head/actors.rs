//! Actors: from their making to their end.
//!
//! An actor is the object that its creation task makes. It lives in the worker that ran the task, which runs nothing but
//! its calls from then on, and as long as somebody holds the object: a handle does, a call that has not ended does. If
//! the worker dies, the object is gone, and lineage makes it again, as often as it may.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::graph::TaskState;
use super::{Head, Role};
use crate::ids::{GraphId, ObjectId, PeerId, WorkerId};
use crate::message::{ActorDeath, ActorEnd, ActorName, ActorSpec, Failure, FailureKind, GraphKind, GraphSpec};
use crate::message::{Refusal, ToDriver, ToNode};

/// So long may an actor be made of which nobody holds the object any more, in ns: then its worker is killed, as nobody will
/// ever know. Ray waits as long before it kills such an actor.
const UNHELD_NS: u64 = 30_000_000_000;

/// An actor that may still do something.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) spec: ActorSpec,
    /// Who makes it or is it.
    pub(super) worker: Option<WorkerId>,
    /// It is made.
    pub(super) alive: bool,
    /// How often it was made again.
    restarts: u32,
    /// By caller: graphs with calls that no run has.
    pub(super) lanes: BTreeMap<PeerId, BTreeSet<GraphId>>,
}

impl Actor {
    /// Whether it is made again if its worker dies.
    pub(super) fn may_restart(&self) -> bool {
        self.restarts < self.spec.max_restarts || self.spec.max_restarts == u32::MAX
    }
}

/// What to know of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorInfo {
    /// Its object.
    pub actor: ObjectId,
    /// Its name.
    pub name: Option<ActorName>,
    /// Its worker.
    pub worker: Option<WorkerId>,
    /// It is made, and can be called.
    pub alive: bool,
    /// How often it was made again.
    pub restarts: u32,
    /// It lives though nobody holds it.
    pub detached: bool,
}

impl Head {
    /// The actors there are.
    pub fn actors(&self) -> impl Iterator<Item = ActorInfo> + '_ {
        self.actors.iter().map(|(&actor, record)| ActorInfo {
            actor,
            name: record.spec.name.clone(),
            worker: record.worker,
            alive: record.alive,
            restarts: record.restarts,
            detached: record.spec.detached,
        })
    }

    /// Whether a worker is an actor's.
    pub fn is_actors(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.role != Role::Pool)
    }

    /// Whether a graph of actors or calls fits together.
    pub(super) fn check_kind(&self, spec: &GraphSpec) -> Result<(), Refusal> {
        let len = spec.inputs.len() as u32;
        let demand = |&class: &u32| spec.classes.get(class as usize).map_or(0, |class| class.demand);
        match &spec.kind {
            GraphKind::Computation | GraphKind::Independent => Ok(()),
            GraphKind::Actor(_) if len == 1 && spec.class.iter().all(|class| demand(class) > 0) => Ok(()),
            GraphKind::Actor(_) => Err(Refusal::MalformedGraph("an actor is made by one task that demands something")),
            GraphKind::Calls => {
                let reads = (0..len).all(|task| spec.inputs.row(task).contains(&len));
                if spec.externals.is_empty() || !reads || spec.class.iter().any(|class| demand(class) > 0) {
                    return Err(Refusal::MalformedGraph("calls read their actor and demand nothing"));
                }
                let actor = spec.externals[0];
                if actor.index > 0
                    || actor.graph.seq == 0
                    || self.graphs.get(&actor.graph).is_some_and(|graph| !graph.is_actor())
                {
                    return Err(Refusal::MalformedGraph("what is called is no actor"));
                }
                Ok(())
            }
        }
    }

    /// A graph that makes an actor was submitted.
    pub(super) fn on_new_actor(&mut self, id: GraphId, spec: ActorSpec) {
        let actor = ObjectId { graph: id, index: 0 };
        if let Some(name) = &spec.name {
            if self.names.contains_key(name) {
                self.fail_tasks(id, Vec::from([(0, died(actor, ActorEnd::NameTaken, 0))]));
                return;
            }
            self.names.insert(name.clone(), actor);
        }
        if spec.detached {
            self.add_holder(actor);
            self.graphs.get_mut(&id).expect("it was submitted just now").detached = true;
        }
        let record = Actor { spec, worker: None, alive: false, restarts: 0, lanes: BTreeMap::new() };
        self.actors.insert(actor, record);
    }

    /// A worker is given the task that makes an actor.
    pub(super) fn on_making(&mut self, id: GraphId, worker: WorkerId) {
        let actor = ObjectId { graph: id, index: 0 };
        self.workers.get_mut(&worker).expect("the chosen worker exists").role = Role::Making(actor);
        if let Some(record) = self.actors.get_mut(&actor) {
            record.worker = Some(worker);
        }
        self.end_if_released(actor);
    }

    /// An actor is made, or the run is over that should have made it.
    pub(super) fn on_made(&mut self, worker_id: WorkerId, actor: ObjectId, over: bool) {
        let made = self.graphs.get(&actor.graph).is_some_and(|graph| graph.tasks[0].state == TaskState::Done);
        let Some(record) = self.actors.get_mut(&actor).filter(|record| record.worker == Some(worker_id) && made) else {
            // It has failed, or was killed or let go meanwhile.
            if over {
                self.dismiss(worker_id);
            }
            return;
        };
        if core::mem::replace(&mut record.alive, true) {
            return;
        }
        self.stirred.insert(actor);
        let cpu = record.spec.cpu;
        let worker = self.workers.get_mut(&worker_id).expect("the worker that reported exists");
        worker.role = Role::Actor(actor);
        if let Some(holding) = &mut worker.holding {
            holding.need.cpu = cpu;
        }
        self.end_if_released(actor);
    }

    /// The worker of an actor that is no more ends, too.
    fn dismiss(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Some(holding) = worker.holding.take() {
            self.resources.give_back(&holding);
        }
        if !core::mem::replace(&mut worker.stopping, true) {
            self.want_less();
            self.to_node(ToNode::Stop(id));
        }
    }

    fn want_less(&mut self) {
        self.wanted = self.wanted.saturating_sub(1).max(self.config.slots);
        self.to_node(ToNode::Want(self.wanted));
    }

    /// Nobody may hold an actor any more, and all that it was asked is done. One that is not made yet is made first.
    pub(super) fn end_if_released(&mut self, actor: ObjectId) {
        let Some(record) = self.actors.get(&actor).filter(|_| !self.is_held(actor)) else { return };
        if record.alive {
            self.end_actor(actor, ActorEnd::Released);
        } else if record.worker.is_some() {
            self.unheld.push(actor);
        }
    }

    /// Whether somebody holds an actor.
    fn is_held(&self, actor: ObjectId) -> bool {
        self.graphs.get(&actor.graph).is_some_and(|graph| graph.objects[0].holders > 0)
    }

    /// Actors that are being made have lost their last holder: that may not take for ever.
    pub(super) fn watch_unheld(&mut self, now: u64) {
        for actor in core::mem::take(&mut self.unheld) {
            let worker = self.actors.get(&actor).filter(|record| !record.alive).and_then(|record| record.worker);
            if let Some(worker) = worker.and_then(|id| self.workers.get_mut(&id)) {
                worker.kill_at.get_or_insert(now + UNHELD_NS);
            }
        }
    }

    /// Ends an actor that is still being made for nobody.
    pub(super) fn end_if_unheld(&mut self, worker: WorkerId) {
        let Some(Role::Making(actor)) = self.workers.get(&worker).map(|worker| worker.role) else { return };
        if !self.is_held(actor) {
            self.end_actor(actor, ActorEnd::Released);
        }
    }

    /// An actor ends for good.
    fn end_actor(&mut self, actor: ObjectId, end: ActorEnd) {
        let Some(record) = self.actors.remove(&actor) else { return };
        self.stirred.remove(&actor);
        if let Some(name) = &record.spec.name {
            self.names.remove(name);
        }
        if let Some(id) = record.worker {
            if let Some(worker) = self.workers.get_mut(&id) {
                let gently = matches!(end, ActorEnd::Released) && worker.flights.is_empty();
                if gently {
                    self.dismiss(id);
                } else if !matches!(end, ActorEnd::Init { .. }) && !core::mem::replace(&mut worker.stopping, true) {
                    self.want_less();
                    self.to_node(ToNode::Kill(id));
                }
            }
        }
        self.fail_tasks(actor.graph, Vec::from([(0, died(actor, end, record.restarts))]));
        let Some(graph) = self.graphs.get_mut(&actor.graph) else { return };
        if core::mem::take(&mut graph.detached) {
            self.drop_holders(&[actor]);
        }
        self.release_lineage(actor.graph);
        self.remove_if_over(actor.graph);
    }

    /// The task that makes an actor has failed, for this reason.
    pub(super) fn on_not_made(&mut self, actor: ObjectId, failure: &Failure) {
        if let FailureKind::Raised { error, .. } = &failure.kind {
            self.end_actor(actor, ActorEnd::Init { error: error.clone() });
        }
    }

    /// The task that makes an actor has failed, and says why.
    pub(super) fn forget_actor(&mut self, actor: ObjectId) {
        let Some(record) = self.actors.remove(&actor) else { return };
        self.stirred.remove(&actor);
        if let Some(name) = &record.spec.name {
            self.names.remove(name);
        }
        // A constructor need not end by itself.
        let making = record.worker.and_then(|id| Some((id, self.workers.get_mut(&id)?)));
        if let Some((id, worker)) = making.filter(|(_, worker)| worker.busy()) {
            if !core::mem::replace(&mut worker.stopping, true) {
                self.want_less();
                self.to_node(ToNode::Kill(id));
            }
        }
        let Some(graph) = self.graphs.get_mut(&actor.graph) else { return };
        if core::mem::take(&mut graph.detached) {
            self.drop_holders(&[actor]);
        }
    }

    pub(super) fn on_kill_actor(&mut self, peer: PeerId, actor: ObjectId, restart: bool) {
        let Some(record) = self.actors.get_mut(&actor) else { return };
        match record.worker {
            Some(worker) if !restart && peer == PeerId::of_worker(worker) => self.end_actor(actor, ActorEnd::Exited),
            Some(id) if restart => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.killed = true;
                }
                self.to_node(ToNode::Kill(id));
            }
            // Nothing is to be ended yet, but one that may not be made again is not made at all.
            None if restart && record.may_restart() => record.restarts = record.restarts.saturating_add(1),
            _ => self.end_actor(actor, ActorEnd::Killed),
        }
    }

    pub(super) fn on_find_actor(&mut self, peer: PeerId, token: u64, name: &ActorName) -> Result<(), Refusal> {
        let actor = self.names.get(name).copied();
        if let Some(actor) = actor {
            self.hold(peer, actor)?;
        }
        self.to_driver(peer, ToDriver::Found { token, object: actor });
        Ok(())
    }

    /// The worker of an actor has died. It is made again, if it may; else it has ended.
    pub(super) fn on_actor_down(&mut self, actor: ObjectId, worker: WorkerId, end: ActorEnd, amid: bool) {
        // One that could not make it and was let go for that is none of it.
        let record = self.actors.get_mut(&actor).filter(|record| record.worker == Some(worker));
        let Some(record) = record else { return };
        record.worker = None;
        let was_alive = core::mem::take(&mut record.alive);
        if !was_alive && !amid && !matches!(end, ActorEnd::Killed) {
            // Its making had not begun.
            return;
        }
        if !record.may_restart() {
            self.end_actor(actor, end);
            return;
        }
        record.restarts = record.restarts.saturating_add(1);
        if was_alive {
            let graph = self.graphs.get_mut(&actor.graph).expect("an actor's graph exists");
            if graph.objects[0].place.take().is_some() {
                self.free(Vec::from([actor]), Vec::new());
            }
            self.on_gone(Vec::from([actor]));
        }
    }

    /// How often the actor was made again that a graph calls, if it calls one.
    pub(super) fn restarts_of_called(&self, id: GraphId) -> Option<u32> {
        let graph = self.graphs.get(&id).filter(|graph| graph.is_calls())?;
        Some(self.actors.get(&graph.externals[0].object).map_or(0, |record| record.restarts))
    }
}

fn died(origin: ObjectId, end: ActorEnd, restarts: u32) -> Failure {
    Failure { origin, kind: actor_died(end, restarts) }
}

pub(super) fn actor_died(end: ActorEnd, restarts: u32) -> FailureKind {
    FailureKind::ActorDied(Box::new(ActorDeath { end, restarts }))
}
