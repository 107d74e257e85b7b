//! What a worker says.

use bytes::{Bytes, BytesMut};
use eagleray_core::ids::{GraphId, WorkerId};
use prost::Message;

use super::graph::{submit_in, submit_out};
use super::parts::{
    locations_in, locations_out, object_out, object_value_in, object_value_out, objects_in, objects_out, some_object,
    value_in, value_out,
};
use super::proto::from_worker;
use super::report::{report_in, report_out};
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
        Command::Supply(object, value) => Body::Supply(object_value_out(*object, value)),
        Command::Put(object, value) => Body::Put(object_value_out(*object, value)),
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
    }
}

/// Appends a frame for the node.
pub(crate) fn put_from_worker(out: &mut BytesMut, message: &FromWorker) {
    use from_worker::Body;
    let body = match message {
        FromWorker::Hello { pid } => Body::Hello(proto::Hello { pid: *pid }),
        FromWorker::Report { report, values, wakeups } => Body::Report(report_out(report, values, *wakeups)),
        FromWorker::Published(object, value) => Body::Published(proto::Published {
            object: Some(object_out(*object)),
            value: value.as_ref().map(value_out),
        }),
        FromWorker::Segment { id, size } => Body::Segment(proto::Segment { id: *id, size: *size }),
        FromWorker::SegmentGone(id) => Body::SegmentGone(*id),
        FromWorker::Unpin(locations) => Body::Unpin(locations_out(locations)),
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
        Body::Report(report) => {
            let slept = report.wakeups;
            let mut message = report_in(worker, report, resolve)?;
            if let FromWorker::Report { wakeups, .. } = &mut message {
                *wakeups = slept;
            }
            return Ok(message);
        }
        Body::Published(published) => {
            let object = some_object(published.object.as_ref())?;
            let value = published.value.map(|value| value_in(Some(value), resolve)).transpose()?;
            return Ok(FromWorker::Published(object, value));
        }
        Body::Segment(segment) => return Ok(FromWorker::Segment { id: segment.id, size: segment.size }),
        Body::SegmentGone(id) => return Ok(FromWorker::SegmentGone(id)),
        Body::Unpin(locations) => return Ok(FromWorker::Unpin(locations_in(&locations))),
        Body::Submit(submit) => submit_in(*submit)?,
        Body::Extend(extend) => Command::Extend {
            graph: GraphId::from_u64(extend.graph),
            part: Part { functions: extend.functions, batches: extend.batches },
            admit_upto: extend.admit_upto,
        },
        Body::Supply(value) => {
            let (object, value) = object_value_in(value, resolve)?;
            Command::Supply(object, value)
        }
        Body::Put(value) => {
            let (object, value) = object_value_in(value, resolve)?;
            Command::Put(object, value)
        }
        Body::Hold(objects) => Command::Hold(objects_in(&objects.objects)),
        Body::Release(objects) => Command::Release(objects_in(&objects.objects)),
        Body::Await(a) => {
            Command::Await { token: a.token, objects: objects_in(&a.objects), need: a.need, fail_fast: a.fail_fast }
        }
        Body::Forget(token) => Command::Forget(token),
        Body::Cancel(graph) => Command::Cancel(GraphId::from_u64(graph)),
    };
    Ok(FromWorker::Driver(command))
}
