//! Whatever sequence of messages comes, sensible or not: the head's tables stay consistent, and it does not panic.

use eagleray_core::graph::Csr;
use eagleray_core::head::{Effect, Head, HeadConfig, HeadEvent, ResultsMode};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, RunId, WorkerId};
use eagleray_core::message::{
    ActorName, ActorSpec, ClassSpec, Demand, End, FromDriver, FromNode, GPU, GraphKind, GraphSpec, Place, Report, Run,
    Timing, ToHead, ToNode, Trouble, WHOLE, output,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PLACE: Place = Place::Inline { len: 8 };

/// Ids are from so few that they often fit.
fn graph_ids() -> impl Strategy<Value = GraphId> {
    (0..3u32, 0..4u32).prop_map(|(peer, seq)| GraphId { peer: PeerId(peer), seq })
}

fn objects() -> impl Strategy<Value = ObjectId> {
    (graph_ids(), 0..6u32).prop_map(|(graph, index)| ObjectId { graph, index })
}

fn workers() -> impl Strategy<Value = WorkerId> {
    (0..4u32).prop_map(WorkerId)
}

fn runs() -> impl Strategy<Value = RunId> {
    (workers(), 0..6u32).prop_map(|(worker, seq)| RunId { worker, seq })
}

/// Of "license" there is 1, of GPUs 2; of "nothing" there is none.
fn demands() -> impl Strategy<Value = Demand> {
    let others = prop_oneof![
        Just(vec![]),
        Just(vec![("license".into(), WHOLE)]),
        Just(vec![("license".into(), WHOLE / 2), (GPU.into(), WHOLE / 2)]),
        Just(vec![(GPU.into(), 2 * WHOLE)]),
        Just(vec![("nothing".into(), 1)]),
        Just(vec![(GPU.into(), WHOLE), (GPU.into(), WHOLE)]),
    ];
    (0..3u64, others).prop_map(|(cpu, others)| Demand { cpu: cpu * WHOLE, others })
}

fn names() -> impl Strategy<Value = ActorName> {
    prop_oneof![Just("a"), Just("b")].prop_map(|name| ActorName { namespace: "n".into(), name: name.into() })
}

fn kinds() -> impl Strategy<Value = GraphKind> {
    let actors = (proptest::option::of(names()), any::<bool>(), 0..3u32, 0..2u64).prop_map(
        |(name, detached, max_restarts, cpu)| {
            GraphKind::Actor(Box::new(ActorSpec { name, detached, max_restarts, cpu: cpu * WHOLE }))
        },
    );
    prop_oneof![4 => Just(GraphKind::Computation), 3 => Just(GraphKind::Independent), 3 => actors, 3 => Just(GraphKind::Calls)]
}

prop_compose! {
    fn specs()(
        kind in kinds(),
        contained in vec(objects(), 0..3),
        actor in graph_ids(),
        id in graph_ids(),
        mut rows in vec(vec(0..8u32, 0..3), 0..6),
        mut externals in vec(objects(), 0..3),
        swap in proptest::option::weighted(0.1, 0..6usize),
        outputs in vec(0..6u32, 0..4),
        max_retries in 0..3u8,
        sound in proptest::bool::weighted(0.9),
        mut demands in vec(demands(), 0..3),
        mut needs in vec((0..3u16, 0..4u32), 1..4),
        priority in -1..2i32,
    ) -> GraphSpec {
        if sound {
            match kind {
                GraphKind::Actor(_) => {
                    rows = vec![vec![]];
                    demands.insert(0, Demand { cpu: WHOLE, others: Vec::new() });
                    for (_, demand) in &mut needs {
                        *demand = (*demand).max(1);
                    }
                }
                GraphKind::Calls => {
                    externals.insert(0, ObjectId { graph: actor, index: 0 });
                    let n = rows.len() as u32;
                    for row in &mut rows {
                        row.push(n);
                    }
                    for (_, demand) in &mut needs {
                        *demand = 0;
                    }
                }
                GraphKind::Computation | GraphKind::Independent => {}
            }
        }
        let n = rows.len() as u32;
        let mut inputs = Csr::new();
        for (task, row) in (0u32..).zip(rows) {
            // Most are graphs; the others are to be refused.
            let fits = |&input: &u32| !sound || input < task || (input >= n && input - n < externals.len() as u32);
            let mut row: Vec<u32> = row.into_iter().filter(fits).collect();
            row.sort_unstable();
            row.dedup();
            inputs.push_row(row);
        }
        let mut position: Vec<u32> = (0..n).collect();
        if let Some(at) = swap {
            let len = position.len();
            if at + 1 < len {
                position.swap(at, at + 1);
            }
        }
        let outputs = outputs.into_iter().filter(|&task| !sound || task < n).collect();
        GraphSpec {
            id,
            inputs,
            externals,
            position,
            class: (0..n).map(|task| task % needs.len() as u32).collect(),
            classes: needs
                .into_iter()
                .map(|(retries, demand)| {
                    let demand = if sound { demand.min(demands.len() as u32) } else { demand };
                    ClassSpec { fingerprint: u64::from(n), max_retries, retries, demand, part: false }
                })
                .collect(),
            outputs,
            demands,
            priority,
            kind,
            contained,
        }
    }
}

fn driver_messages() -> impl Strategy<Value = ToHead> {
    prop_oneof![
        4 => specs().prop_map(|spec| ToHead::Submit(Box::new(spec))),
        4 => (graph_ids(), 0..7u32).prop_map(|(graph, upto)| ToHead::Admit { graph, upto }),
        1 => (objects(), vec(objects(), 0..3))
            .prop_map(|(object, contained)| ToHead::Supply { object, place: PLACE, contained }),
        1 => (objects(), vec(objects(), 0..3))
            .prop_map(|(object, contained)| ToHead::Put { object, place: PLACE, contained }),
        2 => (objects(), any::<bool>(), any::<bool>())
            .prop_map(|(object, force, recursive)| ToHead::CancelTask { object, force, recursive }),
        1 => (graph_ids(), any::<bool>())
            .prop_map(|(graph, restart)| ToHead::KillActor { actor: ObjectId { graph, index: 0 }, restart }),
        2 => (objects(), 0..3u32, objects()).prop_map(|(stream, index, part)| ToHead::Yield { stream, index, part }),
        2 => (0..4u64, objects(), 0..3u32, any::<bool>())
            .prop_map(|(token, stream, index, take)| ToHead::Next { token, stream, index, take }),
        1 => (0..4u64, names()).prop_map(|(token, name)| ToHead::FindActor { token, name }),
        2 => vec(objects(), 0..3).prop_map(ToHead::Hold),
        2 => vec(objects(), 0..3).prop_map(ToHead::Release),
        3 => (0..4u64, vec(objects(), 0..4), 0..5u32, any::<bool>())
            .prop_map(|(token, objects, need, fail_fast)| ToHead::Await { token, objects, need, fail_fast }),
        1 => (0..4u64).prop_map(|token| ToHead::Forget { token }),
        1 => graph_ids().prop_map(|graph| ToHead::Cancel { graph }),
        1 => Just(ToHead::Bye),
    ]
}

fn troubles() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Raised(b"x".as_slice().into())),
        Just(Trouble::Retry(b"x".as_slice().into())),
        Just(Trouble::Skipped),
        vec(objects(), 0..3).prop_map(Trouble::InputNotHere),
        Just(Trouble::Deferred),
        Just(Trouble::Cancelled),
        Just(Trouble::Unsendable(b"x".as_slice().into())),
    ]
}

