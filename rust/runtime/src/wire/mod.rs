//! Frames as Rust types, and their protobuf form. The generated types go no further than this module.

mod failure;
mod from_worker;
mod graph;
mod parts;
mod report;
mod run;
mod snapshot;
mod to_worker;

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{Report, Trouble};
use eagleray_store::{Block, Location};
use prost::Message;

use crate::command::{Answer, Command};
use crate::program::{RunProgram, Value};

pub(crate) use self::from_worker::{put_from_worker, read_from_worker};
pub(crate) use self::parts::place_of;
pub(crate) use self::snapshot::{read_snapshot, snapshot};
pub(crate) use self::to_worker::{put_to_worker, read_to_worker};

#[allow(clippy::pedantic, unreachable_pub, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/eagleray.v1.rs"));
}

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
    /// A task that it has deferred shall end.
    Cancel(ObjectId),
}

/// From a worker to the node.
#[derive(Debug)]
pub enum FromWorker {
    /// It is ready.
    Hello {
        /// Its process.
        pid: u32,
    },
    /// Progress of its runs. The places of the report's published results, and what these name, are those of `values`:
    /// what the report itself says of them is not sent.
    Report {
        /// The report.
        report: Report,
        /// The published results, by place, and the objects that they name.
        values: Vec<(u32, Value, Vec<ObjectId>)>,
        /// How often it slept in `read` since the last report.
        wakeups: u32,
        /// When the tasks newly ended began and how long they took: see [`Times`](crate::times::Times). Empty if that is not
        /// recorded.
        times: Bytes,
    },
    /// A kept result, published, and the objects that it names; `None` if it is not there.
    Published(ObjectId, Option<(Value, Vec<ObjectId>)>),
    /// The end of a task that it has deferred: the result and the objects that it names, or what went wrong. Not before the
    /// report that says that it is deferred.
    Completed(ObjectId, Result<(Value, Vec<ObjectId>), Trouble>),
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
    /// It is to end when it has nothing left to do, and another is to take its place.
    Retire,
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
