//! What became of tasks.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::ids::{ObjectId, RunId, WorkerId};
use eagleray_core::message::{Report, Timing, Trouble};

use super::parts::{object_out, objects_in, objects_out, place_of, some_object, stored_in, stored_out};
use super::proto::{completed, trouble};
use super::{FromWorker, Resolve, WireError, proto};
use crate::program::Value;

fn trouble_out(trouble: &Trouble) -> trouble::Kind {
    match trouble {
        Trouble::Raised(bytes) => trouble::Kind::Raised(Bytes::copy_from_slice(bytes)),
        Trouble::Retry(bytes) => trouble::Kind::Retry(Bytes::copy_from_slice(bytes)),
        Trouble::Unsendable(bytes) => trouble::Kind::Unsendable(Bytes::copy_from_slice(bytes)),
        Trouble::Skipped => trouble::Kind::Skipped(true),
        Trouble::InputNotHere(objects) => trouble::Kind::InputNotHere(proto::Objects { objects: objects_out(objects) }),
        Trouble::Deferred => trouble::Kind::Deferred(true),
        Trouble::Cancelled => trouble::Kind::Cancelled(true),
    }
}

fn trouble_in(kind: Option<trouble::Kind>) -> Result<Trouble, WireError> {
    Ok(match kind.ok_or(WireError::Missing("trouble"))? {
        trouble::Kind::Raised(bytes) => Trouble::Raised(Arc::from(&bytes[..])),
        trouble::Kind::Retry(bytes) => Trouble::Retry(Arc::from(&bytes[..])),
        trouble::Kind::Unsendable(bytes) => Trouble::Unsendable(Arc::from(&bytes[..])),
        trouble::Kind::Skipped(_) => Trouble::Skipped,
        trouble::Kind::InputNotHere(objects) => Trouble::InputNotHere(objects_in(&objects.objects)),
        trouble::Kind::Deferred(_) => Trouble::Deferred,
        trouble::Kind::Cancelled(_) => Trouble::Cancelled,
    })
}

/// How a task that was deferred has ended.
type Outcome = Result<(Value, Vec<ObjectId>), Trouble>;

pub(super) fn completed_out(object: ObjectId, outcome: &Outcome) -> proto::Completed {
    let outcome = match outcome {
        Ok((value, contained)) => completed::Outcome::Stored(stored_out(value, contained)),
        Err(trouble) => completed::Outcome::Trouble(proto::Trouble { index: 0, kind: Some(trouble_out(trouble)) }),
    };
    proto::Completed { object: Some(object_out(object)), outcome: Some(outcome) }
}

pub(super) fn completed_in(completed: proto::Completed, resolve: &mut Resolve<'_>) -> Result<FromWorker, WireError> {
    let object = some_object(completed.object.as_ref())?;
    let outcome = match completed.outcome.ok_or(WireError::Missing("outcome"))? {
        completed::Outcome::Stored(stored) => Ok(stored_in(Some(stored), resolve)?),
        completed::Outcome::Trouble(trouble) => match trouble_in(trouble.kind)? {
            trouble @ (Trouble::Raised(_) | Trouble::Retry(_) | Trouble::Cancelled) => Err(trouble),
            _ => return Err(WireError::Inconsistent("a trouble that a task cannot end with once it was deferred")),
        },
    };
    Ok(FromWorker::Completed(object, outcome))
}

pub(super) fn report_out(
    report: &Report,
    values: &[(u32, Value, Vec<ObjectId>)],
    wakeups: u32,
    times: &Bytes,
) -> proto::Report {
    proto::Report {
        seq: report.run.seq,
        upto: report.upto,
        ended: report.ended,
        troubles: report
            .troubles
            .iter()
            .map(|(index, trouble)| proto::Trouble { index: *index, kind: Some(trouble_out(trouble)) })
            .collect(),
        published: values
            .iter()
            .map(|(index, value, contained)| proto::Result {
                index: *index,
                stored: Some(stored_out(value, contained)),
            })
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
        times: times.clone(),
    }
}

pub(super) fn report_in(
    worker: WorkerId,
    report: proto::Report,
    resolve: &mut Resolve<'_>,
) -> Result<FromWorker, WireError> {
    let mut values = Vec::with_capacity(report.published.len());
    let mut published = Vec::with_capacity(report.published.len());
    let mut contained = Vec::new();
    for result in report.published {
        let (value, names) = stored_in(result.stored, resolve)?;
        published.push((result.index, place_of(&value)));
        if !names.is_empty() {
            contained.push((result.index, names.clone()));
        }
        values.push((result.index, value, names));
    }
    let mut troubles = Vec::with_capacity(report.troubles.len());
    for trouble in report.troubles {
        troubles.push((trouble.index, trouble_in(trouble.kind)?));
    }
    let timings = report.timings.iter().map(|t| Timing {
        class: t.class,
        count: t.count,
        total_ns: t.total_ns,
        max_ns: t.max_ns,
        total_bytes: t.total_bytes,
    });
    let (wakeups, times) = (report.wakeups, report.times);
    let report = Report {
        run: RunId { worker, seq: report.seq },
        upto: report.upto,
        ended: report.ended,
        troubles,
        published,
        contained,
        timings: timings.collect(),
    };
    Ok(FromWorker::Report { report, values, wakeups, times })
}