prop_compose! {
    fn reports()(
        run in runs(),
        upto in 0..6u32,
        ended in any::<bool>(),
        troubles in vec((0..6u32, troubles()), 0..2),
        published in vec((0..6u32, Just(PLACE)), 0..3),
        contained in vec((0..6u32, vec(objects(), 0..3)), 0..2),
        class in 0..2u32,
        count in 0..3u32,
    ) -> Report {
        let timing = Timing { class, count, total_ns: u64::from(count) * 100_000, max_ns: 100_000, total_bytes: 8 };
        Report { run, upto, ended, troubles, published, contained, timings: vec![timing] }
    }
}

fn outcomes() -> impl Strategy<Value = Result<(Place, Vec<ObjectId>), Trouble>> {
    prop_oneof![vec(objects(), 0..3).prop_map(|contained| Ok((PLACE, contained))), troubles().prop_map(Err)]
}

fn node_messages() -> impl Strategy<Value = FromNode> {
    let places = proptest::option::of(Just(PLACE));
    prop_oneof![
        3 => workers().prop_map(FromNode::WorkerUp),
        1 => (workers(), proptest::option::of((0..4u32, 0..4u32)))
            .prop_map(|(worker, running)| FromNode::WorkerDown { worker, death: End::Exited(1).into(), running }),
        3 => reports().prop_map(FromNode::Report),
        2 => (runs(), 0..6u32).prop_map(|(run, limit)| FromNode::Recalled { run, limit }),
        2 => (workers(), objects(), places, vec(objects(), 0..3))
            .prop_map(|(worker, object, place, contained)| FromNode::Published { worker, object, place, contained }),
        2 => (workers(), objects(), outcomes())
            .prop_map(|(worker, object, outcome)| FromNode::Completed { worker, object, outcome }),
        1 => (workers(), vec((0..6u32, 0..6u32), 0..3), proptest::option::of(any::<u64>()))
            .prop_map(|(worker, claimed, running_ns)| FromNode::Sampled { worker, claimed, running_ns }),
        1 => Just(FromNode::CannotStart(End::Exited(3).into())),
    ]
}

