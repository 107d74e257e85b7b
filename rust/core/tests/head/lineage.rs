//! What finished graphs need again when a result of theirs is lost, and what they do without.

use eagleray_core::graph::Csr;
use eagleray_core::head::{HeadConfig, ResultsMode};
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::{FailureKind, FromNode, GraphSpec, Place, ToHead, ToNode, Trouble};

use crate::fake::{Fake, USER, graph, graph_id, object, wide};

/// A graph with a task for each of these objects, which reads it.
fn reader(seq: u32, objects: &[ObjectId]) -> GraphSpec {
    let n = objects.len() as u32;
    let mut spec = wide(graph_id(seq), n);
    let mut rows = Csr::new();
    (0..n).for_each(|k| rows.push_row([n + k]));
    spec.inputs = rows;
    spec.externals = objects.to_vec();
    spec
}

/// Another graph's task finds that an object is not there.
fn miss(fake: &mut Fake, seq: u32, lost: ObjectId) {
    fake.run_graph(reader(seq, &[lost]));
    let run = fake.runs.values().find(|run| run.graph == graph_id(seq)).cloned().expect("it reads what is there");
    fake.finish_with(&run, 0, Trouble::InputNotHere(vec![lost]));
}

#[test]
fn a_finished_graph_does_not_fail_with_what_it_once_read() {
    let mut fake = Fake::new(1);
    let (first, second) = (graph_id(1), graph_id(2));
    fake.user(ToHead::Submit(Box::new(wide(first, 2))));
    let mut spec = wide(second, 1);
    spec.externals.push(object(first, 0));
    fake.run_graph(spec);
    fake.run_all();
    // The first graph has not begun, and now nobody wants that of it.
    fake.user(ToHead::Release(vec![object(first, 0)]));
    miss(&mut fake, 3, object(second, 0));
    assert_eq!(fake.only_run().graph, second, "its result is made again");
    fake.ask(1, &[object(second, 0), object(graph_id(3), 0)]);
    fake.run_all();
    assert_eq!(fake.values(1), 2);
}

#[test]
fn what_a_graph_has_read_may_fail_while_it_runs() {
    let mut fake = Fake::new(2);
    let (first, second) = (graph_id(1), graph_id(2));
    fake.run_graph(wide(first, 1));
    fake.run_all();
    let mut spec = graph(second, &[&[2], &[]], &[0, 1]);
    spec.externals.push(object(first, 0));
    fake.run_graph(spec);
    let (reads, other) = (fake.runs_of(0).remove(0), fake.runs_of(1).remove(0));
    assert_eq!((&*reads.tasks, &*other.tasks), (&[0][..], &[1][..]));
    fake.finish(&reads);
    miss(&mut fake, 3, object(first, 0));
    fake.user(ToHead::Cancel { graph: first });
    fake.finish(&other);
    fake.ask(1, &[object(second, 0), object(second, 1)]);
    assert_eq!(fake.values(1), 2);
    fake.ask(2, &[object(graph_id(3), 0)]);
    assert_eq!(fake.failure(2).kind, FailureKind::Cancelled, "it has not read it");
    // What was made of it cannot be made again.
    miss(&mut fake, 4, object(second, 0));
    fake.ask(3, &[object(second, 0)]);
    assert_eq!(fake.failure(3).kind, FailureKind::Cancelled);
}

#[test]
fn a_result_is_made_again_of_what_it_needs_and_nothing_else() {
    let mut fake = Fake::new(1);
    let puts = [0, 1].map(|index| object(GraphId::puts(USER), index));
    for put in puts {
        fake.user(ToHead::Put { object: put, place: Place::Inline { len: 8 }, contained: Vec::new() });
    }
    let second = graph_id(2);
    fake.run_graph(reader(2, &puts));
    fake.run_all();
    fake.user(ToHead::Release(vec![puts[0]]));
    assert_eq!(fake.freed(puts[0]), 1, "a finished graph does without it");
    miss(&mut fake, 3, object(second, 1));
    assert_eq!(fake.only_run().tasks, [1]);
    fake.run_all();
    fake.ask(1, &[object(second, 0), object(second, 1), object(graph_id(3), 0)]);
    assert_eq!(fake.values(1), 3);
    miss(&mut fake, 4, object(second, 0));
    fake.ask(2, &[object(second, 0)]);
    assert_eq!(fake.failure(2).kind, FailureKind::Lost);
}

#[test]
fn what_the_driver_supplied_is_there_until_results_are_published() {
    let mut fake = Fake::with(HeadConfig { results: ResultsMode::Resident, ..HeadConfig::new(1) });
    fake.up(0);
    let id = graph_id(1);
    fake.user(ToHead::Submit(Box::new(graph(id, &[&[], &[0]], &[1]))));
    fake.user(ToHead::Supply { object: object(id, 0), place: Place::Inline { len: 8 }, contained: Vec::new() });
    fake.user(ToHead::Admit { graph: id, upto: 2 });
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.freed(object(id, 0)), 0, "only a worker has what was made of it");
    fake.ask(1, &[object(id, 1)]);
    fake.sent.clear();
    fake.node(FromNode::Published { worker: WorkerId(0), object: object(id, 1), place: None, contained: Vec::new() });
    assert_eq!(fake.only_run().tasks, [1]);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
    fake.user(ToHead::Release(vec![object(id, 1)]));
    assert_eq!(fake.freed(object(id, 0)), 1);
    assert!(fake.head.is_idle());
}

#[test]
fn a_copy_in_the_run_that_made_it_goes_too_when_it_was_made_again_elsewhere() {
    let mut fake = Fake::new(2);
    let id = graph_id(1);
    fake.run_graph(graph(id, &[&[], &[0], &[0]], &[0, 1, 2]));
    let run = fake.only_run();
    assert_eq!(run.tasks, [0, 1, 2]);
    fake.deliver(fake.report(&run, 0, 1, false));
    miss(&mut fake, 2, object(id, 0));
    let again = fake.runs_of(1).remove(0);
    assert_eq!((again.graph, &*again.tasks), (id, &[0][..]));
    // The tasks that would have read it in its first run are taken back: the worker still has it.
    fake.node(FromNode::Recalled { run: run.id, limit: 1 });
    fake.finish(&again);
    fake.deliver(fake.report(&run, 1, 1, true));
    let dropped = ToNode::Drop { worker: run.id.worker, objects: vec![object(id, 0)] };
    assert!(fake.sent.contains(&dropped), "{:?}", fake.sent);
    fake.run_all();
    fake.ask(1, &[object(id, 0), object(id, 1), object(id, 2)]);
    assert_eq!(fake.values(1), 3);
}
