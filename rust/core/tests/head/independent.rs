//! Tasks that stand for themselves, and values that name other objects.

use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{FailureKind, FromNode, GraphKind, GraphSpec, Place, ToHead, ToNode, Trouble};

use crate::fake::{Fake, USER, graph, graph_id, object, wide};

fn independent(spec: GraphSpec) -> GraphSpec {
    GraphSpec { kind: GraphKind::Independent, ..spec }
}

fn error() -> Trouble {
    Trouble::Raised([1, 2, 3].as_slice().into())
}

fn put(fake: &mut Fake, index: u32, contained: &[ObjectId]) -> ObjectId {
    let put = object(GraphId::puts(USER), index);
    fake.user(ToHead::Put { object: put, place: Place::Inline { len: 8 }, contained: contained.to_vec() });
    put
}

#[test]
fn a_failure_takes_only_those_along_that_read_it() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    // 0 fails; 1 reads it, 2 reads 1, 3 and 4 have nothing to do with it.
    fake.run_graph(independent(graph(id, &[&[], &[0], &[1], &[], &[3]], &[0, 1, 2, 3, 4])));
    let run = fake.only_run();
    assert_eq!(run.tasks, [0, 1, 2, 3, 4]);
    let mut report = fake.report(&run, 0, 5, true);
    report.published.retain(|(i, _)| *i > 2);
    report.troubles = vec![(0, error()), (1, Trouble::Skipped), (2, Trouble::Skipped)];
    fake.deliver(report);
    fake.ask(1, &[3, 4].map(|i| object(id, i)));
    assert_eq!(fake.values(1), 2);
    for task in 0..3 {
        fake.ask(10 + u64::from(task), &[object(id, task)]);
        let failure = fake.failure(10 + u64::from(task));
        assert_eq!(failure.origin, object(id, 0));
        assert!(matches!(failure.kind, FailureKind::Raised { attempts: 1, .. }));
    }
    fake.user(ToHead::Release((0..5).map(|i| object(id, i)).collect()));
    assert!(fake.forgotten(id) && fake.head.is_idle());
}

#[test]
fn a_failure_reaches_readers_in_other_graphs_that_have_not_run() {
    let mut fake = Fake::new(1);
    let (maker, reader) = (graph_id(1), graph_id(2));
    fake.run_graph(independent(wide(maker, 2)));
    let run = fake.only_run();
    let mut spec = independent(graph(reader, &[&[3], &[], &[0]], &[0, 1, 2]));
    spec.externals = vec![object(maker, 0)];
    fake.run_graph(spec);
    fake.finish_with(&run, 0, error());
    fake.run_all();
    fake.ask(1, &[object(reader, 1), object(maker, 1)]);
    assert_eq!(fake.values(1), 2);
    for task in [0, 2] {
        fake.ask(10 + u64::from(task), &[object(reader, task)]);
        assert_eq!(fake.failure(10 + u64::from(task)).origin, object(maker, 0));
    }
    fake.user(ToHead::Release([0, 1].map(|i| object(maker, i)).into()));
    fake.user(ToHead::Release([0, 1, 2].map(|i| object(reader, i)).into()));
    assert!(fake.head.is_idle());
}

#[test]
fn a_task_runs_though_nobody_holds_its_result() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.driver(USER, ToHead::Submit(Box::new(independent(wide(id, 1)))));
    fake.user(ToHead::Release(vec![object(id, 0)]));
    fake.user(ToHead::Admit { graph: id, upto: 1 });
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.head.counters().tasks, 1);
    assert!(fake.forgotten(id) && fake.head.is_idle());
}

#[test]
fn what_a_dead_worker_submitted_is_done_all_the_same() {
    let mut fake = Fake::new(2);
    fake.run_graph(independent(wide(graph_id(1), 1)));
    let outer = fake.only_run();
    let peer = PeerId::of_worker(outer.id.worker);
    let inner = GraphId { peer, seq: 1 };
    fake.run_graph(independent(wide(inner, 1)));
    // It leaves its ref with the user.
    fake.user(ToHead::Hold(vec![object(inner, 0)]));
    fake.down(outer.id.worker.0, Some((outer.id.seq, 0)));
    fake.run_all();
    fake.ask(1, &[object(inner, 0)]);
    assert_eq!(fake.values(1), 1);
}