/// An event as it comes, or something that the state of things is asked for.
#[derive(Clone, Debug)]
enum Move {
    Driver(u32, ToHead),
    Node(FromNode),
    Tick,
    Schedule,
    /// The run with this number, modulo how many there are, ends well up to a percentage, or with trouble.
    Work {
        pick: usize,
        percent: u32,
        trouble: Option<(u32, Trouble)>,
    },
    /// A publish request is answered.
    Publish {
        grant: bool,
    },
    /// A recall is answered.
    Recall,
    /// A worker dies amid the task with this number of its first run.
    Die {
        pick: usize,
        index: u32,
    },
    /// A deferred task ends.
    Complete {
        pick: usize,
        outcome: Result<(Place, Vec<ObjectId>), Trouble>,
    },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (0..3u32, driver_messages()).prop_map(|(peer, message)| Move::Driver(peer, message)),
        3 => node_messages().prop_map(Move::Node),
        1 => Just(Move::Tick),
        4 => Just(Move::Schedule),
        6 => (any::<usize>(), 0..150u32, proptest::option::weighted(0.2, (0..4u32, troubles())))
            .prop_map(|(pick, percent, trouble)| Move::Work { pick, percent, trouble }),
        2 => proptest::bool::weighted(0.8).prop_map(|grant| Move::Publish { grant }),
        2 => Just(Move::Recall),
        1 => (any::<usize>(), 0..4u32).prop_map(|(pick, index)| Move::Die { pick, index }),
        2 => (any::<usize>(), outcomes()).prop_map(|(pick, outcome)| Move::Complete { pick, outcome }),
    ]
}

/// What the head asked for and has not got yet.
#[derive(Default)]
struct Asked {
    runs: Vec<(Run, u32)>,
    publish: Vec<(WorkerId, ObjectId)>,
    recall: Vec<(RunId, u32)>,
    deferred: Vec<(WorkerId, ObjectId)>,
}

