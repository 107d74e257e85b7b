//! How things stand: the question, and its answer's value.

use bytes::Bytes;
use eagleray_core::head::{ActorInfo, ObjectInfo, TaskStanding};
use eagleray_core::ids::{ObjectId, PeerId, WorkerId};
use eagleray_core::message::Place;
use prost::Message;

use super::failure::{death_in, death_out, failure_in, failure_out};
use super::graph::{amounts_in, amounts_out, name_in, name_out};
use super::parts::{object_in, object_out, some_object};
use super::{WireError, proto};
use crate::command::Command;
use crate::look::{Look, ObjectState, Phase, Snapshot, TaskCount, TaskKind, TaskState, WorkerState};
use crate::shared::{Counters, WorkerInfo};

pub(super) fn look_out(token: u64, look: Look) -> proto::Inspect {
    let Look { tasks, phases, counts, makers, objects, workers } = look;
    proto::Inspect { token, tasks, makers, objects, workers, phases, counts }
}

pub(super) fn look_in(inspect: proto::Inspect) -> Command {
    let proto::Inspect { token, tasks, makers, objects, workers, phases, counts } = inspect;
    Command::Inspect { token, look: Look { tasks, phases, counts, makers, objects, workers } }
}

fn actor_out(actor: &ActorInfo) -> proto::ActorState {
    proto::ActorState {
        actor: Some(object_out(actor.actor)),
        name: actor.name.as_ref().map(name_out),
        worker: actor.worker.map(|worker| worker.0),
        alive: actor.alive,
        restarts: actor.restarts,
        detached: actor.detached,
    }
}

fn actor_in(actor: proto::ActorState) -> Result<ActorInfo, WireError> {
    Ok(ActorInfo {
        actor: some_object(actor.actor.as_ref())?,
        name: actor.name.map(name_in),
        worker: actor.worker.map(WorkerId),
        alive: actor.alive,
        restarts: actor.restarts,
        detached: actor.detached,
    })
}

fn standing_out(standing: TaskStanding) -> proto::Standing {
    use proto::standing::How;
    let how = match standing {
        TaskStanding::Waits => How::Waits(true),
        TaskStanding::Ready => How::Ready(true),
        TaskStanding::Assigned(worker) => How::Assigned(worker.0),
        TaskStanding::Follows(worker) => How::Follows(worker.0),
        TaskStanding::Deferred(worker) => How::Deferred(worker.0),
        TaskStanding::Done => How::Done(true),
        TaskStanding::Failed => How::Failed(true),
    };
    proto::Standing { how: Some(how) }
}

fn standing_in(standing: proto::Standing) -> Result<TaskStanding, WireError> {
    use proto::standing::How;
    Ok(match standing.how.ok_or(WireError::Missing("standing"))? {
        How::Waits(_) => TaskStanding::Waits,
        How::Ready(_) => TaskStanding::Ready,
        How::Assigned(worker) => TaskStanding::Assigned(WorkerId(worker)),
        How::Follows(worker) => TaskStanding::Follows(WorkerId(worker)),
        How::Deferred(worker) => TaskStanding::Deferred(WorkerId(worker)),
        How::Done(_) => TaskStanding::Done,
        How::Failed(_) => TaskStanding::Failed,
    })
}

const KINDS: [TaskKind; 4] = [TaskKind::Computation, TaskKind::Independent, TaskKind::Actor, TaskKind::Call];

fn task_out(task: &TaskState) -> proto::TaskState {
    proto::TaskState {
        object: Some(object_out(task.object)),
        name: task.name.to_string(),
        kind: task.kind as u32,
        actor: task.actor.map(object_out),
        actor_name: task.actor_name.as_ref().map(name_out),
        detached: task.detached,
        standing: Some(standing_out(task.standing)),
        running_since: task.running_since,
        blocked: task.blocked,
        attempts: task.attempts,
        failure: task.failure.as_ref().map(failure_out),
        demand: amounts_out(&task.demand),
    }
}

fn kind_in(kind: u32) -> Result<TaskKind, WireError> {
    KINDS.get(kind as usize).copied().ok_or(WireError::Inconsistent("a kind of task"))
}

fn count_out(count: &TaskCount) -> proto::TaskCount {
    let TaskCount { name, kind, phase, count } = count;
    proto::TaskCount { name: name.to_string(), kind: *kind as u32, phase: *phase as u32, count: *count }
}

fn count_in(count: proto::TaskCount) -> Result<TaskCount, WireError> {
    let phase = Phase::ALL.get(count.phase as usize).copied();
    Ok(TaskCount {
        name: count.name.into(),
        kind: kind_in(count.kind)?,
        phase: phase.ok_or(WireError::Inconsistent("a phase"))?,
        count: count.count,
    })
}

fn task_in(task: proto::TaskState) -> Result<TaskState, WireError> {
    Ok(TaskState {
        object: some_object(task.object.as_ref())?,
        name: task.name.into(),
        kind: kind_in(task.kind)?,
        actor: task.actor.as_ref().map(object_in),
        actor_name: task.actor_name.map(name_in),
        detached: task.detached,
        standing: standing_in(task.standing.ok_or(WireError::Missing("standing"))?)?,
        running_since: task.running_since,
        blocked: task.blocked,
        attempts: task.attempts,
        failure: task.failure.map(failure_in).transpose()?,
        demand: amounts_in(task.demand),
    })
}