#[test]
fn cancelling_a_task_that_waits_leaves_the_others() {
    let mut fake = Fake::new(1);
    let (first, id) = (graph_id(1), graph_id(2));
    fake.run_graph(independent(wide(first, 1)));
    let mut spec = independent(graph(id, &[&[3], &[0], &[]], &[0, 1, 2]));
    spec.externals = vec![object(first, 0)];
    fake.run_graph(spec);
    fake.user(ToHead::CancelTask { object: object(id, 0), force: false, recursive: true });
    fake.run_all();
    for task in [0, 1] {
        fake.ask(10 + u64::from(task), &[object(id, task)]);
        let failure = fake.failure(10 + u64::from(task));
        assert_eq!((failure.origin, failure.kind), (object(id, 0), FailureKind::Cancelled));
    }
    fake.ask(1, &[object(id, 2), object(first, 0)]);
    assert_eq!(fake.values(1), 2);
}

#[test]
fn cancelling_a_task_in_a_run_recalls_or_interrupts_it() {
    for force in [false, true] {
        let mut fake = Fake::new(1);
        let id = graph_id(1);
        fake.run_graph(independent(wide(id, 3)));
        let run = fake.only_run();
        assert_eq!(run.tasks, [0, 1, 2]);
        // Task 0 runs; 2 has not begun.
        fake.user(ToHead::CancelTask { object: object(id, 2), force, recursive: true });
        assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 2 }));
        fake.node(FromNode::Recalled { run: run.id, limit: 2 });
        fake.ask(1, &[object(id, 2)]);
        assert_eq!(fake.failure(1).kind, FailureKind::Cancelled);
        fake.user(ToHead::CancelTask { object: object(id, 0), force, recursive: true });
        fake.node(FromNode::Recalled { run: run.id, limit: 1 });
        if force {
            assert!(fake.sent.contains(&ToNode::Kill(run.id.worker)));
            fake.down(run.id.worker.0, Some((run.id.seq, 0)));
            fake.up(1);
            fake.run_all();
        } else {
            assert!(fake.sent.contains(&ToNode::Interrupt { run: run.id, index: 0 }));
            let mut report = fake.report(&run, 0, 1, true);
            report.published.clear();
            report.troubles = vec![(0, Trouble::Cancelled)];
            fake.deliver(report);
            fake.run_all();
        }
        fake.ask(2, &[object(id, 0)]);
        assert_eq!(fake.failure(2).kind, FailureKind::Cancelled, "force: {force}");
        fake.ask(3, &[object(id, 1)]);
        assert_eq!(fake.values(3), 1, "force: {force}");
    }
}

#[test]
fn a_value_holds_what_it_names() {
    let mut fake = Fake::new(1);
    let inner = put(&mut fake, 0, &[]);
    let middle = put(&mut fake, 1, &[inner]);
    let outer = put(&mut fake, 2, &[middle, inner]);
    fake.user(ToHead::Release(vec![inner, middle]));
    assert_eq!((fake.freed(inner), fake.freed(middle)), (0, 0));
    fake.user(ToHead::Release(vec![outer]));
    assert_eq!((fake.freed(inner), fake.freed(middle), fake.freed(outer)), (1, 1, 1));
    assert!(fake.head.is_idle());
}

#[test]
fn a_long_list_of_values_that_name_each_other_is_let_go() {
    let mut fake = Fake::new(1);
    let mut last = put(&mut fake, 0, &[]);
    for index in 1..2000 {
        let next = put(&mut fake, index, &[last]);
        fake.user(ToHead::Release(vec![last]));
        last = next;
    }
    fake.user(ToHead::Release(vec![last]));
    assert!(fake.head.is_idle());
}

#[test]
fn a_result_holds_what_it_names_before_its_worker_lets_go() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(independent(wide(id, 1)));
    let run = fake.only_run();
    let peer = PeerId::of_worker(run.id.worker);
    let inner = object(GraphId::puts(peer), 0);
    fake.driver(peer, ToHead::Put { object: inner, place: Place::Sealed { len: 9000 }, contained: Vec::new() });
    let mut report = fake.report(&run, 0, 1, true);
    report.contained = vec![(0, vec![inner])];
    fake.deliver(report);
    fake.driver(peer, ToHead::Release(vec![inner]));
    fake.down(run.id.worker.0, None);
    fake.ask(1, &[inner]);
    assert_eq!(fake.values(1), 1);
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.freed(inner), 1);
    assert!(fake.head.is_idle());
}

#[test]
fn a_graph_holds_what_its_constants_name_until_it_is_done() {
    let mut fake = Fake::new(1);
    let inner = put(&mut fake, 0, &[]);
    let id = graph_id(1);
    let spec = GraphSpec { contained: vec![inner], ..independent(wide(id, 1)) };
    fake.run_graph(spec);
    fake.user(ToHead::Release(vec![inner]));
    assert_eq!(fake.freed(inner), 0);
    fake.run_all();
    assert_eq!(fake.freed(inner), 1, "its result is published");
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert!(fake.head.is_idle());
}

