//! Balancing, tasks that block, and how many workers there are.

use eagleray_core::head::HeadConfig;
use eagleray_core::ids::{GraphId, PeerId, RunId, WorkerId};
use eagleray_core::message::{FailureKind, FromNode, ToHead, ToNode};

use crate::fake::{Fake, graph, graph_id, object, wide};

/// A head that has measured its tasks: 5 ms each.
fn measured(slots: u32) -> Fake {
    let mut fake = Fake::new(slots);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1000), 1));
    fake.run_all();
    fake.sent.clear();
    fake
}

fn nested(worker: u32, seq: u32) -> GraphId {
    GraphId { peer: PeerId::of_worker(WorkerId(worker)), seq }
}

#[test]
fn what_a_busy_worker_has_not_begun_moves_to_an_idle_one() {
    let mut fake = Fake::new(2);
    let id = graph_id(1);
    fake.run_graph(wide(id, 20));
    let run = fake.only_run();
    assert_eq!(run.tasks.len(), 20);
    // Time passes; somebody idles; the worker says that it is in its first task.
    while !fake.sent.contains(&ToNode::Sample(WorkerId(0))) {
        fake.tick();
    }
    fake.node(FromNode::Sampled { worker: WorkerId(0), claimed: vec![(0, 1)], running_ns: Some(1_000_000) });
    let recalled = fake.sent.iter().find_map(|m| match m {
        ToNode::Recall { run, from } => Some((*run, *from)),
        _ => None,
    });
    let (from_run, from) = recalled.expect("something is taken back");
    assert_eq!(from_run, run.id);
    assert!(from >= 1);
    fake.node(FromNode::Recalled { run: run.id, limit: from });
    // The tasks are known to be long: the idle worker gets a few short runs, not all that came back.
    let runs = fake.runs_of(1);
    assert!(runs.iter().all(|run| run.tasks.len() <= 2), "{runs:?}");
    let moved: Vec<u32> = runs.into_iter().flat_map(|run| run.tasks).collect();
    assert_eq!(moved, (from..from + moved.len() as u32).collect::<Vec<_>>());
    assert!(!moved.is_empty() && moved.len() < 10, "{moved:?}");
    assert_eq!(fake.head.counters().moved, u64::from(20 - from));
    let report = fake.report(&run, 0, from, true);
    fake.deliver(report);
    fake.ask(1, &(0..20).map(|i| object(id, i)).collect::<Vec<_>>());
    fake.run_all();
    assert_eq!(fake.values(1), 20);
}

#[test]
fn what_a_recalled_task_would_have_read_is_kept_where_it_is() {
    let mut fake = Fake::new(2);
    let id = graph_id(1);
    fake.run_graph(graph(id, &[&[], &[0], &[0]], &[1, 2]));
    let run = fake.only_run();
    assert_eq!((run.tasks.len(), run.outputs[0]), (3, 0));
    fake.node(FromNode::Recalled { run: run.id, limit: 2 });
    let report = fake.report(&run, 0, 2, true);
    fake.deliver(report);
    let rest = fake.runs_of(0).pop().expect("only worker 0 has what the rest reads");
    assert_eq!((rest.tasks.as_slice(), rest.inputs.len()), (&[2][..], 0));
    fake.finish(&rest);
    assert_eq!((fake.dropped(object(id, 0)), fake.freed(object(id, 0))), (1, 0));
}

#[test]
fn a_task_that_blocks_gives_its_tail_and_its_slot_away() {
    let mut fake = measured(1);
    let outer = graph_id(1);
    fake.run_graph(wide(outer, 3));
    let runs = fake.runs_of(0);
    assert!(runs.len() > 1);
    let peer = PeerId::of_worker(WorkerId(0));
    let inner = nested(0, 1);
    fake.run_graph(wide(inner, 1));
    fake.ask_as(peer, 9, &[object(inner, 0)]);
    assert!(fake.sent.contains(&ToNode::Want(2)), "{:?}", fake.sent);
    for run in &runs {
        assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 0 }));
    }
    fake.node(FromNode::Recalled { run: runs[0].id, limit: 1 });
    for run in &runs[1..] {
        fake.node(FromNode::Recalled { run: run.id, limit: 0 });
    }
    fake.up(1);
    // The nested graph is served before what its ancestor has not begun.
    assert_eq!(fake.runs_of(1)[0].graph, inner);
    let run = fake.runs_of(1)[0].clone();
    fake.finish(&run);
    assert_eq!(fake.values(9), 1);
    fake.driver(peer, ToHead::Release(vec![object(inner, 0)]));
    assert!(fake.forgotten(inner));
    let ended: Vec<_> = runs.iter().enumerate().map(|(i, run)| fake.report(run, 0, u32::from(i == 0), true)).collect();
    for report in ended {
        fake.deliver(report);
    }
    fake.ask(1, &(0..3).map(|i| object(outer, i)).collect::<Vec<_>>());
    fake.run_all();
    assert_eq!(fake.values(1), 3);
    // The worker that is one too many is stopped after a while.
    fake.tick();
    assert!(fake.sent.iter().any(|m| matches!(m, ToNode::Stop(_))));
    assert_eq!(fake.sent.iter().rev().find(|m| matches!(m, ToNode::Want(_))), Some(&ToNode::Want(1)));
}

