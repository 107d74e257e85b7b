//! What a worker says of tasks, actors and values, as frames: read as it was written, and refused where it cannot be true.

use bytes::{Bytes, BytesMut};
use eagleray_core::graph::Csr;
use eagleray_core::head::{ActorInfo, ObjectInfo, TaskStanding};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{
    ActorName, ActorSpec, ClassSpec, Death, Demand, End, Failure, FailureKind, GraphKind, GraphSpec, Place, Report,
    Timing, Trouble, WHOLE,
};
use eagleray_store::{Block, Location};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::command::Command;
use crate::look::{Look, ObjectState, Phase, Snapshot, TaskCount, TaskKind, TaskState, WorkerState};
use crate::program::{Part, Program, RetryFilter, Template, Value};
use crate::shared::{Counters, WorkerInfo};
use crate::wire::{FromWorker, WireError, put_from_worker, read_from_worker, read_snapshot, snapshot};

const WORKER: WorkerId = WorkerId(3);

fn object(index: u32) -> ObjectId {
    ObjectId { graph: GraphId { peer: PeerId(1), seq: 2 }, index }
}

fn value() -> Value {
    Value::Inline("value".into())
}

fn name() -> ActorName {
    ActorName { namespace: "space".into(), name: "n\u{e4}me".into() }
}

fn submit(kind: GraphKind, contained: Vec<ObjectId>, actor_meta: Option<Bytes>) -> FromWorker {
    let mut inputs = Csr::new();
    inputs.push_row([1]);
    let mut code = Csr::new();
    code.push_row([0, u32::MAX, 0, u32::MAX]);
    let spec = GraphSpec {
        id: object(0).graph,
        inputs,
        externals: vec![object(7)],
        position: vec![0],
        class: vec![0],
        classes: vec![ClassSpec { fingerprint: 9, max_retries: 3, retries: 4, demand: 1, part: true }],
        demands: vec![Demand { cpu: WHOLE, others: vec![("GPU".into(), WHOLE / 2)] }],
        priority: -1,
        outputs: vec![0],
        kind,
        contained,
    };
    let program = Program {
        templates: vec![Template { code: "t".into(), functions: vec![0] }],
        code,
        hooks: Some("h".into()),
        surroundings: Some("s".into()),
        retry_filters: vec![RetryFilter { classes: vec![0], exceptions: None }],
        actor_meta,
        names: vec!["sum".into()],
    };
    FromWorker::Driver(Command::Submit(Box::new(spec), Box::new(program)))
}

fn report() -> FromWorker {
    let troubles = [
        Trouble::Raised((*b"raised").into()),
        Trouble::Retry((*b"again").into()),
        Trouble::Skipped,
        Trouble::InputNotHere(vec![object(1)]),
        Trouble::Unsendable((*b"a lock").into()),
        Trouble::Deferred,
        Trouble::Cancelled,
    ];
    let place = Place::Inline { len: 5 };
    let report = Report {
        run: RunId { worker: WORKER, seq: 9 },
        upto: 10,
        ended: true,
        troubles: (0..).zip(troubles).collect(),
        published: vec![(7, place), (8, place), (9, place)],
        contained: vec![(7, vec![object(2)]), (9, vec![object(3), object(4)])],
        timings: vec![Timing { class: 0, count: 3, total_ns: 30, max_ns: 20, total_bytes: 15 }],
    };
    let values =
        vec![(7, value(), vec![object(2)]), (8, value(), Vec::new()), (9, value(), vec![object(3), object(4)])];
    FromWorker::Report { report, values, wakeups: 1, times: "some times".into() }
}