#[test]
fn contents_of_a_result_that_nobody_reported_do_not_count() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let run = fake.only_run();
    let mut report = fake.report(&run, 0, 1, false);
    report.published.clear();
    report.contained = vec![(0, vec![object(id, 1)])];
    fake.deliver(report);
    assert!(fake.sent.contains(&ToNode::Kill(WorkerId(0))), "it names a result that it does not publish");
}

#[test]
fn a_value_that_names_itself_is_let_go() {
    let mut fake = Fake::new(1);
    let own = object(GraphId::puts(USER), 0);
    put(&mut fake, 0, &[own]);
    fake.user(ToHead::Release(vec![own]));
    assert!(fake.head.is_idle());
}

#[test]
fn an_interrupt_that_nobody_asked_for_is_no_failure() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(independent(wide(id, 1)));
    let run = fake.only_run();
    fake.finish_with(&run, 0, Trouble::Cancelled);
    fake.run_all();
    fake.ask(1, &[object(id, 0)]);
    assert_eq!(fake.values(1), 1);
}

#[test]
fn what_a_dead_worker_did_not_finish_to_submit_fails() {
    let mut fake = Fake::new(2);
    fake.run_graph(independent(wide(graph_id(1), 1)));
    let outer = fake.only_run();
    let peer = PeerId::of_worker(outer.id.worker);
    let inner = GraphId { peer, seq: 1 };
    fake.driver(peer, ToHead::Submit(Box::new(independent(wide(inner, 2)))));
    fake.driver(peer, ToHead::Admit { graph: inner, upto: 1 });
    fake.user(ToHead::Hold(vec![object(inner, 0), object(inner, 1)]));
    fake.down(outer.id.worker.0, Some((outer.id.seq, 0)));
    fake.run_all();
    fake.ask(1, &[object(inner, 0)]);
    assert_eq!(fake.values(1), 1);
    fake.ask(2, &[object(inner, 1)]);
    assert_eq!(fake.failure(2).kind, FailureKind::Cancelled);
    fake.user(ToHead::Release(vec![object(inner, 0), object(inner, 1), object(graph_id(1), 0)]));
    assert!(fake.head.is_idle());
}

#[test]
fn recursion_stops_what_the_task_has_submitted_and_nothing_of_tasks_before_it() {
    let mut fake = Fake::new(1);
    fake.run_graph(independent(wide(graph_id(1), 1)));
    let before = fake.only_run();
    let peer = PeerId::of_worker(before.id.worker);
    let (left, own) = (GraphId { peer, seq: 1 }, GraphId { peer, seq: 2 });
    fake.driver(peer, ToHead::Submit(Box::new(independent(wide(left, 1)))));
    fake.finish(&before);
    fake.run_graph(independent(wide(graph_id(2), 1)));
    let run = fake.only_run();
    fake.driver(peer, ToHead::Submit(Box::new(independent(wide(own, 1)))));
    fake.user(ToHead::CancelTask { object: object(graph_id(2), 0), force: false, recursive: true });
    fake.node(FromNode::Recalled { run: run.id, limit: 1 });
    assert!(fake.sent.contains(&ToNode::Interrupt { run: run.id, index: 0 }));
    fake.ask(1, &[object(own, 0)]);
    assert_eq!(fake.failure(1).kind, FailureKind::Cancelled);
    fake.ask(2, &[object(left, 0)]);
    assert!(!fake.answers.contains_key(&2));
}

#[test]
fn a_task_that_ends_before_it_can_be_cancelled_may_be_made_again() {
    let mut fake = Fake::new(2);
    let id = graph_id(1);
    fake.run_graph(independent(wide(id, 1)));
    let run = fake.only_run();
    fake.user(ToHead::CancelTask { object: object(id, 0), force: false, recursive: false });
    fake.finish(&run);
    let reads = GraphSpec { externals: vec![object(id, 0)], ..graph(graph_id(2), &[&[1]], &[0]) };
    fake.run_graph(independent(reads));
    let run = fake.only_run();
    fake.finish_with(&run, 0, Trouble::InputNotHere(vec![object(id, 0)]));
    fake.run_all();
    fake.ask(1, &[object(id, 0), object(graph_id(2), 0)]);
    assert_eq!(fake.values(1), 2);
}
