//! What a user may see of a session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use eagleray_core::head::{ActorInfo, GraphView, TaskStanding, TaskView, Whereabouts};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::GraphKind;
use rustc_hash::FxHashMap;

use super::{Loop, Session, now_ns};
use crate::history::Timeline;
use crate::look::{Look, ObjectState, Phase, Snapshot, TaskCount, TaskKind, TaskState, WorkerState};
use crate::program::Value;
use crate::shared::{Input, SessionError};
use crate::wire;

/// Who wants to see how things stand, and what of it.
#[derive(Debug)]
pub(super) enum Inspection {
    /// Who has the session.
    Session(Look, SyncSender<Snapshot>),
    /// A driver role, with a question of this token.
    Peer(Look, PeerId, u64),
    /// Who has the session wants to see what ran when.
    Timeline(SyncSender<Option<Timeline>>),
}

impl Session {
    /// How things stand: after all that was sent before, and what follows from it at once. Waits for who leads.
    pub fn inspect(&self, look: Look) -> Result<Snapshot, SessionError> {
        let (asked, answer) = sync_channel(1);
        self.ask(Input::Inspect(look, asked), &answer)
    }

    /// What ran when, as far as it is remembered; `None` if that is not recorded.
    pub fn timeline(&self) -> Result<Option<Timeline>, SessionError> {
        let (asked, answer) = sync_channel(1);
        self.ask(Input::Timeline(asked), &answer)
    }

    fn ask<T>(&self, question: Input, answer: &Receiver<T>) -> Result<T, SessionError> {
        let seat = &self.shared().seat;
        seat.send(question, true)?;
        answer.recv().map_err(|_| seat.ended().unwrap_or(SessionError::Ended))
    }
}

/// What the pages say that runs, and since when.
type Running = FxHashMap<ObjectId, u64>;

/// What is common to all tasks that are looked at.
struct Scene {
    whereabouts: Whereabouts,
    running: Running,
}

impl Loop {
    pub(super) fn answer_inspections(&mut self) {
        for asked in std::mem::take(&mut self.inspections) {
            match asked {
                Inspection::Session(look, asked) => {
                    // Who does not wait any more needs no answer.
                    let _ = asked.send(self.snapshot(look));
                }
                Inspection::Timeline(asked) => {
                    let _ = asked.send(self.timeline());
                }
                Inspection::Peer(look, peer, token) => {
                    let nothing = ObjectId { graph: GraphId::puts(peer), index: u32::MAX };
                    let value = Value::Inline(wire::snapshot(&self.snapshot(look)));
                    self.send_answer(peer, token, vec![(nothing, Ok(value))]);
                }
            }
        }
    }

    fn timeline(&self) -> Option<Timeline> {
        let mut timeline = self.history.timeline();
        if let Some(timeline) = &mut timeline {
            let now = now_ns();
            let unfinished = self.pool.workers.values().flat_map(|worker| worker.past_runs(now));
            timeline.runs.extend(unfinished.map(Arc::new));
            let known = self.head.graphs().map(|graph| (graph.edges(), self.programs.names(graph.id()).to_vec()));
            timeline.graphs.extend(known);
        }
        timeline
    }

    fn snapshot(&self, look: Look) -> Snapshot {
        let (offered, free) = self.head.resources();
        let mut snapshot =
            Snapshot { offered, free, actors: self.head.actors().collect::<Vec<ActorInfo>>(), ..Snapshot::default() };
        snapshot.store_bytes = self.store_bytes;
        if look.workers {
            snapshot.counters = *self.shared.counters.lock();
            snapshot.workers = self.worker_states();
        }
        (snapshot.tasks_forgotten, snapshot.makers_forgotten) = self.history.forgotten();
        if look.tasks > 0 || look.makers > 0 || look.counts {
            let scene = Scene { whereabouts: self.head.whereabouts(), running: self.running() };
            (snapshot.tasks, snapshot.tasks_total) = self.task_states(look.tasks, look.phases, &scene, |_| true);
            (snapshot.makers, snapshot.makers_total) = self.task_states(look.makers, 0, &scene, is_maker);
            if look.counts {
                snapshot.counts = self.task_counts(&scene);
            }
        }
        if look.objects > 0 {
            let (objects, total) = self.head.objects(look.objects as usize);
            snapshot.objects_total = total;
            snapshot.objects =
                objects.into_iter().map(|info| ObjectState { name: self.name_of(info.object), info }).collect();
        }
        snapshot
    }

    /// What the workers run, as their pages say.
    fn running(&self) -> Running {
        let running = self.pool.workers.iter().filter_map(|(&id, worker)| self.runs_now(id, worker.runs_now()?));
        running.collect()
    }

    fn runs_now(&self, worker: WorkerId, (seq, index, since): (u32, u32, u64)) -> Option<(ObjectId, u64)> {
        Some((self.head.task_of(RunId { worker, seq }, index)?, since))
    }

    fn name_of(&self, object: ObjectId) -> Arc<str> {
        let class = self.head.graph(object.graph).and_then(|graph| graph.class(object.index));
        class.and_then(|class| self.programs.names(object.graph).get(class as usize).cloned()).unwrap_or_default()
    }