/// One message of each kind, and more of those that have forms.
fn messages() -> Vec<FromWorker> {
    let actor = |name, max_restarts| {
        GraphKind::Actor(Box::new(ActorSpec { name, detached: max_restarts > 0, max_restarts, cpu: WHOLE / 4 }))
    };
    let driver = FromWorker::Driver;
    vec![
        FromWorker::Hello { pid: 77 },
        report(),
        FromWorker::Published(object(1), None),
        FromWorker::Published(object(1), Some((value(), vec![object(2)]))),
        FromWorker::Completed(object(1), Ok((value(), vec![object(2), object(3)]))),
        FromWorker::Completed(object(1), Err(Trouble::Raised((*b"raised").into()))),
        FromWorker::Completed(object(1), Err(Trouble::Retry((*b"again").into()))),
        FromWorker::Completed(object(1), Err(Trouble::Cancelled)),
        FromWorker::Segment { id: 5 << 32, size: 4096 },
        FromWorker::SegmentGone(5 << 32),
        FromWorker::Unpin(vec![Location { segment: 4 << 32, offset: 64, len: 10, generation: 1 }]),
        submit(GraphKind::Computation, Vec::new(), None),
        submit(GraphKind::Independent, vec![object(8), object(9)], None),
        submit(GraphKind::Calls, Vec::new(), None),
        submit(actor(None, 0), Vec::new(), Some(Bytes::new())),
        submit(actor(Some(name()), u32::MAX), vec![object(8)], Some("methods".into())),
        FromWorker::Retire,
        driver(Command::Extend {
            graph: object(0).graph,
            part: Part { functions: vec!["f".into()], batches: vec!["b".into()] },
            admit_upto: 1,
        }),
        driver(Command::Supply(object(0), value(), vec![object(2)])),
        driver(Command::Put(object(0), value(), vec![object(2), object(3)])),
        driver(Command::Hold(vec![object(1)])),
        driver(Command::Release(vec![object(1)])),
        driver(Command::Await { token: 3, objects: vec![object(1)], need: 1, fail_fast: true }),
        driver(Command::Forget(3)),
        driver(Command::Cancel(object(0).graph)),
        driver(Command::CancelTask { object: object(1), force: true, recursive: false }),
        driver(Command::CancelTask { object: object(1), force: false, recursive: true }),
        driver(Command::KillActor { actor: object(0), restart: true }),
        driver(Command::FindActor { token: 4, name: name() }),
        driver(Command::Inspect {
            token: 5,
            look: Look { tasks: 3, phases: 5, counts: true, makers: 2, objects: 1, workers: true },
        }),
        driver(Command::Yield { stream: object(1), index: 7, part: object(2) }),
        driver(Command::Next { token: 6, stream: object(1), index: 8, take: true }),
        driver(Command::Ahead { token: 7, stream: object(1), taken: 9 }),
    ]
}

fn body(message: &FromWorker) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_from_worker(&mut out, message);
    out[4..].to_vec()
}

fn read(body: Vec<u8>) -> Result<FromWorker, WireError> {
    let mut unknown = |_: Location| -> Result<Block, WireError> { Err(WireError::Inconsistent("no blocks here")) };
    read_from_worker(WORKER, body.into(), &mut unknown)
}

#[test]
fn what_a_worker_says_is_read_as_it_was_written() {
    for message in messages() {
        assert_eq!(format!("{:?}", read(body(&message)).unwrap()), format!("{message:?}"));
    }
}

#[test]
fn how_things_stand_is_read_as_it_was_written() {
    let unnamed = ActorInfo { actor: object(1), name: None, worker: None, alive: false, restarts: 0, detached: false };
    let named = ActorInfo {
        name: Some(name()),
        worker: Some(WORKER),
        alive: true,
        restarts: 3,
        detached: true,
        ..unnamed.clone()
    };
    let written = Snapshot {
        offered: vec![("CPU".into(), 2 * WHOLE), ("GPU".into(), WHOLE)],
        free: vec![("CPU".into(), 0), ("GPU".into(), 1)],
        actors: vec![unnamed, named],
        tasks: STANDINGS.map(|standing| task_state(standing, None)).to_vec(),
        tasks_total: 6,
        tasks_forgotten: 7,
        counts: Phase::ALL
            .map(|phase| TaskCount { name: "sum".into(), kind: TaskKind::Independent, phase, count: 1 << 40 })
            .to_vec(),
        makers: vec![task_state(TaskStanding::Failed, Some(name()))],
        makers_total: 1,
        makers_forgotten: 2,
        objects: vec![
            object_state(Some(Place::Inline { len: 0 }), None),
            object_state(Some(Place::Sealed { len: 70_000 }), Some(TaskStanding::Done)),
            object_state(None, Some(TaskStanding::Waits)),
        ],
        objects_total: 4,
        workers: vec![worker_state(None), worker_state(Some(End::Signalled(9).into()))],
        store_bytes: 1 << 40,
        counters: Counters { frames: 1, tasks: 2, sealed_bytes: 3, ..Counters::default() },
    };
    let bytes = snapshot(&written);
    assert_eq!(read_snapshot(bytes.clone()).unwrap(), written);
    assert!(read_snapshot(bytes.slice(..bytes.len() - 1)).is_err());
}

