//! A worker that says what it likes.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{GraphKind, Report, Timing, Trouble};
use eagleray_core::page::Page;
use eagleray_store::{Arena, ArenaConfig, NewSegment};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::stage::{Recruit, WATCHDOG, actor, calls, chain, name};
use crate::command::Command;
use crate::look::Look;
use crate::objects::{DRIVER, holder_of};
use crate::program::{Part, Value};
use crate::socket::Reader;
use crate::wire::{FromWorker, ToWorker, WireError, put_from_worker, read_to_worker};

/// A value to publish.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Inline(usize),
    /// In a segment of the worker's own, which the node knows.
    Own,
    /// The block it named last, once more.
    Again,
    /// In a segment of its own that the node has not heard of.
    Hidden,
    /// In a segment that it makes in the driver's name.
    OfDriver,
}

/// A message. Numbers are from so few that they often fit.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Hello,
    Report {
        seq: u32,
        upto: u32,
        ended: bool,
        published: Vec<(u32, Said)>,
        troubles: Vec<(u32, u8)>,
        class: u32,
    },
    Published(ObjectId, Option<Said>),
    Completed(ObjectId, Result<Said, u8>),
    Segment {
        own: bool,
        id: u32,
        size: u64,
        fd: bool,
    },
    SegmentGone {
        own: bool,
        id: u32,
    },
    /// Gives back a block it has never been given.
    Unpin,
    Submit {
        own: bool,
        seq: u32,
        sound: bool,
        kind: u8,
    },
    Extend {
        own: bool,
        seq: u32,
        upto: u32,
    },
    Supply(ObjectId, Said),
    Put {
        own: bool,
        index: u32,
        value: Said,
    },
    Hold(Vec<ObjectId>),
    Release(Vec<ObjectId>),
    Await {
        token: u64,
        objects: Vec<ObjectId>,
        need: u32,
        fail_fast: bool,
    },
    Forget(u64),
    Cancel {
        own: bool,
        seq: u32,
    },
    CancelTask(ObjectId, bool, bool),
    KillActor(ObjectId, bool),
    FindActor(u64, &'static str),
    Inspect(u64),
    Retire,
}

/// Something it does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Bytes.
    Raw(Vec<u8>),
    /// Bytes, with their length in front.
    Frame(Vec<u8>),
    /// A length, and fewer bytes than that.
    Long {
        len: u32,
        bytes: usize,
    },
    Say(Message),
    /// A message with some bytes of its frame changed.
    Mutate(Message, Vec<(prop::sample::Index, u8)>),
    /// The beginning of a message.
    Cut(Message, prop::sample::Index),
    /// Descriptors, with a byte.
    Descriptors(usize),
    /// Scribbles over its control page.
    Page(Vec<(usize, u64)>),
}

fn objects() -> impl Strategy<Value = ObjectId> {
    (0..4u32, 0..4u32, 0..8u32)
        .prop_map(|(peer, seq, index)| ObjectId { graph: GraphId { peer: PeerId(peer), seq }, index })
}

