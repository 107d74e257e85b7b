//! What the node says.

use bytes::{Bytes, BytesMut};
use eagleray_core::ids::{GraphId, WorkerId};
use prost::Message;

use super::failure::{failure_in, failure_out};
use super::parts::{
    locations_in, locations_out, object_in, object_out, objects_in, objects_out, some_object, value_in, value_out,
};
use super::proto::to_worker;
use super::run::{run_in, run_out};
use super::{Resolve, ToWorker, WireError, proto, put_frame};
use crate::command::Answer;

/// Appends a frame for a worker.
pub(crate) fn put_to_worker(out: &mut BytesMut, message: &ToWorker) {
    let body = match message {
        ToWorker::Run(program) => to_worker::Body::Run(run_out(program)),
        ToWorker::Publish { objects, seal } => {
            to_worker::Body::Publish(proto::Publish { objects: objects_out(objects), seal: *seal })
        }
        ToWorker::Drop(objects) => to_worker::Body::Drop(proto::Objects { objects: objects_out(objects) }),
        ToWorker::Forget(graph) => to_worker::Body::Forget(graph.to_u64()),
        ToWorker::DropBlobs(blobs) => to_worker::Body::DropBlobs(proto::Blobs { blobs: blobs.clone() }),
        ToWorker::Recycle(locations) => to_worker::Body::Recycle(locations_out(locations)),
        ToWorker::Awaited(answer) => to_worker::Body::Awaited(proto::Awaited {
            token: answer.token,
            ended: answer
                .ended
                .iter()
                .map(|(object, outcome)| proto::Ended {
                    object: Some(object_out(*object)),
                    outcome: Some(match outcome {
                        Ok(value) => proto::ended::Outcome::Value(value_out(value)),
                        Err(failure) => proto::ended::Outcome::Failure(failure_out(failure)),
                    }),
                })
                .collect(),
        }),
        ToWorker::Refused(text) => to_worker::Body::Refused(text.clone()),
        ToWorker::Stop => to_worker::Body::Stop(true),
        ToWorker::Segment { id, size } => to_worker::Body::Segment(proto::Segment { id: *id, size: *size }),
        ToWorker::SegmentGone(id) => to_worker::Body::SegmentGone(*id),
        ToWorker::Cancel(object) => to_worker::Body::Cancel(object_out(*object)),
    };
    put_frame(out, &proto::ToWorker { body: Some(body) });
}

/// Reads a frame that is for `worker`.
pub(crate) fn read_to_worker(worker: WorkerId, frame: Bytes, resolve: &mut Resolve<'_>) -> Result<ToWorker, WireError> {
    Ok(match proto::ToWorker::decode(frame)?.body.ok_or(WireError::Missing("body"))? {
        to_worker::Body::Run(run) => ToWorker::Run(run_in(worker, run, resolve)?),
        to_worker::Body::Publish(publish) => {
            ToWorker::Publish { objects: objects_in(&publish.objects), seal: publish.seal }
        }
        to_worker::Body::Drop(objects) => ToWorker::Drop(objects_in(&objects.objects)),
        to_worker::Body::Forget(graph) => ToWorker::Forget(GraphId::from_u64(graph)),
        to_worker::Body::DropBlobs(blobs) => ToWorker::DropBlobs(blobs.blobs),
        to_worker::Body::Recycle(locations) => ToWorker::Recycle(locations_in(&locations)),
        to_worker::Body::Awaited(awaited) => {
            let mut ended = Vec::with_capacity(awaited.ended.len());
            for entry in awaited.ended {
                let outcome = match entry.outcome.ok_or(WireError::Missing("outcome"))? {
                    proto::ended::Outcome::Value(value) => Ok(value_in(Some(value), resolve)?),
                    proto::ended::Outcome::Failure(failure) => Err(failure_in(failure)?),
                };
                ended.push((some_object(entry.object.as_ref())?, outcome));
            }
            ToWorker::Awaited(Answer { token: awaited.token, ended })
        }
        to_worker::Body::Refused(text) => ToWorker::Refused(text),
        to_worker::Body::Stop(_) => ToWorker::Stop,
        to_worker::Body::Segment(segment) => ToWorker::Segment { id: segment.id, size: segment.size },
        to_worker::Body::SegmentGone(id) => ToWorker::SegmentGone(id),
        to_worker::Body::Cancel(object) => ToWorker::Cancel(object_in(&object)),
    })
}
