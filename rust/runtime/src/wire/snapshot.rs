//! How things stand, as the value of an answer.

use bytes::Bytes;
use eagleray_core::head::ActorInfo;
use eagleray_core::ids::WorkerId;
use prost::Message;

use super::graph::{amounts_in, amounts_out, name_in, name_out};
use super::parts::{object_out, some_object};
use super::{WireError, proto};
use crate::shared::Snapshot;

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

/// Its bytes.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Bytes {
    let message = proto::Snapshot {
        offered: amounts_out(&snapshot.offered),
        free: amounts_out(&snapshot.free),
        actors: snapshot.actors.iter().map(actor_out).collect(),
    };
    message.encode_to_vec().into()
}

/// Reads what [`snapshot`] has written.
pub(crate) fn read_snapshot(bytes: Bytes) -> Result<Snapshot, WireError> {
    let message = proto::Snapshot::decode(bytes)?;
    Ok(Snapshot {
        offered: amounts_in(message.offered),
        free: amounts_in(message.free),
        actors: message.actors.into_iter().map(actor_in).collect::<Result<_, _>>()?,
    })
}
