//! What the node says is not believed either: a worker that cannot understand it ends with an error.

use bytes::{Bytes, BytesMut};
use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{ActorDeath, ActorEnd, Death, End, Failure, FailureKind, Run, Shortage};
use eagleray_store::{Location, Words};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::command::Answer;
use crate::link::{Link, LinkConfig};
use crate::program::{Intro, RetryFilter, RunProgram, Template, Value};
use crate::wire::{ToWorker, WireError, put_to_worker, read_from_worker, read_to_worker};

const WORKER: WorkerId = WorkerId(3);

fn object(index: u32) -> ObjectId {
    ObjectId { graph: GraphId { peer: PeerId(1), seq: 2 }, index }
}

/// One message of each kind.
fn messages() -> Vec<ToWorker> {
    let mut code = Csr::new();
    code.push_row([0, 0, 0, 0, 7]);
    code.push_row([1, u32::MAX, 0, 1]);
    let tasks = vec![4, 5];
    let run = Run {
        id: RunId { worker: WORKER, seq: 9 },
        graph: object(0).graph,
        tasks,
        outputs: vec![1, 2],
        inputs: vec![object(1)],
        gpus: vec![0, 3],
    };
    let template = Template { code: Bytes::from_static(&[1; 8]), functions: vec![0, 1] };
    let intros = vec![
        Intro::Graph { len: 9, externals: vec![object(3)] },
        Intro::Function { id: 0, blob: 1, bytes: Some("f".into()) },
        Intro::Template { id: 0, template },
        Intro::Batch { id: 0, bytes: "b".into() },
        Intro::Hooks("h".into()),
        Intro::RetryFilter(RetryFilter { classes: vec![0, 2], exceptions: Some("e".into()) }),
    ];
    let inputs = vec![(object(1), Value::Inline("value".into()))];
    let failure = |kind| (object(2), Err(Failure { origin: object(1), kind }));
    let actor = |end| failure(FailureKind::ActorDied(Box::new(ActorDeath { end, restarts: 3 })));
    let ended = vec![
        (object(0), Ok(Value::Inline("x".into()))),
        failure(FailureKind::Raised { error: (*b"error").into(), attempts: 2 }),
        failure(FailureKind::Infeasible(Box::new(Shortage { resource: "GPU".into(), asked: 2, offered: 1, held: 1 }))),
        failure(FailureKind::WorkerDied {
            death: Death { end: End::Signalled(9), pid: 77, peak_bytes: 1 << 20 },
            attempts: 4,
        }),
        failure(FailureKind::NoWorkers(End::NeverStarted("why".into()).into())),
        failure(FailureKind::TooDeep { depth: 4, most: 3 }),
        actor(ActorEnd::Init { error: (*b"error").into() }),
        actor(ActorEnd::Died(Death { end: End::Exited(1), pid: 78, peak_bytes: 0 })),
        actor(ActorEnd::Killed),
        actor(ActorEnd::Released),
        actor(ActorEnd::NameTaken),
    ];
    let location = Location { segment: 4 << 32, offset: 64, len: 10, generation: 1 };
    vec![
        ToWorker::Run(RunProgram { run, code, intros, inputs }),
        ToWorker::Publish { objects: vec![object(4)], seal: true },
        ToWorker::Drop(vec![object(4)]),
        ToWorker::Forget(object(0).graph),
        ToWorker::DropBlobs(vec![1, 2]),
        ToWorker::Recycle(vec![location]),
        ToWorker::Awaited(Answer { token: 7, ended }),
        ToWorker::Refused("why".into()),
        ToWorker::Stop,
        ToWorker::Segment { id: 5 << 32, size: 4096 },
        ToWorker::SegmentGone(5 << 32),
        ToWorker::Cancel(object(5)),
    ]
}

fn frame(message: &ToWorker) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_to_worker(&mut out, message);
    out.to_vec()
}

/// Frames of the node with bytes changed, and cut.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<Vec<u8>> = messages().iter().map(frame).collect();
    (prop::sample::select(frames), vec((any::<Index>(), any::<u8>()), 0..5), proptest::option::of(any::<Index>()))
        .prop_map(|(mut frame, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len()));
            }
            frame
        })
}

fn unknown(_: Location) -> Result<eagleray_store::Block, WireError> {
    Err(WireError::Inconsistent("no blocks here"))
}

/// What a run's frame is believed of must be true of it.
fn check(message: &ToWorker) {
    if let ToWorker::Run(program) = message {
        assert_eq!(program.code.len(), program.run.tasks.len());
        assert_eq!(program.run.outputs.len(), program.run.tasks.len());
        for row in 0..program.code.len() as u32 {
            let _ = program.code.row(row).len();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        if let Ok(message) = read_to_worker(WORKER, bytes.clone(), &mut unknown) {
            check(&message);
        }
        let _ = read_from_worker(WORKER, bytes, &mut unknown);
    }

    #[test]
    fn spoilt_frames_are_a_message_or_an_error(frame in spoilt()) {
        let body = Bytes::copy_from_slice(frame.get(4..).unwrap_or_default());
        if let Ok(message) = read_to_worker(WORKER, body.clone(), &mut unknown) {
            check(&message);
        }
        let _ = read_from_worker(WORKER, body, &mut unknown);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A worker's end of the socket takes what can be understood, and ends with an error at the rest.
    #[test]
    fn a_link_ends_at_what_it_cannot_understand(frames in vec(spoilt(), 0..6)) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let (_words, page) = Words::create().unwrap();
        let escape_dir = std::env::temp_dir();
        let link = Link::open(LinkConfig { worker: WORKER, socket: theirs, page, store_bytes: 1 << 20, escape_dir }).unwrap();
        for frame in &frames {
            rustix::io::write(&ours, frame).unwrap();
        }
        drop(ours);
        let mut taken = 0;
        while let Ok(message) = link.next(None) {
            check(&message.expect("there was no limit"));
            taken += 1;
        }
        prop_assert!(taken <= frames.len() * 100);
        prop_assert!(link.next(None).is_err());
    }
}

#[test]
fn frames_are_read_as_they_were_written() {
    for message in messages() {
        let read = read_to_worker(WORKER, Bytes::from(frame(&message)[4..].to_vec()), &mut unknown).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
    assert!(read_to_worker(WORKER, Bytes::new(), &mut unknown).is_err());
}