fn values() -> impl Strategy<Value = Said> {
    prop_oneof![
        (0..200usize).prop_map(Said::Inline),
        Just(Said::Own),
        Just(Said::Own),
        Just(Said::Again),
        Just(Said::Hidden),
        Just(Said::OfDriver),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let report =
        (0..3u32, 0..8u32, any::<bool>(), vec((0..8u32, values()), 0..3), vec((0..8u32, 0..5u8), 0..2), 0..3u32);
    prop_oneof![
        1 => Just(Message::Hello),
        6 => report.prop_map(|(seq, upto, ended, published, troubles, class)| {
            Message::Report { seq, upto, ended, published, troubles, class }
        }),
        3 => (objects(), proptest::option::of(values())).prop_map(|(object, value)| Message::Published(object, value)),
        2 => (objects(), prop_oneof![values().prop_map(Ok), (0..5u8).prop_map(Err)])
            .prop_map(|(object, outcome)| Message::Completed(object, outcome)),
        1 => (any::<bool>(), 0..3u32, any::<u64>(), any::<bool>())
            .prop_map(|(own, id, size, fd)| Message::Segment { own, id, size, fd }),
        1 => (any::<bool>(), 0..3u32).prop_map(|(own, id)| Message::SegmentGone { own, id }),
        1 => Just(Message::Unpin),
        3 => (any::<bool>(), 0..3u32, any::<bool>(), 0..4u8)
            .prop_map(|(own, seq, sound, kind)| Message::Submit { own, seq, sound, kind }),
        2 => (any::<bool>(), 0..3u32, 0..9u32).prop_map(|(own, seq, upto)| Message::Extend { own, seq, upto }),
        2 => (objects(), values()).prop_map(|(object, value)| Message::Supply(object, value)),
        2 => (any::<bool>(), 0..3u32, values()).prop_map(|(own, index, value)| Message::Put { own, index, value }),
        1 => vec(objects(), 0..4).prop_map(Message::Hold),
        1 => vec(objects(), 0..4).prop_map(Message::Release),
        2 => (0..3u64, vec(objects(), 0..4), 0..6u32, any::<bool>())
            .prop_map(|(token, objects, need, fail_fast)| Message::Await { token, objects, need, fail_fast }),
        1 => (0..3u64).prop_map(Message::Forget),
        1 => (any::<bool>(), 0..3u32).prop_map(|(own, seq)| Message::Cancel { own, seq }),
        1 => (objects(), any::<bool>(), any::<bool>())
            .prop_map(|(object, force, recursive)| Message::CancelTask(object, force, recursive)),
        1 => (0..3u64).prop_map(Message::Inspect),
        1 => Just(Message::Retire),
        1 => (objects(), any::<bool>()).prop_map(|(actor, restart)| Message::KillActor(actor, restart)),
        1 => (0..3u64, prop::sample::select(vec!["actor", "nobody"])).prop_map(|(token, name)| Message::FindActor(token, name)),
    ]
}

pub(super) fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..200).prop_map(Act::Raw),
        1 => vec(any::<u8>(), 0..200).prop_map(Act::Frame),
        1 => (any::<u32>(), 0..100_000usize).prop_map(|(len, bytes)| Act::Long { len, bytes }),
        8 => messages().prop_map(Act::Say),
        4 => (messages(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..4))
            .prop_map(|(message, bytes)| Act::Mutate(message, bytes)),
        1 => (messages(), any::<prop::sample::Index>()).prop_map(|(message, at)| Act::Cut(message, at)),
        1 => (1..8usize).prop_map(Act::Descriptors),
        2 => vec((0..512usize, any::<u64>()), 1..8).prop_map(Act::Page),
    ]
}

/// See the module.
pub(super) struct Intruder {
    pub(super) id: WorkerId,
    socket: Arc<OwnedFd>,
    reader: Reader,
    page: eagleray_store::Words,
    own: Arena,
    hidden: Arena,
    of_driver: Arena,
    last: Option<eagleray_store::Location>,
}

fn arena(owner: u32) -> Arena {
    let segment_size = 1 << 20;
    Arena::new(ArenaConfig { owner, budget: 16 << 20, escape_dir: std::env::temp_dir(), segment_size })
}

impl Intruder {
    pub(super) fn new(recruit: Recruit) -> Self {
        let Recruit { id, socket, page } = recruit;
        let owner = holder_of(id);
        let page = eagleray_store::Words::open(page).unwrap();
        // Of two arenas of one owner the segments have the same ids: the node will look for blocks of one in the other.
        let socket = Arc::new(socket);
        let reader = Reader::new(Arc::clone(&socket));
        Self { id, socket, reader, page, own: arena(owner), hidden: arena(owner), of_driver: arena(DRIVER), last: None }
    }

