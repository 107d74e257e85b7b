//! Frames as Rust types, and their protobuf form. The generated types go no further than this module.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId, RunId, WorkerId};
use eagleray_core::message::{
    ClassSpec, Death, Demand, End, Failure, FailureKind, GraphSpec, Place, Report, Run, Shortage, Timing, Trouble,
};
use eagleray_store::{Block, Location};
use prost::Message;

use crate::command::{Answer, Command};
use crate::program::{Intro, Part, Program, RetryFilter, RunProgram, Template, Value};

#[allow(clippy::pedantic, unreachable_pub, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/eagleray.v1.rs"));
}

use proto::{from_worker, intro, to_worker};

/// The longest frame. A batch of constants is at most 256 × 64 KiB, and a result inline 64 KiB.
pub(crate) const MOST_FRAME: usize = 1 << 30;

/// Room made at once for a frame that has only begun.
const FIRST_RESERVE: usize = 1 << 20;

/// From the node to a worker.
#[derive(Debug)]
pub enum ToWorker {
    /// A run, its program and its inputs.
    Run(RunProgram),
    /// Publish these kept results.
    Publish {
        /// The results.
        objects: Vec<ObjectId>,
        /// Seal them, however small.
        seal: bool,
    },
    /// Drop these kept results.
    Drop(Vec<ObjectId>),
    /// A graph is over.
    Forget(GraphId),
    /// Functions that no graph uses any more.
    DropBlobs(Vec<u32>),
    /// Blocks of the worker's own that may be used again.
    Recycle(Vec<Location>),
    /// An answer for its driver role.
    Awaited(Answer),
    /// What it sent did not fit. It ends.
    Refused(String),
    /// It shall end.
    Stop,
    /// A segment to map; its descriptor comes with the frame.
    Segment {
        /// Its id.
        id: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A segment that nothing refers to any more.
    SegmentGone(u64),
}

/// From a worker to the node.
#[derive(Debug)]
pub enum FromWorker {
    /// It is ready.
    Hello {
        /// Its process.
        pid: u32,
    },
    /// Progress of its runs. The places of the report's published results are those of `values`.
    Report {
        /// The report.
        report: Report,
        /// The published results, by place.
        values: Vec<(u32, Value)>,
        /// How often it slept in `read` since the last report.
        wakeups: u32,
    },
    /// A kept result, published; `None` if it is not there.
    Published(ObjectId, Option<Value>),
    /// A segment of its own; its descriptor comes with the frame.
    Segment {
        /// Its id.
        id: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A segment of its own that it has given up.
    SegmentGone(u64),
    /// Blocks it reads no more.
    Unpin(Vec<Location>),
    /// Its driver role.
    Driver(Command),
}

/// A frame that cannot be understood.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WireError {
    /// It is no protobuf of the expected type.
    #[error("frame cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A part that must be there is not.
    #[error("frame lacks its {0}")]
    Missing(&'static str),
    /// Parts contradict each other.
    #[error("frame is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// A block it names cannot be read.
    #[error("frame names a block that cannot be read: {0}")]
    Block(Arc<str>),
    /// It is longer than any frame may be.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
}

/// Finds the block at a location.
pub(crate) type Resolve<'a> = dyn FnMut(Location) -> Result<Block, WireError> + 'a;

/// Appends a frame: its length, then its message.
fn put_frame(out: &mut BytesMut, message: &impl Message) {
    let len = message.encoded_len();
    out.reserve(len + 4);
    out.put_u32_le(len as u32);
    message.encode(out).expect("room was reserved");
}

/// Cuts the next whole frame off a buffer.
pub(crate) fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    if buffer.len() < 4 {
        return Ok(None);
    }
    let len = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    if len > MOST_FRAME {
        return Err(WireError::TooLong(len));
    }
    if buffer.len() < 4 + len {
        // Room for twice what is there, not for all that a length promises: the rest may never come.
        buffer.reserve((4 + len - buffer.len()).min(buffer.len().max(FIRST_RESERVE)));
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(len).freeze()))
}

fn object_out(object: ObjectId) -> proto::ObjectId {
    proto::ObjectId { graph: object.graph.to_u64(), index: object.index }
}

fn object_in(object: &proto::ObjectId) -> ObjectId {
    ObjectId { graph: GraphId::from_u64(object.graph), index: object.index }
}

fn some_object(object: Option<&proto::ObjectId>) -> Result<ObjectId, WireError> {
    object.map(object_in).ok_or(WireError::Missing("object"))
}

