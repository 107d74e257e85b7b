//! What became of tasks.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::ids::{RunId, WorkerId};
use eagleray_core::message::{Report, Timing, Trouble};

use super::parts::{objects_in, objects_out, place_of, value_in, value_out};
use super::{FromWorker, Resolve, WireError, proto};
use crate::program::Value;

pub(super) fn report_out(report: &Report, values: &[(u32, Value)], wakeups: u32) -> proto::Report {
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

pub(super) fn report_in(
    worker: WorkerId,
    report: proto::Report,
    resolve: &mut Resolve<'_>,
) -> Result<FromWorker, WireError> {
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