fn object_state_out(state: &ObjectState) -> proto::ObjectState {
    let info = &state.info;
    let (inline, sealed) = match info.place {
        None => (None, None),
        Some(Place::Inline { len }) => (Some(len), None),
        Some(Place::Sealed { len }) => (None, Some(len)),
    };
    proto::ObjectState {
        object: Some(object_out(info.object)),
        name: state.name.to_string(),
        inline,
        sealed,
        resident: info.resident.map(|worker| worker.0),
        consumers: info.consumers,
        holders: info.holders,
        peers: info.peers.iter().map(|peer| peer.0).collect(),
        task: info.task.map(standing_out),
    }
}

fn object_state_in(state: proto::ObjectState) -> Result<ObjectState, WireError> {
    let sealed = state.sealed.map(|len| Place::Sealed { len });
    let info = ObjectInfo {
        object: some_object(state.object.as_ref())?,
        place: sealed.or(state.inline.map(|len| Place::Inline { len })),
        resident: state.resident.map(WorkerId),
        consumers: state.consumers,
        holders: state.holders,
        peers: state.peers.into_iter().map(PeerId).collect(),
        task: state.task.map(standing_in).transpose()?,
    };
    Ok(ObjectState { info, name: state.name.into() })
}

fn worker_out(worker: &WorkerState) -> proto::WorkerState {
    let WorkerInfo { id, pid, up, busy, runs, tasks, alive } = worker.info;
    proto::WorkerState {
        id,
        pid,
        up,
        busy,
        runs,
        tasks,
        alive,
        actor: worker.actor.map(object_out),
        running: worker.running.map(|(object, _)| object_out(object)),
        running_since: worker.running.map_or(0, |(_, since)| since),
        blocked: worker.blocked,
        kept: worker.kept,
        death: worker.death.as_ref().map(death_out),
    }
}

fn worker_in(worker: proto::WorkerState) -> Result<WorkerState, WireError> {
    let proto::WorkerState { id, pid, up, busy, runs, tasks, alive, .. } = worker;
    let running: Option<ObjectId> = worker.running.as_ref().map(object_in);
    Ok(WorkerState {
        info: WorkerInfo { id, pid, up, busy, runs, tasks, alive },
        actor: worker.actor.as_ref().map(object_in),
        running: running.map(|object| (object, worker.running_since)),
        blocked: worker.blocked,
        kept: worker.kept,
        death: worker.death.map(|death| death_in(Some(death))).transpose()?,
    })
}

/// Its bytes.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Bytes {
    let message = proto::Snapshot {
        offered: amounts_out(&snapshot.offered),
        free: amounts_out(&snapshot.free),
        actors: snapshot.actors.iter().map(actor_out).collect(),
        tasks: snapshot.tasks.iter().map(task_out).collect(),
        tasks_total: snapshot.tasks_total,
        counts: snapshot.counts.iter().map(count_out).collect(),
        makers: snapshot.makers.iter().map(task_out).collect(),
        makers_total: snapshot.makers_total,
        tasks_forgotten: snapshot.tasks_forgotten,
        makers_forgotten: snapshot.makers_forgotten,
        objects: snapshot.objects.iter().map(object_state_out).collect(),
        objects_total: snapshot.objects_total,
        workers: snapshot.workers.iter().map(worker_out).collect(),
        store_bytes: snapshot.store_bytes,
        counters: snapshot.counters.by_name().map(|(_, value)| value).to_vec(),
    };
    message.encode_to_vec().into()
}

/// Reads what [`snapshot`] has written.
pub(crate) fn read_snapshot(bytes: Bytes) -> Result<Snapshot, WireError> {
    let message = proto::Snapshot::decode(bytes)?;
    let counters = message.counters.try_into().map_err(|_| WireError::Inconsistent("counters"))?;
    Ok(Snapshot {
        offered: amounts_in(message.offered),
        free: amounts_in(message.free),
        actors: message.actors.into_iter().map(actor_in).collect::<Result<_, _>>()?,
        tasks: message.tasks.into_iter().map(task_in).collect::<Result<_, _>>()?,
        tasks_total: message.tasks_total,
        counts: message.counts.into_iter().map(count_in).collect::<Result<_, _>>()?,
        makers: message.makers.into_iter().map(task_in).collect::<Result<_, _>>()?,
        makers_total: message.makers_total,
        tasks_forgotten: message.tasks_forgotten,
        makers_forgotten: message.makers_forgotten,
        objects: message.objects.into_iter().map(object_state_in).collect::<Result<_, _>>()?,
        objects_total: message.objects_total,
        workers: message.workers.into_iter().map(worker_in).collect::<Result<_, _>>()?,
        store_bytes: message.store_bytes,
        counters: Counters::from_values(counters),
    })
}
