//! Why an object will not be made.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::message::{ActorDeath, ActorEnd, Death, End, Failure, FailureKind, Shortage};

use super::parts::{object_out, some_object};
use super::{WireError, proto};

pub(super) fn death_out(death: &Death) -> proto::Death {
    use proto::death::How;
    let how = match &death.end {
        End::Exited(code) => How::Exited(*code),
        End::Signalled(signal) => How::Signalled(*signal),
        End::Protocol(text) => How::Protocol(text.to_string()),
        End::NeverStarted(text) => How::NeverStarted(text.to_string()),
    };
    proto::Death { how: Some(how), pid: death.pid, peak_bytes: death.peak_bytes }
}

pub(super) fn death_in(death: Option<proto::Death>) -> Result<Death, WireError> {
    use proto::death::How;
    let proto::Death { how: Some(how), pid, peak_bytes } = death.ok_or(WireError::Missing("death"))? else {
        return Err(WireError::Missing("death"));
    };
    let end = match how {
        How::Exited(code) => End::Exited(code),
        How::Signalled(signal) => End::Signalled(signal),
        How::Protocol(text) => End::Protocol(text.into()),
        How::NeverStarted(text) => End::NeverStarted(text.into()),
    };
    Ok(Death { end, pid, peak_bytes })
}

fn actor_death_out(death: &ActorDeath) -> proto::ActorDied {
    use proto::actor_died;
    let end = match &death.end {
        ActorEnd::Init { error } => actor_died::End::Init(Bytes::copy_from_slice(error)),
        ActorEnd::Died(death) => actor_died::End::Died(death_out(death)),
        ActorEnd::Killed => actor_died::End::Killed(true),
        ActorEnd::Exited => actor_died::End::Exited(true),
        ActorEnd::Released => actor_died::End::Released(true),
        ActorEnd::NameTaken => actor_died::End::NameTaken(true),
    };
    proto::ActorDied { restarts: death.restarts, end: Some(end) }
}

fn actor_death_in(died: proto::ActorDied) -> Result<ActorDeath, WireError> {
    use proto::actor_died;
    let end = match died.end.ok_or(WireError::Missing("end of an actor"))? {
        actor_died::End::Init(error) => ActorEnd::Init { error: Arc::from(&error[..]) },
        actor_died::End::Died(death) => ActorEnd::Died(death_in(Some(death))?),
        actor_died::End::Killed(_) => ActorEnd::Killed,
        actor_died::End::Exited(_) => ActorEnd::Exited,
        actor_died::End::Released(_) => ActorEnd::Released,
        actor_died::End::NameTaken(_) => ActorEnd::NameTaken,
    };
    Ok(ActorDeath { end, restarts: died.restarts })
}

pub(super) fn failure_out(failure: &Failure) -> proto::Failure {
    use proto::failure::Kind;
    let kind = match &failure.kind {
        FailureKind::Raised { error, attempts } => {
            Kind::Raised(proto::Raised { error: Bytes::copy_from_slice(error), attempts: *attempts })
        }
        FailureKind::WorkerDied { death, attempts } => {
            Kind::WorkerDied(proto::WorkerDied { death: Some(death_out(death)), attempts: *attempts })
        }
        FailureKind::Cancelled => Kind::Cancelled(true),
        FailureKind::Lost => Kind::Lost(true),
        FailureKind::NoWorkers(death) => Kind::NoWorkers(death_out(death)),
        FailureKind::TooDeep { depth, most } => Kind::TooDeep(proto::TooDeep { depth: *depth, most: *most }),
        FailureKind::Infeasible(shortage) => Kind::Infeasible(proto::Shortage {
            resource: shortage.resource.to_string(),
            asked: shortage.asked,
            offered: shortage.offered,
            held: shortage.held,
        }),
        FailureKind::ActorDied(death) => Kind::ActorDied(actor_death_out(death)),
    };
    proto::Failure { origin: Some(object_out(failure.origin)), kind: Some(kind) }
}

pub(super) fn failure_in(failure: proto::Failure) -> Result<Failure, WireError> {
    use proto::failure::Kind;
    let origin = some_object(failure.origin.as_ref())?;
    let kind = match failure.kind.ok_or(WireError::Missing("failure"))? {
        Kind::Raised(raised) => FailureKind::Raised { error: Arc::from(&raised.error[..]), attempts: raised.attempts },
        Kind::WorkerDied(died) => FailureKind::WorkerDied { death: death_in(died.death)?, attempts: died.attempts },
        Kind::Cancelled(_) => FailureKind::Cancelled,
        Kind::Lost(_) => FailureKind::Lost,
        Kind::NoWorkers(death) => FailureKind::NoWorkers(death_in(Some(death))?),
        Kind::TooDeep(deep) => FailureKind::TooDeep { depth: deep.depth, most: deep.most },
        Kind::Infeasible(shortage) => FailureKind::Infeasible(Box::new(Shortage {
            resource: shortage.resource.into(),
            asked: shortage.asked,
            offered: shortage.offered,
            held: shortage.held,
        })),
        Kind::ActorDied(died) => FailureKind::ActorDied(Box::new(actor_death_in(died)?)),
    };
    Ok(Failure { origin, kind })
}
