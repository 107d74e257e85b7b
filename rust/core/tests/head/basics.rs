//! Graphs that run without trouble.

use eagleray_core::ids::WorkerId;
use eagleray_core::message::{Place, ToHead, ToNode, output};

use crate::fake::{Fake, chain, graph, graph_id, object, wide};

#[test]
fn asks_for_its_workers() {
    let fake = Fake::new(3);
    assert_eq!(fake.sent[0], ToNode::Want(3));
}

#[test]
fn one_task_runs_is_answered_and_freed_once() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(graph(id, &[&[]], &[0]));
    let run = fake.only_run();
    assert_eq!((run.tasks.as_slice(), run.outputs.as_slice()), (&[0][..], &[output::PUBLISH][..]));
    fake.ask(5, &[object(id, 0)]);
    assert!(fake.answers.is_empty());
    fake.finish(&run);
    assert_eq!(fake.answers[&5], [(object(id, 0), Ok(Place::Inline { len: 8 }))]);
    assert!(!fake.forgotten(id));
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.freed(object(id, 0)), 1);
    assert!(fake.forgotten(id));
}

#[test]
fn nothing_runs_before_it_is_admitted() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.user(ToHead::Submit(Box::new(wide(id, 4))));
    assert!(fake.runs.is_empty());
    fake.user(ToHead::Admit { graph: id, upto: 3 });
    let run = fake.only_run();
    assert_eq!(run.tasks, [0, 1, 2]);
    fake.finish(&run);
    assert!(fake.runs.is_empty());
    fake.user(ToHead::Admit { graph: id, upto: 4 });
    assert_eq!(fake.only_run().tasks, [3]);
}

#[test]
fn a_chain_is_one_run_and_only_its_end_leaves_it() {
    let mut fake = Fake::new(2);
    let id = graph_id(1);
    fake.run_graph(chain(id, 20));
    let run = fake.only_run();
    assert_eq!(run.tasks, (0..20).collect::<Vec<_>>());
    assert!(run.outputs[..19].iter().all(|&flags| flags == 0));
    assert_eq!(run.outputs[19], output::PUBLISH);
    fake.ask(1, &[object(id, 19)]);
    fake.finish(&run);
    assert_eq!(fake.values(1), 1);
}

#[test]
fn a_tree_over_two_workers_publishes_what_crosses() {
    let mut fake = Fake::new(2);
    // Measured before: so long that it is spread at once.
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let id = graph_id(2);
    fake.run_graph(graph(id, &[&[], &[], &[0], &[1], &[2, 3]], &[4]));
    let (left, right) = (fake.runs_of(0)[0].clone(), fake.runs_of(1)[0].clone());
    assert_eq!(left.tasks, [0]);
    assert_eq!(right.tasks, [1]);
    assert_eq!((left.outputs[0], right.outputs[0]), (output::PUBLISH, output::PUBLISH));
    fake.ask(1, &[object(id, 4)]);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
    for inner in 0..4 {
        assert_eq!(fake.freed(object(id, inner)), 1, "{inner}");
    }
    assert_eq!(fake.freed(object(id, 4)), 0);
}

#[test]
fn a_partial_report_frees_what_it_used_and_ends_nothing() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 4));
    let run = fake.only_run();
    fake.ask(1, &[object(id, 1)]);
    fake.deliver(fake.report(&run, 0, 2, false));
    assert_eq!(fake.values(1), 1);
    assert_eq!(fake.runs.len(), 1);
    fake.deliver(fake.report(&run, 2, 4, true));
    fake.user(ToHead::Release((0..4).map(|i| object(id, i)).collect()));
    assert!(fake.forgotten(id));
}

#[test]
fn a_worker_alone_keeps_what_its_next_run_reads() {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let id = graph_id(2);
    fake.run_graph(graph(id, &[&[], &[], &[0, 1]], &[2]));
    let runs = fake.runs_of(0);
    assert_eq!(runs[0].tasks, [0]);
    assert_eq!(runs[0].outputs, [output::KEEP]);
    fake.run_all();
    assert_eq!((fake.dropped(object(id, 0)), fake.freed(object(id, 0))), (1, 0));
}

#[test]
fn a_tiny_graph_stays_on_one_worker_until_it_has_taken_long() {
    let mut fake = Fake::new(2);
    fake.run_graph(wide(graph_id(1), 40));
    assert_eq!(fake.only_run().id.worker, WorkerId(0));
    fake.tick();
    assert_eq!(fake.runs_of(1).len(), 1);
}