fn objects_out(objects: &[ObjectId]) -> Vec<proto::ObjectId> {
    objects.iter().copied().map(object_out).collect()
}

fn objects_in(objects: &[proto::ObjectId]) -> Vec<ObjectId> {
    objects.iter().map(object_in).collect()
}

fn location_out(location: Location) -> proto::Location {
    let Location { segment, offset, len, generation } = location;
    proto::Location { segment, offset, len, generation }
}

fn location_in(location: &proto::Location) -> Location {
    let &proto::Location { segment, offset, len, generation } = location;
    Location { segment, offset, len, generation }
}

fn value_out(value: &Value) -> proto::Value {
    let form = match value {
        Value::Inline(bytes) => proto::value::Form::Inline(bytes.clone()),
        Value::Sealed(block) => proto::value::Form::Sealed(location_out(block.location())),
    };
    proto::Value { form: Some(form) }
}

fn value_in(value: Option<proto::Value>, resolve: &mut Resolve<'_>) -> Result<Value, WireError> {
    match value.and_then(|value| value.form) {
        Some(proto::value::Form::Inline(bytes)) => Ok(Value::Inline(bytes)),
        Some(proto::value::Form::Sealed(location)) => resolve(location_in(&location)).map(Value::Sealed),
        None => Err(WireError::Missing("value")),
    }
}

fn object_value_in(value: proto::ObjectValue, resolve: &mut Resolve<'_>) -> Result<(ObjectId, Value), WireError> {
    Ok((some_object(value.object.as_ref())?, value_in(value.value, resolve)?))
}

fn object_value_out(object: ObjectId, value: &Value) -> proto::ObjectValue {
    proto::ObjectValue { object: Some(object_out(object)), value: Some(value_out(value)) }
}

fn rows_out(rows: &Csr) -> proto::Rows {
    proto::Rows { offsets: rows.offsets().to_vec(), items: rows.items().to_vec() }
}

fn rows_in(rows: Option<proto::Rows>) -> Result<Csr, WireError> {
    let rows = rows.ok_or(WireError::Missing("rows"))?;
    Csr::from_parts(rows.offsets, rows.items).ok_or(WireError::Inconsistent("rows"))
}

fn template_out(template: &Template) -> proto::Template {
    proto::Template { code: template.code.clone(), functions: template.functions.clone() }
}

fn template_in(template: proto::Template) -> Template {
    Template { code: template.code, functions: template.functions }
}

fn death_out(death: &Death) -> proto::Death {
    use proto::death::How;
    let how = match &death.end {
        End::Exited(code) => How::Exited(*code),
        End::Signalled(signal) => How::Signalled(*signal),
        End::Protocol(text) => How::Protocol(text.to_string()),
        End::NeverStarted(text) => How::NeverStarted(text.to_string()),
    };
    proto::Death { how: Some(how), pid: death.pid, peak_bytes: death.peak_bytes }
}

fn death_in(death: Option<proto::Death>) -> Result<Death, WireError> {
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

fn failure_out(failure: &Failure) -> proto::Failure {
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
    };
    proto::Failure { origin: Some(object_out(failure.origin)), kind: Some(kind) }
}

fn failure_in(failure: proto::Failure) -> Result<Failure, WireError> {
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
    };
    Ok(Failure { origin, kind })
}

fn filter_out(filter: &RetryFilter) -> proto::RetryFilter {
    proto::RetryFilter { classes: filter.classes.clone(), pickle: filter.exceptions.clone() }
}

fn filter_in(filter: proto::RetryFilter) -> RetryFilter {
    RetryFilter { classes: filter.classes, exceptions: filter.pickle }
}

fn intro_out(intro: &Intro) -> proto::Intro {
    let body = match intro {
        Intro::Graph { len, externals } => {
            intro::Body::Graph(proto::GraphIntro { len: *len, externals: objects_out(externals) })
        }
        Intro::Function { id, blob, bytes } => {
            intro::Body::Function(proto::FunctionIntro { id: *id, blob: *blob, pickle: bytes.clone() })
        }
        Intro::Template { id, template } => {
            intro::Body::Template(proto::TemplateIntro { id: *id, template: Some(template_out(template)) })
        }
        Intro::Batch { id, bytes } => intro::Body::Batch(proto::BatchIntro { id: *id, pickle: bytes.clone() }),
        Intro::Hooks(bytes) => intro::Body::Hooks(bytes.clone()),
        Intro::RetryFilter(filter) => intro::Body::RetryFilter(filter_out(filter)),
        Intro::Surroundings(bytes) => intro::Body::Surroundings(bytes.clone()),
    };
    proto::Intro { body: Some(body) }
}

