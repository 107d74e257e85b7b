//! Calls that return several values, and the tasks that take these.

use eagleray_core::head::HeadConfig;
use eagleray_core::ids::GraphId;
use eagleray_core::message::{
    ClassSpec, Demand, FailureKind, FromNode, GraphKind, GraphSpec, Run, ToHead, ToNode, WHOLE, output,
};
use eagleray_core::page::{Page, WORDS};

use crate::fake::{Fake, graph, graph_id, object};

/// Calls with `parts` values each.
fn calls(id: GraphId, n: u32, parts: u32) -> GraphSpec {
    let rows: Vec<Vec<u32>> = (0..n * (1 + parts))
        .map(|i| (i % (1 + parts) > 0).then_some(i - i % (1 + parts)).into_iter().collect())
        .collect();
    let outputs: Vec<u32> = (0..rows.len() as u32).filter(|i| i % (1 + parts) > 0).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let spec = graph(id, &rows, &outputs);
    let class = spec.classes[0];
    GraphSpec {
        kind: GraphKind::Independent,
        classes: vec![class, ClassSpec { fingerprint: 8, part: true, demand: 0, ..class }],
        class: (0..rows.len() as u32).map(|i| u32::from(i % (1 + parts) > 0)).collect(),
        ..spec
    }
}

/// One worker, whose runs have one task if that can be.
fn with_short_runs() -> Fake {
    let mut fake = Fake::with(HeadConfig { max_run: 1, ..HeadConfig::new(1) });
    fake.up(0);
    fake
}

fn joined(run: &Run) -> Vec<bool> {
    run.outputs.iter().map(|flags| flags & output::WITH_LAST != 0).collect()
}

#[test]
fn are_in_the_run_of_the_call() {
    let mut fake = with_short_runs();
    fake.run_graph(calls(graph_id(1), 2, 3));
    let runs = fake.runs_of(0);
    assert_eq!(runs[0].tasks, [0, 1, 2, 3]);
    assert_eq!(joined(&runs[0]), [false, true, true, true]);
    // What the call has made is for them alone.
    assert_eq!(runs[0].outputs[0] & (output::KEEP | output::PUBLISH), 0);
    fake.run_all();
    let of = |i| object(graph_id(1), i);
    fake.ask(1, &[1, 2, 3, 5, 6, 7].map(of));
    assert_eq!(fake.values(1), 6);
}

#[test]
fn are_in_the_run_of_a_call_that_demands_more() {
    let mut fake = Fake::new(4);
    let mut spec = calls(graph_id(1), 2, 2);
    spec.classes[0].demand = 1;
    spec.demands = vec![Demand { cpu: 2 * WHOLE, others: Vec::new() }];
    fake.run_graph(spec);
    let first = fake.only_run();
    assert_eq!((&first.tasks, joined(&first)), (&vec![0, 1, 2], vec![false, true, true]));
    fake.finish(&first);
    assert_eq!(fake.only_run().tasks, [3, 4, 5]);
}

#[test]
fn come_back_with_the_call_or_not_at_all() {
    let mut fake = Fake::new(1);
    fake.run_graph(calls(graph_id(1), 3, 2));
    let run = fake.only_run();
    assert_eq!(joined(&run), [false, true, true, false, true, true, false, true, true]);
    let words: [_; WORDS] = Default::default();
    let page = Page::new(&words).unwrap();
    page.open(run.id.seq, 9);
    assert_eq!(page.recall(run.id.seq, 7, &run.outputs), Some(9));
    assert_eq!(page.recall(run.id.seq, 6, &run.outputs), Some(6));
    assert_eq!(page.claim(run.id.seq), Some(0));
    assert_eq!(page.recall(run.id.seq, 0, &run.outputs), Some(3));
}

#[test]
fn move_to_an_idle_worker_with_the_call() {
    let mut fake = Fake::new(2);
    fake.run_graph(calls(graph_id(1), 2, 2));
    let run = fake.only_run();
    while !fake.sent.contains(&ToNode::Sample(run.id.worker)) {
        fake.tick();
    }
    // Half of what is left is a call and its values, though it begins with one of these.
    let claimed = vec![(run.id.seq, 1)];
    fake.node(FromNode::Sampled { worker: run.id.worker, claimed, running_ns: Some(150_000) });
    assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 3 }));
}

#[test]
fn cancelling_a_call_that_runs_means_the_call() {
    let mut fake = Fake::new(1);
    fake.run_graph(calls(graph_id(1), 2, 2));
    let run = fake.only_run();
    fake.user(ToHead::CancelTask { object: object(graph_id(1), 0), force: false, recursive: true });
    assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 0 }));
    // The first call was claimed, so what takes its values did not come back.
    fake.node(FromNode::Recalled { run: run.id, limit: 3 });
    assert!(fake.sent.contains(&ToNode::Interrupt { run: run.id, index: 0 }));
}

#[test]
fn a_worker_that_dies_with_a_part_has_died_with_the_call() {
    for (place, of) in [(1, 0), (2, 0), (5, 3)] {
        let mut fake = Fake::new(1);
        let mut spec = calls(graph_id(1), 2, 2);
        spec.classes[0].max_retries = 0;
        fake.run_graph(spec);
        let run = fake.only_run();
        if of > 0 {
            fake.deliver(fake.report(&run, 0, of, false));
        }
        fake.down(run.id.worker.0, Some((run.id.seq, place)));
        fake.up(1);
        fake.run_all();
        fake.ask(1, &[object(graph_id(1), of + 1)]);
        let failure = fake.failure(1);
        assert_eq!(failure.origin, object(graph_id(1), of));
        assert!(matches!(failure.kind, FailureKind::WorkerDied { attempts: 1, .. }));
        let other = if of == 0 { 4 } else { 1 };
        fake.ask(2, &[object(graph_id(1), other)]);
        assert_eq!(fake.values(2), 1);
    }
}

#[test]
fn are_told_of_at_once() {
    let mut fake = Fake::new(1);
    fake.run_graph(calls(graph_id(1), 2, 2));
    let run = fake.only_run();
    fake.deliver(fake.report(&run, 0, 3, false));
    assert!(!fake.sent.contains(&ToNode::Kill(run.id.worker)));
    // Else some of the values would be there, and the call would be done again for the others.
    fake.deliver(fake.report(&run, 3, 5, false));
    assert!(fake.sent.contains(&ToNode::Kill(run.id.worker)));
}

#[test]
fn are_read_from_the_store_if_they_are_made_elsewhere() {
    // With one worker results stay there, but not one of which parts may be told one by one.
    let spec = calls(graph_id(1), 1, 2);
    let spec = GraphSpec {
        inputs: graph(graph_id(1), &[&[], &[0], &[0], &[]], &[]).inputs,
        position: vec![0, 2, 3, 1],
        class: vec![0, 1, 1, 0],
        outputs: vec![1, 2, 3],
        ..spec
    };
    let mut fake = with_short_runs();
    fake.run_graph(spec);
    let run = fake.runs_of(0).remove(0);
    assert_eq!((run.tasks, run.outputs), (vec![0], vec![output::PUBLISH]));
}