#[test]
fn the_pool_grows_by_who_blocks_and_no_further_than_the_depth_allows() {
    let mut fake = measured(2);
    fake.run_graph(wide(graph_id(1), 8));
    for worker in 0..2 {
        let inner = nested(worker, 1);
        fake.run_graph(wide(inner, 8));
        fake.ask_as(inner.peer, 1 + u64::from(worker), &[object(inner, 0)]);
        assert!(fake.sent.contains(&ToNode::Want(3 + worker)));
    }
    for worker in 2..4 {
        fake.up(worker);
        assert!(!fake.runs_of(worker).is_empty());
    }
    assert!(!fake.sent.contains(&ToNode::Want(5)));
    // At each depth no more than the slots are occupied: nobody gets what has to wait.
    fake.up(4);
    assert!(fake.runs_of(4).is_empty());
}

#[test]
fn waiting_for_a_sibling_does_not_take_its_worker() {
    let mut fake = measured(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let runs = fake.runs_of(0);
    assert_eq!((runs[0].tasks.as_slice(), runs[1].tasks.as_slice()), (&[0][..], &[1][..]));
    let peer = PeerId::of_worker(WorkerId(0));
    fake.driver(peer, ToHead::Hold(vec![object(id, 1)]));
    fake.ask_as(peer, 7, &[object(id, 1)]);
    fake.node(FromNode::Recalled { run: runs[1].id, limit: 0 });
    assert!(fake.sent.contains(&ToNode::Want(2)));
    fake.up(1);
    let run = fake.runs_of(1)[0].clone();
    assert_eq!(run.tasks, [1]);
    fake.finish(&run);
    assert_eq!(fake.values(7), 1);
}

#[test]
fn nesting_that_can_never_be_served_fails() {
    let mut fake = Fake::with(HeadConfig { max_workers: 3, ..HeadConfig::new(1) });
    fake.up(0);
    fake.run_graph(wide(graph_id(1), 1));
    for depth in 1..3 {
        let inner = nested(depth - 1, 1);
        fake.run_graph(wide(inner, 1));
        fake.ask_as(inner.peer, u64::from(depth), &[object(inner, 0)]);
        fake.up(depth);
        assert_eq!(fake.runs_of(depth)[0].graph, inner);
    }
    let inner = nested(2, 1);
    fake.run_graph(wide(inner, 1));
    fake.ask_as(inner.peer, 3, &[object(inner, 0)]);
    assert_eq!(fake.failure(3).kind, FailureKind::TooDeep { depth: 3, most: 3 });
}

/// A task that waits for hundreds of calls does not have all of them looked at whenever one of them has ended.
#[test]
fn what_a_blocked_task_waits_for_is_not_looked_at_all_the_time() {
    let mut fake = Fake::new(1);
    fake.run_graph(wide(graph_id(1), 1));
    let peer = PeerId::of_worker(WorkerId(0));
    let calls: Vec<GraphId> = (1..=200).map(|seq| nested(0, seq)).collect();
    for &id in &calls {
        fake.run_graph(wide(id, 1));
    }
    fake.ask_as(peer, 1, &calls.iter().map(|&id| object(id, 0)).collect::<Vec<_>>());
    let before = fake.head.counters().looks;
    fake.up(1);
    while let Some(run) = fake.runs_of(1).first().cloned() {
        fake.finish(&run);
    }
    assert_eq!(fake.values(1), 200);
    let looks = fake.head.counters().looks - before;
    assert!(looks < 3000, "{looks} graphs are looked at");
}

/// A depth needs one worker to go on, not as many as there are slots.
#[test]
fn many_slots_are_no_reason_to_nest_less_deep() {
    let mut fake = Fake::new(16);
    fake.run_graph(wide(graph_id(1), 1));
    for depth in 1..=70 {
        let (&id, _) = fake.runs.iter().next_back().expect("the innermost task runs");
        let inner = nested(id.worker.0, 1);
        fake.run_graph(wide(inner, 1));
        fake.ask_as(inner.peer, depth, &[object(inner, 0)]);
        if fake.runs.len() as u64 == depth {
            fake.up(15 + depth as u32);
        }
        assert_eq!(fake.runs.len() as u64, depth + 1, "{:?}", fake.answers);
    }
    fake.run_all();
    assert_eq!(fake.answers.len(), 70);
}

#[test]
fn a_nested_driver_that_dies_leaves_nothing() {
    let mut fake = Fake::new(1);
    let outer = graph_id(1);
    fake.run_graph(wide(outer, 1));
    let inner = nested(0, 1);
    fake.run_graph(wide(inner, 1));
    fake.ask_as(inner.peer, 1, &[object(inner, 0)]);
    fake.down(0, Some((0, 0)));
    assert!(fake.forgotten(inner));
    fake.up(1);
    assert_eq!(fake.only_run().graph, outer);
    fake.ask(2, &[object(outer, 0)]);
    fake.run_all();
    assert_eq!(fake.values(2), 1);
    assert!(!fake.answers.contains_key(&1));
}

#[test]
fn what_a_dead_worker_still_said_is_not_heard() {
    let mut fake = Fake::new(1);
    fake.run_graph(wide(graph_id(1), 1));
    fake.down(0, None);
    let inner = nested(0, 1);
    fake.run_graph(wide(inner, 1));
    fake.ask_as(inner.peer, 1, &[object(inner, 0)]);
    fake.user(ToHead::Release(vec![object(graph_id(1), 0)]));
    assert!(fake.head.is_idle());
}

#[test]
fn a_recall_that_comes_too_late_changes_nothing() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let run = fake.only_run();
    fake.node(FromNode::Recalled { run: run.id, limit: 2 });
    fake.finish(&run);
    fake.node(FromNode::Recalled { run: RunId { worker: WorkerId(0), seq: 0 }, limit: 0 });
    assert!(fake.runs.is_empty());
    assert_eq!(fake.head.counters().recalls, 0);
}