fn intro_in(intro: proto::Intro) -> Result<Intro, WireError> {
    Ok(match intro.body.ok_or(WireError::Missing("introduction"))? {
        intro::Body::Graph(graph) => Intro::Graph { len: graph.len, externals: objects_in(&graph.externals) },
        intro::Body::Function(f) => Intro::Function { id: f.id, blob: f.blob, bytes: f.pickle },
        intro::Body::Template(t) => {
            let template = t.template.ok_or(WireError::Missing("template"))?;
            Intro::Template { id: t.id, template: template_in(template) }
        }
        intro::Body::Batch(b) => Intro::Batch { id: b.id, bytes: b.pickle },
        intro::Body::Hooks(bytes) => Intro::Hooks(bytes),
        intro::Body::RetryFilter(filter) => Intro::RetryFilter(filter_in(filter)),
        intro::Body::Surroundings(bytes) => Intro::Surroundings(bytes),
    })
}

fn run_out(program: &RunProgram) -> proto::Run {
    let run = &program.run;
    proto::Run {
        seq: run.id.seq,
        graph: run.graph.to_u64(),
        tasks: run.tasks.clone(),
        outputs: Bytes::copy_from_slice(&run.outputs),
        code: Some(rows_out(&program.code)),
        inputs: program.inputs.iter().map(|(object, value)| object_value_out(*object, value)).collect(),
        intros: program.intros.iter().map(intro_out).collect(),
        gpus: run.gpus.clone(),
    }
}

fn run_in(worker: WorkerId, run: proto::Run, resolve: &mut Resolve<'_>) -> Result<RunProgram, WireError> {
    let code = rows_in(run.code)?;
    if code.len() != run.tasks.len() || run.outputs.len() != run.tasks.len() {
        return Err(WireError::Inconsistent("run"));
    }
    let inputs: Vec<(ObjectId, Value)> =
        run.inputs.into_iter().map(|value| object_value_in(value, resolve)).collect::<Result<_, _>>()?;
    Ok(RunProgram {
        run: Run {
            id: RunId { worker, seq: run.seq },
            graph: GraphId::from_u64(run.graph),
            tasks: run.tasks,
            outputs: run.outputs.to_vec(),
            inputs: inputs.iter().map(|(object, _)| *object).collect(),
            gpus: run.gpus,
        },
        code,
        intros: run.intros.into_iter().map(intro_in).collect::<Result<_, _>>()?,
        inputs,
    })
}

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
    })
}

fn locations_out(locations: &[Location]) -> proto::Locations {
    proto::Locations { locations: locations.iter().copied().map(location_out).collect() }
}

fn locations_in(locations: &proto::Locations) -> Vec<Location> {
    locations.locations.iter().map(location_in).collect()
}

fn report_out(report: &Report, values: &[(u32, Value)], wakeups: u32) -> proto::Report {
    proto::Report {
        seq: report.run.seq,
        upto: report.upto,
        ended: report.ended,
        troubles: report
            .troubles
            .iter()
            .map(|(index, trouble)| proto::Trouble {
                index: *index,
                kind: Some(match trouble {
                    Trouble::Raised(bytes) => proto::trouble::Kind::Raised(Bytes::copy_from_slice(bytes)),
                    Trouble::Retry(bytes) => proto::trouble::Kind::Retry(Bytes::copy_from_slice(bytes)),
                    Trouble::Unsendable(bytes) => proto::trouble::Kind::Unsendable(Bytes::copy_from_slice(bytes)),
                    Trouble::Skipped => proto::trouble::Kind::Skipped(true),
                    Trouble::InputNotHere(objects) => {
                        proto::trouble::Kind::InputNotHere(proto::Objects { objects: objects_out(objects) })
                    }
                }),
            })
            .collect(),
        published: values
            .iter()
            .map(|(index, value)| proto::Result { index: *index, value: Some(value_out(value)) })
            .collect(),
        timings: report
            .timings
            .iter()
            .map(|t| proto::Timing {
                class: t.class,
                count: t.count,
                total_ns: t.total_ns,
                max_ns: t.max_ns,
                total_bytes: t.total_bytes,
            })
            .collect(),
        wakeups,
    }
}