impl Asked {
    fn take(&mut self, head: &mut Head) {
        for effect in head.drain() {
            let Effect::ToNode(message) = effect else { continue };
            match message {
                ToNode::Assign(run) => self.runs.push((run, 0)),
                ToNode::Publish { worker, objects, .. } => {
                    self.publish.extend(objects.into_iter().map(|o| (worker, o)));
                }
                ToNode::Recall { run, from } => self.recall.push((run, from)),
                _ => {}
            }
        }
    }

    fn work(&mut self, pick: usize, percent: u32, trouble: Option<(u32, Trouble)>) -> Option<FromNode> {
        if self.runs.is_empty() {
            return None;
        }
        let at = pick % self.runs.len();
        let (run, reported) = &mut self.runs[at];
        let len = run.tasks.len() as u32;
        let upto = (len * percent / 100).clamp(*reported, len);
        let ended = percent >= 100;
        let troubles: Vec<_> = trouble.into_iter().filter(|(place, _)| (*reported..upto).contains(place)).collect();
        let published = (*reported..upto)
            .filter(|&i| {
                run.outputs[i as usize] & output::PUBLISH != 0 && troubles.iter().all(|(place, _)| *place != i)
            })
            .map(|i| (i, PLACE))
            .collect();
        for (place, _) in troubles.iter().filter(|(_, trouble)| matches!(trouble, Trouble::Deferred)) {
            let object = ObjectId { graph: run.graph, index: run.tasks[*place as usize] };
            self.deferred.push((run.id.worker, object));
        }
        *reported = upto;
        let report =
            Report { run: run.id, upto, ended, troubles, published, contained: Vec::new(), timings: Vec::new() };
        if ended {
            self.runs.swap_remove(at);
        }
        Some(FromNode::Report(report))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_messages_leaves_the_head_consistent(
        slots in 1..3u32,
        mode in prop_oneof![Just(ResultsMode::Auto), Just(ResultsMode::Resident), Just(ResultsMode::Sealed)],
        moves in vec(moves(), 0..120),
    ) {
        let config = HeadConfig {
            results: mode,
            max_workers: 4,
            max_run: 4,
            offers: vec![("license".into(), WHOLE), (GPU.into(), 2 * WHOLE)],
            patience_ns: 200_000,
            ..HeadConfig::new(slots)
        };
        let mut head = Head::new(config);
        let mut asked = Asked::default();
        let mut now = 0;
        for step in moves {
            now += 50_000;
            let message = match step {
                Move::Driver(peer, message) => {
                    head.handle(now, HeadEvent::Driver(FromDriver { peer: PeerId(peer), message }));
                    None
                }
                Move::Node(message) => Some(message),
                Move::Tick => {
                    head.handle(now, HeadEvent::Tick);
                    None
                }
                Move::Schedule => {
                    head.schedule(now);
                    None
                }
                Move::Work { pick, percent, trouble } => asked.work(pick, percent, trouble),
                Move::Publish { grant } => asked.publish.pop().map(|(worker, object)| {
                    FromNode::Published { worker, object, place: grant.then_some(PLACE), contained: Vec::new() }
                }),
                Move::Die { pick, index } if !asked.runs.is_empty() => {
                    let run = asked.runs[pick % asked.runs.len()].0.id;
                    asked.runs.retain(|(other, _)| other.id.worker != run.worker);
                    let running = Some((run.seq, index));
                    Some(FromNode::WorkerDown { worker: run.worker, death: End::Exited(1).into(), running })
                }
                Move::Complete { pick, outcome } if !asked.deferred.is_empty() => {
                    let at = pick % asked.deferred.len();
                    let (worker, object) = asked.deferred.swap_remove(at);
                    Some(FromNode::Completed { worker, object, outcome })
                }
                Move::Die { .. } | Move::Complete { .. } => None,
                Move::Recall => asked.recall.pop().map(|(run, limit)| FromNode::Recalled { run, limit }),
            };
            if let Some(message) = message {
                head.handle(now, HeadEvent::Node(message));
            }
            asked.take(&mut head);
            prop_assert_eq!(head.check(), Ok(()));
        }
    }
}