    fn worker_states(&self) -> Vec<WorkerState> {
        let past = self.pool.past().map(|(info, death)| WorkerState {
            info: info.clone(),
            actor: None,
            running: None,
            blocked: false,
            kept: 0,
            death: Some(death.clone()),
        });
        let present = self.pool.workers.iter().map(|(&id, worker)| {
            let seen = self.head.worker(id);
            WorkerState {
                info: worker.info().clone(),
                actor: seen.and_then(|seen| seen.actor),
                running: worker.runs_now().and_then(|running| self.runs_now(id, running)),
                blocked: seen.is_some_and(|seen| seen.blocked),
                kept: seen.map_or(0, |seen| seen.kept),
                death: None,
            }
        });
        past.chain(present).collect()
    }

    /// The graphs that are known, and those that are over, with the names of their classes.
    fn graphs(&self) -> impl Iterator<Item = (GraphView<'_>, &[Arc<str>])> + '_ {
        let known = self.head.graphs().map(|graph| (graph, self.programs.names(graph.id())));
        known.chain(self.history.graphs())
    }

    /// Tasks in these phases of the graphs that are `wanted`, at most `most`, and how many there are.
    fn task_states(
        &self,
        most: u32,
        phases: u32,
        scene: &Scene,
        wanted: impl Fn(GraphView<'_>) -> bool,
    ) -> (Vec<TaskState>, u64) {
        let mut states = Vec::new();
        let mut total = 0;
        if most == 0 {
            return (states, total);
        }
        for (graph, names) in self.graphs().filter(|(graph, _)| wanted(*graph)) {
            let left = (most - states.len() as u32) as usize;
            let state = |task| self.task_state(graph, names, task, scene);
            if phases == 0 {
                total += u64::from(graph.len());
                states.extend((0..graph.len()).take(left).filter_map(state));
                continue;
            }
            let fits = |&task: &u32| {
                let view = graph.task(task, &scene.whereabouts);
                view.is_some_and(|view| phases & self.phase(graph, task, &view, scene).bit() != 0)
            };
            let fitting: Vec<u32> = (0..graph.len()).filter(fits).collect();
            total += fitting.len() as u64;
            states.extend(fitting.into_iter().take(left).filter_map(state));
        }
        (states, total)
    }

    /// How many tasks of each name are in each phase.
    fn task_counts(&self, scene: &Scene) -> Vec<TaskCount> {
        let mut counts: BTreeMap<(Arc<str>, TaskKind, Phase), u64> = BTreeMap::new();
        for (graph, names) in self.graphs() {
            let mut by_class: Vec<[u64; Phase::ALL.len()]> = Vec::new();
            for task in 0..graph.len() {
                let Some(view) = graph.task(task, &scene.whereabouts) else { continue };
                let class = view.class as usize;
                if by_class.len() <= class {
                    by_class.resize(class + 1, [0; Phase::ALL.len()]);
                }
                by_class[class][self.phase(graph, task, &view, scene) as usize] += 1;
            }
            let kind = kind_of(graph);
            for (class, by_phase) in by_class.into_iter().enumerate() {
                let name = names.get(class).cloned().unwrap_or_default();
                for (phase, count) in Phase::ALL.into_iter().zip(by_phase).filter(|(_, count)| *count > 0) {
                    *counts.entry((Arc::clone(&name), kind, phase)).or_insert(0) += count;
                }
            }
        }
        let counts = counts.into_iter();
        counts.map(|((name, kind, phase), count)| TaskCount { name, kind, phase, count }).collect()
    }

    fn phase(&self, graph: GraphView<'_>, index: u32, task: &TaskView<'_>, scene: &Scene) -> Phase {
        let standing = task.standing;
        let may_run = matches!(standing, TaskStanding::Assigned(_) | TaskStanding::Follows(_));
        let running = may_run && scene.running.contains_key(&graph.object(index));
        Phase::of(standing, running, running && self.is_blocked(standing))
    }

    /// Whether the worker that has a task waits.
    fn is_blocked(&self, standing: TaskStanding) -> bool {
        let worker = match standing {
            TaskStanding::Assigned(worker) | TaskStanding::Follows(worker) | TaskStanding::Deferred(worker) => {
                self.head.worker(worker)
            }
            _ => None,
        };
        worker.is_some_and(|worker| worker.blocked)
    }

    fn task_state(&self, graph: GraphView<'_>, names: &[Arc<str>], index: u32, scene: &Scene) -> Option<TaskState> {
        let task = graph.task(index, &scene.whereabouts)?;
        let object = graph.object(index);
        let (mut actor_name, mut detached) = (None, false);
        let kind = kind_of(graph);
        if let GraphKind::Actor(spec) = graph.kind() {
            actor_name.clone_from(&spec.name);
            detached = spec.detached;
        }
        let running_since = scene.running.get(&object).copied();
        Some(TaskState {
            object,
            name: names.get(task.class as usize).cloned().unwrap_or_default(),
            kind,
            actor: if kind == TaskKind::Actor { Some(object) } else { graph.called() },
            actor_name,
            detached,
            standing: task.standing,
            running_since,
            blocked: running_since.is_some() && self.is_blocked(task.standing),
            attempts: task.attempts,
            failure: task.failure.cloned(),
            demand: self.head.demand_of(graph, task.class),
        })
    }
}

fn kind_of(graph: GraphView<'_>) -> TaskKind {
    match graph.kind() {
        GraphKind::Computation => TaskKind::Computation,
        GraphKind::Independent => TaskKind::Independent,
        GraphKind::Actor(_) => TaskKind::Actor,
        GraphKind::Calls => TaskKind::Call,
    }
}

fn is_maker(graph: GraphView<'_>) -> bool {
    matches!(graph.kind(), GraphKind::Actor(_))
}
