//! What the session knows of actors beside what the head decides about them.

use std::collections::BTreeMap;

use bytes::Bytes;
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::{ActorName, GraphKind, GraphSpec};

use crate::program::Program;
use crate::shared::ActorInfo;

/// An actor.
#[derive(Debug)]
pub(super) struct Actor {
    name: Option<ActorName>,
    detached: bool,
    /// What those are told who look for it.
    meta: Bytes,
    /// Where it is, or is being made.
    worker: Option<WorkerId>,
}

impl Actor {
    /// What a graph makes, if that is an actor.
    pub(super) fn of(spec: &GraphSpec, program: &Program) -> Option<Self> {
        let GraphKind::Actor(actor) = &spec.kind else { return None };
        // What was read from a frame must not keep the whole frame alive.
        let meta = program.actor_meta.as_deref().map(Bytes::copy_from_slice).unwrap_or_default();
        Some(Self { name: actor.name.clone(), detached: actor.detached, meta, worker: None })
    }
}

/// The actors whose graph is not over, by the graph that makes them.
#[derive(Debug, Default)]
pub(super) struct Actors(BTreeMap<GraphId, Actor>);

impl Actors {
    /// A graph that makes an actor was submitted.
    pub(super) fn add(&mut self, graph: GraphId, actor: Actor) {
        self.0.insert(graph, actor);
    }

    /// A run of a graph goes to a worker.
    pub(super) fn assigned(&mut self, graph: GraphId, worker: WorkerId) {
        if let Some(actor) = self.0.get_mut(&graph) {
            actor.worker = Some(worker);
        }
    }

    /// A worker's process has ended.
    pub(super) fn worker_gone(&mut self, worker: WorkerId) {
        for actor in self.0.values_mut().filter(|actor| actor.worker == Some(worker)) {
            actor.worker = None;
        }
    }

    /// A graph is over.
    pub(super) fn forget(&mut self, graph: GraphId) {
        self.0.remove(&graph);
    }

    /// What those are told who look for an actor.
    pub(super) fn meta(&self, actor: ObjectId) -> Option<Bytes> {
        self.0.get(&actor.graph).map(|actor| actor.meta.clone())
    }

    /// Whether a worker has an actor, or makes one.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        self.0.values().any(|actor| actor.worker == Some(worker))
    }

    /// All of them.
    pub(super) fn infos(&self) -> Vec<ActorInfo> {
        let info = |(&graph, actor): (&GraphId, &Actor)| ActorInfo {
            actor: ObjectId { graph, index: 0 },
            name: actor.name.clone(),
            detached: actor.detached,
            worker: actor.worker.map(|worker| worker.0),
        };
        self.0.iter().map(info).collect()
    }
}