    /// Waits until it has been told this.
    pub(super) fn until_told(&mut self, what: impl Fn(&ToWorker) -> bool) {
        let mut unknown = |_| Err(WireError::Inconsistent("no blocks here"));
        let start = Instant::now();
        loop {
            while let Ok(Some(frame)) = self.reader.frame() {
                if read_to_worker(self.id, frame, &mut unknown).is_ok_and(|message| what(&message)) {
                    return;
                }
            }
            if !self.reader.fill(false).unwrap() {
                assert!(start.elapsed() < WATCHDOG, "it was never told");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// It is up, and is this process.
    pub(super) fn say_hello_as(&mut self, pid: u32) {
        self.write(&Self::frame(&FromWorker::Hello { pid }), &[]);
    }

    /// Its control page.
    pub(super) fn page(&self) -> Page<'_> {
        Page::new(self.page.words()).unwrap()
    }

    /// Writes all, if the session still reads.
    fn write(&self, bytes: &[u8], fds: &[OwnedFd]) {
        let mut rest = bytes;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut rights = !fds.is_empty();
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if std::mem::take(&mut rights) {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            {
                Ok(sent) => rest = &rest[sent..],
                Err(_) => return,
            }
        }
    }

    fn frame(message: &FromWorker) -> BytesMut {
        let mut frame = BytesMut::new();
        put_from_worker(&mut frame, message);
        frame
    }

    fn announce(&self, segments: Vec<NewSegment>) {
        for segment in segments {
            let message = FromWorker::Segment { id: segment.segment, size: segment.size };
            self.write(&Self::frame(&message), &[segment.fd]);
        }
    }

    fn value(&mut self, said: &Said) -> Value {
        let arena = match said {
            Said::Inline(len) => return Value::Inline(Bytes::from(vec![7; *len])),
            Said::Again => {
                let last = self.last.and_then(|location| self.own.local(&location));
                return last.map_or(Value::Inline(Bytes::new()), Value::Sealed);
            }
            Said::Own => &self.own,
            Said::Hidden => &self.hidden,
            Said::OfDriver => &self.of_driver,
        };
        let location = arena.alloc(100).unwrap().seal();
        if matches!(said, Said::Own) {
            self.announce(self.own.take_new_segments());
            self.last = Some(location);
        }
        Value::Sealed(arena.local(&location).unwrap())
    }

    fn graph(&self, own: bool, seq: u32) -> GraphId {
        GraphId { peer: if own { PeerId::of_worker(self.id) } else { PeerId::USER }, seq }
    }

    fn trouble(&self, kind: u8, index: u32) -> Trouble {
        match kind {
            0 => Trouble::Raised((*b"raised").into()),
            1 => Trouble::Skipped,
            2 => Trouble::Deferred,
            3 => Trouble::Cancelled,
            _ => Trouble::InputNotHere(vec![ObjectId { graph: self.graph(false, 1), index }]),
        }
    }

    /// Objects that a value names: some of others, and some that there never were. Never ones that name it in turn: those
    /// would hold each other to the session's end.
    fn names(&self, number: u32) -> Vec<ObjectId> {
        let named = |own| ObjectId { graph: self.graph(own, number / 2), index: number + 1 };
        if number.is_multiple_of(2) { Vec::new() } else { vec![named(false), named(true), named(false)] }
    }

    fn message(&mut self, message: &Message) -> FromWorker {
        let peer = PeerId::of_worker(self.id);
        let segment = |own: bool, id: u32| u64::from(if own { peer.0 } else { 0 }) << 32 | u64::from(id);
        match message.clone() {
            Message::Hello => FromWorker::Hello { pid: 1 },
            Message::Report { seq, upto, ended, published, troubles, class } => {
                let trouble = |(index, kind)| (index, self.trouble(kind, index));
                let troubles = troubles.into_iter().map(trouble).collect();
                let timing = Timing { class, count: 0, total_ns: u64::MAX, max_ns: u64::MAX, total_bytes: u64::MAX };
                let run = RunId { worker: self.id, seq };
                let timings = vec![timing; 2];
                let (places, contained) = (Vec::new(), Vec::new());
                let report = Report { run, upto, ended, troubles, published: places, contained, timings };
                let value = |(index, said): &(u32, Said)| (*index, self.value(said), self.names(*index));
                let values = published.iter().map(value).collect();
                FromWorker::Report { report, values, wakeups: u32::MAX, times: Bytes::from_static(&[0xff; 99]) }
            }
            Message::Published(object, value) => {
                FromWorker::Published(object, value.map(|said| (self.value(&said), self.names(object.index))))
            }
            Message::Completed(object, Ok(said)) => {
                FromWorker::Completed(object, Ok((self.value(&said), self.names(object.index))))
            }
            Message::Completed(object, Err(kind)) => {
                FromWorker::Completed(object, Err(self.trouble(kind, object.index)))
            }
            Message::Segment { own, id, size, .. } => FromWorker::Segment { id: segment(own, id), size },
            Message::SegmentGone { own, id } => FromWorker::SegmentGone(segment(own, id)),
            Message::Unpin => {
                let Value::Sealed(block) = self.value(&Said::Own) else { unreachable!("a block") };
                FromWorker::Unpin(vec![block.location()])
            }
            Message::Submit { own, seq, sound, kind } => {
                let graph = self.graph(own, seq);
                let (mut spec, program) = match kind {
                    0 | 1 => chain(graph, 3),
                    2 => actor(graph),
                    _ => calls(graph, ObjectId { graph: self.graph(true, 1), index: 0 }),
                };
                if kind == 1 {
                    spec.kind = GraphKind::Independent;
                }
                spec.contained = self.names(seq);
                if !sound {
                    spec.position[0] = 7;
                }
                FromWorker::Driver(Command::Submit(Box::new(spec), Box::new(program)))
            }
            Message::Extend { own, seq, upto } => {
                let part = Part { functions: vec!["g".into()], batches: vec!["b".into()] };
                FromWorker::Driver(Command::Extend { graph: self.graph(own, seq), part, admit_upto: upto })
            }
            Message::Supply(object, said) => {
                FromWorker::Driver(Command::Supply(object, self.value(&said), self.names(object.index)))
            }
            Message::Put { own, index, value } => {
                let object = ObjectId { graph: self.graph(own, 0), index };
                FromWorker::Driver(Command::Put(object, self.value(&value), self.names(index)))
            }
            Message::Hold(objects) => FromWorker::Driver(Command::Hold(objects)),
            Message::Release(objects) => FromWorker::Driver(Command::Release(objects)),
            Message::Await { token, objects, need, fail_fast } => {
                FromWorker::Driver(Command::Await { token, objects, need, fail_fast })
            }
            Message::Forget(token) => FromWorker::Driver(Command::Forget(token)),
            Message::Cancel { own, seq } => FromWorker::Driver(Command::Cancel(self.graph(own, seq))),
            Message::CancelTask(object, force, recursive) => {
                FromWorker::Driver(Command::CancelTask { object, force, recursive })
            }
            Message::KillActor(actor, restart) => FromWorker::Driver(Command::KillActor { actor, restart }),
            Message::Inspect(token) => FromWorker::Driver(Command::Inspect {
                token,
                look: Look { tasks: 9, phases: 9, counts: true, makers: 9, objects: 9, workers: true },
            }),
            Message::Retire => FromWorker::Retire,
            Message::FindActor(token, who) => FromWorker::Driver(Command::FindActor { token, name: name(who) }),
        }
    }

    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Raw(bytes) => self.write(bytes, &[]),
            Act::Frame(bytes) => {
                let mut frame = BytesMut::new();
                frame.put_u32_le(bytes.len() as u32);
                frame.extend_from_slice(bytes);
                self.write(&frame, &[]);
            }
            Act::Long { len, bytes } => {
                self.write(&len.to_le_bytes(), &[]);
                self.write(&vec![0; (*bytes).min(*len as usize)], &[]);
            }
            Act::Say(message) => {
                // Not a segment at all.
                let file =
                    matches!(message, Message::Segment { fd: true, .. }).then(|| rustix::pipe::pipe().unwrap().0);
                let message = self.message(message);
                self.write(&Self::frame(&message), file.as_slice());
            }
            Act::Mutate(message, changes) => {
                let message = self.message(message);
                let mut frame = Self::frame(&message);
                for (at, byte) in changes {
                    let at = at.index(frame.len());
                    frame[at] = *byte;
                }
                self.write(&frame, &[]);
            }
            Act::Cut(message, at) => {
                let message = self.message(message);
                let frame = Self::frame(&message);
                self.write(&frame[..at.index(frame.len())], &[]);
            }
            Act::Descriptors(count) => {
                let fds: Vec<OwnedFd> = (0..*count).map(|_| rustix::pipe::pipe().unwrap().0).collect();
                self.write(&[0], &fds);
            }
            Act::Page(words) => {
                for (at, word) in words {
                    self.page.words()[*at].store(*word, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    }
}
