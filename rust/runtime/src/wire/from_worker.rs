//! What a worker says.

use bytes::{Bytes, BytesMut};
use eagleray_core::ids::{GraphId, WorkerId};
use prost::Message;

use super::graph::{name_in, name_out, submit_in, submit_out};
use super::parts::{
    locations_in, locations_out, object_out, object_stored_in, object_stored_out, objects_in, objects_out, some_object,
    stored_in, stored_out,
};
use super::proto::from_worker;
use super::report::{completed_in, completed_out, report_in, report_out};
use super::snapshot::{look_in, look_out};
use super::{FromWorker, Resolve, WireError, proto, put_frame};
use crate::command::Command;
use crate::program::Part;

pub(super) fn command_out(command: &Command) -> from_worker::Body {
    use from_worker::Body;
    match command {
        Command::Submit(spec, program) => Body::Submit(Box::new(submit_out(spec, program))),
        Command::Extend { graph, part, admit_upto } => Body::Extend(proto::Extend {
            graph: graph.to_u64(),
            functions: part.functions.clone(),
            batches: part.batches.clone(),
            admit_upto: *admit_upto,
        }),
        Command::Supply(object, value, contained) => Body::Supply(object_stored_out(*object, value, contained)),
        Command::Put(object, value, contained) => Body::Put(object_stored_out(*object, value, contained)),
        Command::Hold(objects) => Body::Hold(proto::Objects { objects: objects_out(objects) }),
        Command::Release(objects) => Body::Release(proto::Objects { objects: objects_out(objects) }),
        Command::Await { token, objects, need, fail_fast } => Body::Await(proto::Await {
            token: *token,
            objects: objects_out(objects),
            need: *need,
            fail_fast: *fail_fast,
        }),
        Command::Forget(token) => Body::Forget(*token),
        Command::Cancel(graph) => Body::Cancel(graph.to_u64()),
        Command::CancelTask { object, force, recursive } => Body::CancelTask(proto::CancelTask {
            object: Some(object_out(*object)),
            force: *force,
            recursive: *recursive,
        }),
        Command::KillActor { actor, restart } => {
            Body::KillActor(proto::KillActor { actor: Some(object_out(*actor)), restart: *restart })
        }
        Command::FindActor { token, name } => {
            Body::FindActor(proto::FindActor { token: *token, name: Some(name_out(name)) })
        }
        Command::Yield { stream, index, part } => Body::Yield(proto::Yield {
            stream: Some(object_out(*stream)),
            index: *index,
            part: Some(object_out(*part)),
        }),
        Command::Next { token, stream, index, take } => {
            Body::Next(proto::Next { token: *token, stream: Some(object_out(*stream)), index: *index, take: *take })
        }
        Command::Ahead { token, stream, taken } => {
            Body::Ahead(proto::Ahead { token: *token, stream: Some(object_out(*stream)), taken: *taken })
        }
        Command::Inspect { token, look } => Body::Inspect(look_out(*token, *look)),
    }
}

/// Appends a frame for the node.
pub(crate) fn put_from_worker(out: &mut BytesMut, message: &FromWorker) {
    use from_worker::Body;
    let body = match message {
        FromWorker::Hello { pid } => Body::Hello(proto::Hello { pid: *pid }),
        FromWorker::Report { report, values, wakeups, times } => {
            Body::Report(report_out(report, values, *wakeups, times))
        }
        FromWorker::Published(object, value) => Body::Published(proto::Published {
            object: Some(object_out(*object)),
            stored: value.as_ref().map(|(value, contained)| stored_out(value, contained)),
        }),
        FromWorker::Completed(object, outcome) => Body::Completed(completed_out(*object, outcome)),
        FromWorker::Segment { id, size } => Body::Segment(proto::Segment { id: *id, size: *size }),
        FromWorker::SegmentGone(id) => Body::SegmentGone(*id),
        FromWorker::Unpin(locations) => Body::Unpin(locations_out(locations)),
        FromWorker::Retire => Body::Retire(true),
        FromWorker::Driver(command) => command_out(command),
    };
    put_frame(out, &proto::FromWorker { body: Some(body) });
}

/// Reads a frame that `worker` sent.
pub(crate) fn read_from_worker(
    worker: WorkerId,
    frame: Bytes,
    resolve: &mut Resolve<'_>,
) -> Result<FromWorker, WireError> {
    use from_worker::Body;
    let command = match proto::FromWorker::decode(frame)?.body.ok_or(WireError::Missing("body"))? {
        Body::Hello(hello) => return Ok(FromWorker::Hello { pid: hello.pid }),
        Body::Report(report) => return report_in(worker, report, resolve),
        Body::Published(published) => {
            let object = some_object(published.object.as_ref())?;
            let stored = published.stored.map(|stored| stored_in(Some(stored), resolve)).transpose()?;
            return Ok(FromWorker::Published(object, stored));
        }
        Body::Completed(completed) => return completed_in(completed, resolve),
        Body::Segment(segment) => return Ok(FromWorker::Segment { id: segment.id, size: segment.size }),
        Body::SegmentGone(id) => return Ok(FromWorker::SegmentGone(id)),
        Body::Unpin(locations) => return Ok(FromWorker::Unpin(locations_in(&locations))),
        Body::Retire(_) => return Ok(FromWorker::Retire),
        Body::Submit(submit) => submit_in(*submit)?,
        Body::Extend(extend) => Command::Extend {
            graph: GraphId::from_u64(extend.graph),
            part: Part { functions: extend.functions, batches: extend.batches },
            admit_upto: extend.admit_upto,
        },
        Body::Supply(value) => {
            let (object, value, contained) = object_stored_in(value, resolve)?;
            Command::Supply(object, value, contained)
        }
        Body::Put(value) => {
            let (object, value, contained) = object_stored_in(value, resolve)?;
            Command::Put(object, value, contained)
        }
        Body::Hold(objects) => Command::Hold(objects_in(&objects.objects)),
        Body::Release(objects) => Command::Release(objects_in(&objects.objects)),
        Body::Await(a) => {
            Command::Await { token: a.token, objects: objects_in(&a.objects), need: a.need, fail_fast: a.fail_fast }
        }
        Body::Forget(token) => Command::Forget(token),
        Body::Cancel(graph) => Command::Cancel(GraphId::from_u64(graph)),
        Body::CancelTask(cancel) => Command::CancelTask {
            object: some_object(cancel.object.as_ref())?,
            force: cancel.force,
            recursive: cancel.recursive,
        },
        Body::KillActor(kill) => Command::KillActor { actor: some_object(kill.actor.as_ref())?, restart: kill.restart },
        Body::Inspect(inspect) => look_in(inspect),
        Body::Yield(part) => Command::Yield {
            stream: some_object(part.stream.as_ref())?,
            index: part.index,
            part: some_object(part.part.as_ref())?,
        },
        Body::Next(next) => Command::Next {
            token: next.token,
            stream: some_object(next.stream.as_ref())?,
            index: next.index,
            take: next.take,
        },
        Body::Ahead(ahead) => {
            Command::Ahead { token: ahead.token, stream: some_object(ahead.stream.as_ref())?, taken: ahead.taken }
        }
        Body::FindActor(find) => {
            Command::FindActor { token: find.token, name: name_in(find.name.ok_or(WireError::Missing("name"))?) }
        }
    };
    Ok(FromWorker::Driver(command))
}