/// Where a value's bytes are, as the head is told.
pub(crate) fn place_of(value: &Value) -> Place {
    match value {
        Value::Inline(bytes) => Place::Inline { len: bytes.len() as u64 },
        Value::Sealed(block) => Place::Sealed { len: block.location().len },
    }
}

fn report_in(worker: WorkerId, report: proto::Report, resolve: &mut Resolve<'_>) -> Result<FromWorker, WireError> {
    let mut values = Vec::with_capacity(report.published.len());
    for result in report.published {
        values.push((result.index, value_in(result.value, resolve)?));
    }
    let mut troubles = Vec::with_capacity(report.troubles.len());
    for trouble in report.troubles {
        let kind = match trouble.kind.ok_or(WireError::Missing("trouble"))? {
            proto::trouble::Kind::Raised(bytes) => Trouble::Raised(Arc::from(&bytes[..])),
            proto::trouble::Kind::Retry(bytes) => Trouble::Retry(Arc::from(&bytes[..])),
            proto::trouble::Kind::Unsendable(bytes) => Trouble::Unsendable(Arc::from(&bytes[..])),
            proto::trouble::Kind::Skipped(_) => Trouble::Skipped,
            proto::trouble::Kind::InputNotHere(objects) => Trouble::InputNotHere(objects_in(&objects.objects)),
        };
        troubles.push((trouble.index, kind));
    }
    let timings = report.timings.iter().map(|t| Timing {
        class: t.class,
        count: t.count,
        total_ns: t.total_ns,
        max_ns: t.max_ns,
        total_bytes: t.total_bytes,
    });
    let report = Report {
        run: RunId { worker, seq: report.seq },
        upto: report.upto,
        ended: report.ended,
        troubles,
        published: values.iter().map(|(index, value)| (*index, place_of(value))).collect(),
        timings: timings.collect(),
    };
    Ok(FromWorker::Report { report, values, wakeups: 0 })
}

fn demand_out(demand: &Demand) -> proto::Demand {
    let amount = |(name, amount): &(Arc<str>, u64)| proto::Amount { resource: name.to_string(), amount: *amount };
    proto::Demand { cpu: demand.cpu, others: demand.others.iter().map(amount).collect() }
}

fn demand_in(demand: proto::Demand) -> Demand {
    let others = demand.others.into_iter().map(|amount| (amount.resource.into(), amount.amount));
    Demand { cpu: demand.cpu, others: others.collect() }
}

fn submit_out(spec: &GraphSpec, program: &Program) -> proto::Submit {
    proto::Submit {
        graph: spec.id.to_u64(),
        inputs: Some(rows_out(&spec.inputs)),
        externals: objects_out(&spec.externals),
        position: spec.position.clone(),
        class: spec.class.clone(),
        classes: spec
            .classes
            .iter()
            .map(|c| proto::Class {
                fingerprint: c.fingerprint,
                max_retries: u32::from(c.max_retries),
                retries: u32::from(c.retries),
                demand: c.demand,
            })
            .collect(),
        demands: spec.demands.iter().map(demand_out).collect(),
        priority: spec.priority,
        retry_filters: program.retry_filters.iter().map(filter_out).collect(),
        outputs: spec.outputs.clone(),
        templates: program.templates.iter().map(template_out).collect(),
        code: Some(rows_out(&program.code)),
        hooks: program.hooks.clone(),
        surroundings: program.surroundings.clone(),
    }
}

fn submit_in(submit: proto::Submit) -> Result<Command, WireError> {
    let spec = GraphSpec {
        id: GraphId::from_u64(submit.graph),
        inputs: rows_in(submit.inputs)?,
        externals: objects_in(&submit.externals),
        position: submit.position,
        class: submit.class,
        classes: submit
            .classes
            .iter()
            .map(|c| ClassSpec {
                fingerprint: c.fingerprint,
                max_retries: u8::try_from(c.max_retries).unwrap_or(u8::MAX),
                retries: u16::try_from(c.retries).unwrap_or(u16::MAX),
                demand: c.demand,
            })
            .collect(),
        demands: submit.demands.into_iter().map(demand_in).collect(),
        priority: submit.priority,
        outputs: submit.outputs,
    };
    let program = Program {
        templates: submit.templates.into_iter().map(template_in).collect(),
        code: rows_in(submit.code)?,
        hooks: submit.hooks,
        retry_filters: submit.retry_filters.into_iter().map(filter_in).collect(),
        surroundings: submit.surroundings,
    };
    Ok(Command::Submit(Box::new(spec), Box::new(program)))
}

fn command_out(command: &Command) -> from_worker::Body {
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