const STANDINGS: [TaskStanding; 7] = [
    TaskStanding::Waits,
    TaskStanding::Ready,
    TaskStanding::Assigned(WORKER),
    TaskStanding::Follows(WORKER),
    TaskStanding::Deferred(WORKER),
    TaskStanding::Done,
    TaskStanding::Failed,
];

fn task_state(standing: TaskStanding, actor_name: Option<ActorName>) -> TaskState {
    TaskState {
        object: object(3),
        name: "sum".into(),
        kind: if actor_name.is_some() { TaskKind::Actor } else { TaskKind::Call },
        detached: actor_name.is_some(),
        actor: Some(object(4)),
        actor_name,
        standing,
        running_since: matches!(standing, TaskStanding::Assigned(_)).then_some(0),
        blocked: true,
        attempts: 2,
        failure: (standing == TaskStanding::Failed)
            .then(|| Failure { origin: object(5), kind: FailureKind::Cancelled }),
        demand: vec![("CPU".into(), WHOLE)],
    }
}

fn object_state(place: Option<Place>, task: Option<TaskStanding>) -> ObjectState {
    let info = ObjectInfo {
        object: object(6),
        place,
        resident: place.is_none().then_some(WORKER),
        consumers: 1,
        holders: 2,
        peers: vec![PeerId::USER, PeerId::of_worker(WORKER)],
        task,
    };
    ObjectState { info, name: "sum".into() }
}

fn worker_state(death: Option<Death>) -> WorkerState {
    let alive = death.is_none();
    WorkerState {
        info: WorkerInfo { id: WORKER.0, pid: 5, up: alive, busy: alive, runs: 6, tasks: 7, alive },
        actor: alive.then(|| object(8)),
        running: alive.then(|| (object(9), 10)),
        blocked: alive,
        kept: 11,
        death,
    }
}

#[test]
fn a_value_names_no_more_objects_than_it_has_bytes() {
    let tiny = || Value::Inline("12".into());
    for (named, sound) in [(2, true), (3, false)] {
        let named: Vec<ObjectId> = (0..named).map(object).collect();
        let mut messages = vec![
            FromWorker::Published(object(9), Some((tiny(), named.clone()))),
            FromWorker::Completed(object(9), Ok((tiny(), named.clone()))),
            FromWorker::Driver(Command::Put(object(9), tiny(), named.clone())),
            FromWorker::Driver(Command::Supply(object(9), tiny(), named.clone())),
            report(),
        ];
        if let Some(FromWorker::Report { values, .. }) = messages.last_mut() {
            values.push((10, tiny(), named));
        }
        for message in messages {
            assert_eq!(read(body(&message)).is_ok(), sound, "{message:?}");
        }
    }
}

#[test]
fn what_was_deferred_ends_well_or_raises_or_is_interrupted() {
    let others = [
        Trouble::Skipped,
        Trouble::InputNotHere(vec![object(1)]),
        Trouble::Unsendable((*b"a lock").into()),
        Trouble::Deferred,
    ];
    for trouble in others {
        let refused = read(body(&FromWorker::Completed(object(1), Err(trouble))));
        assert!(matches!(refused, Err(WireError::Inconsistent(_))), "{refused:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spoilt_frames_of_a_worker_are_a_message_or_an_error(
        which in any::<Index>(), changes in vec((any::<Index>(), any::<u8>()), 0..5), cut in any::<Index>(), whole in any::<bool>()
    ) {
        let bodies: Vec<Vec<u8>> = messages().iter().map(body).collect();
        let mut body = which.get(&bodies).clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if !whole {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(FromWorker::Report { report, values, .. }) = read(body) {
            prop_assert_eq!(report.published.len(), values.len());
            let named = values.iter().filter(|(_, _, named)| !named.is_empty()).count();
            prop_assert_eq!(report.contained.len(), named);
        }
    }
}
