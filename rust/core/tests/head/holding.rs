//! Who holds what, who waits for what, and what is refused.

use eagleray_core::head::{HeadConfig, ResultsMode};
use eagleray_core::ids::{GraphId, PeerId, WorkerId};
use eagleray_core::message::{FailureKind, FromNode, GraphKind, GraphSpec, Place, Refusal, ToHead, ToNode, output};

use crate::fake::{Fake, USER, chain, graph, graph_id, object, wide};

fn with_mode(slots: u32, results: ResultsMode) -> Fake {
    let mut fake = Fake::with(HeadConfig { results, ..HeadConfig::new(slots) });
    for worker in 0..slots {
        fake.up(worker);
    }
    fake
}

/// Somebody lets go of what it waits for, and a value that comes names it.
#[test]
fn what_is_held_again_is_waited_for_again() {
    for by_value in [false, true] {
        let mut fake = Fake::new(1);
        let id = graph_id(1);
        fake.run_graph(GraphSpec { kind: GraphKind::Independent, ..wide(id, 2) });
        let run = fake.only_run();
        fake.ask(1, &[object(id, 0), object(id, 1)]);
        fake.user(ToHead::Release(vec![object(id, 0)]));
        if by_value {
            let put = object(GraphId::puts(USER), 0);
            let (place, contained) = (Place::Inline { len: 8 }, vec![object(id, 0)]);
            fake.user(ToHead::Put { object: put, place, contained });
        } else {
            fake.user(ToHead::Hold(vec![object(id, 0)]));
        }
        let report = fake.report(&run, 0, 1, false);
        fake.deliver(report);
        assert!(!fake.answers.contains_key(&1));
        let report = fake.report(&run, 1, 2, true);
        fake.deliver(report);
        assert_eq!(fake.values(1), 2);
    }
}

#[test]
fn a_hold_more_is_a_release_more() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    fake.user(ToHead::Hold(vec![object(id, 0)]));
    fake.run_all();
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.freed(object(id, 0)), 0);
    fake.user(ToHead::Release(vec![object(id, 0)]));
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.freed(object(id, 0)), 1);
    assert!(fake.head.is_idle());
}

#[test]
fn what_nobody_holds_any_more_is_not_computed_to_its_end() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    let run = fake.only_run();
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 0 }));
    fake.finish(&run);
    assert!(fake.head.is_idle());
}

#[test]
fn waiting_for_some_of_many() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 3));
    let run = fake.only_run();
    let objects: Vec<_> = (0..3).map(|i| object(id, i)).collect();
    fake.user(ToHead::Await { token: 1, objects: objects.clone(), need: 2, fail_fast: false });
    fake.user(ToHead::Await { token: 2, objects: objects.clone(), need: 3, fail_fast: false });
    fake.user(ToHead::Await { token: 3, objects: objects.clone(), need: 0, fail_fast: false });
    assert_eq!(fake.values(3), 0);
    fake.deliver(fake.report(&run, 0, 1, false));
    assert_eq!(fake.answers.len(), 1);
    fake.deliver(fake.report(&run, 1, 2, false));
    assert_eq!(fake.values(1), 2);
    fake.user(ToHead::Forget { token: 2 });
    assert_eq!(fake.values(2), 2);
    fake.user(ToHead::Forget { token: 2 });
}

#[test]
fn a_failure_answers_early_only_who_asked_for_that() {
    let mut fake = Fake::new(2);
    let (bad, good) = (graph_id(1), graph_id(2));
    fake.run_graph(wide(bad, 1));
    fake.run_graph(wide(good, 1));
    let objects = vec![object(good, 0), object(bad, 0)];
    fake.user(ToHead::Await { token: 1, objects: objects.clone(), need: 2, fail_fast: true });
    fake.user(ToHead::Await { token: 2, objects, need: 2, fail_fast: false });
    fake.user(ToHead::Cancel { graph: bad });
    assert_eq!(fake.answers[&1].len(), 1);
    assert!(!fake.answers.contains_key(&2));
    fake.run_all();
    assert_eq!(fake.answers[&2].len(), 2);
}

#[test]
fn who_awaits_what_nobody_holds_hears_that_it_is_lost() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(chain(id, 2));
    fake.ask(1, &[object(id, 0)]);
    assert_eq!(fake.failure(1).kind, FailureKind::Lost);
    fake.ask(2, &[object(id, 1)]);
    fake.user(ToHead::Release(vec![object(id, 1)]));
    assert_eq!(fake.failure(2).kind, FailureKind::Lost);
}

#[test]
fn letting_go_of_what_one_awaits_answers_the_question() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    fake.ask(1, &[object(id, 0)]);
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.failure(1).kind, FailureKind::Lost);
    fake.run_all();
    assert_eq!(fake.freed(object(id, 0)), 1);
}

#[test]
fn what_is_held_after_its_last_use_is_made_again() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(chain(id, 2));
    fake.run_all();
    fake.user(ToHead::Hold(vec![object(id, 0)]));
    fake.ask(1, &[object(id, 0)]);
    assert_eq!(fake.only_run().tasks, [0]);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn a_graph_reads_another_before_and_after_it_is_done() {
    let mut fake = Fake::new(2);
    let (first, second, third) = (graph_id(1), graph_id(2), graph_id(3));
    fake.run_graph(wide(first, 1));
    let reader = |id: GraphId| {
        let mut spec = graph(id, &[&[1]], &[0]);
        spec.externals.push(object(first, 0));
        spec
    };
    fake.run_graph(reader(second));
    fake.user(ToHead::Release(vec![object(first, 0)]));
    let run = fake.only_run();
    assert_eq!(run.graph, first, "a graph that is read is not given up");
    fake.finish(&run);
    fake.run_graph(reader(third));
    fake.ask(1, &[object(second, 0), object(third, 0)]);
    fake.run_all();
    assert_eq!(fake.values(1), 2);
    // Finished graphs whose results are published hold their inputs no more.
    assert_eq!(fake.freed(object(first, 0)), 1);
    assert!(fake.forgotten(first));
}

#[test]
fn a_failure_passes_from_graph_to_graph() {
    let mut fake = Fake::new(1);
    let (first, second) = (graph_id(1), graph_id(2));
    fake.run_graph(wide(first, 1));
    let mut reader = graph(second, &[&[1]], &[0]);
    reader.externals.push(object(first, 0));
    fake.run_graph(reader);
    fake.ask(1, &[object(second, 0)]);
    fake.user(ToHead::Cancel { graph: first });
    assert_eq!(fake.failure(1).kind, FailureKind::Cancelled);
}

#[test]
fn an_object_that_was_put_is_freed_with_its_last_use() {
    let mut fake = Fake::new(1);
    let put = object(GraphId::puts(USER), 3);
    fake.user(ToHead::Put { object: put, place: Place::Sealed { len: 4096 }, contained: Vec::new() });
    let id = graph_id(1);
    let mut spec = graph(id, &[&[1]], &[0]);
    spec.externals.push(put);
    fake.run_graph(spec);
    fake.ask(1, &[put]);
    assert_eq!(fake.values(1), 1);
    fake.user(ToHead::Release(vec![put]));
    assert_eq!(fake.freed(put), 0, "a graph reads it");
    fake.run_all();
    assert_eq!(fake.freed(put), 1);
}

#[test]
fn a_supplied_value_is_a_task_that_need_not_run() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.user(ToHead::Submit(Box::new(graph(id, &[&[], &[], &[0, 1]], &[2]))));
    fake.user(ToHead::Supply { object: object(id, 0), place: Place::Inline { len: 3 }, contained: Vec::new() });
    fake.user(ToHead::Admit { graph: id, upto: 3 });
    let run = fake.only_run();
    assert_eq!(run.tasks, [1, 2]);
    assert_eq!(run.inputs, [object(id, 0)]);
    fake.finish(&run);
    assert_eq!(fake.freed(object(id, 0)), 1);
    assert!(fake.refused.is_empty());
    let late = graph_id(2);
    fake.run_graph(wide(late, 1));
    fake.user(ToHead::Supply { object: object(late, 0), place: Place::Inline { len: 3 }, contained: Vec::new() });
    assert_eq!(fake.refused.len(), 1);
}

#[test]
fn resident_results_are_published_when_somebody_asks() {
    let mut fake = with_mode(2, ResultsMode::Resident);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    let run = fake.only_run();
    assert_eq!(run.outputs, [output::KEEP]);
    fake.ask(1, &[object(id, 0)]);
    fake.finish(&run);
    let asked = ToNode::Publish { worker: run.id.worker, objects: vec![object(id, 0)], seal: false };
    assert!(fake.sent.contains(&asked), "who asked before it was made is served too");
    fake.run_all();
    assert_eq!(fake.values(1), 1);
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!((fake.freed(object(id, 0)), fake.dropped(object(id, 0))), (1, 1));
}

#[test]
fn a_refused_publication_makes_the_result_again() {
    let mut fake = with_mode(1, ResultsMode::Resident);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    let run = fake.only_run();
    fake.finish(&run);
    fake.ask(1, &[object(id, 0)]);
    fake.sent.retain(|m| !matches!(m, ToNode::Publish { .. }));
    fake.node(FromNode::Published { worker: WorkerId(0), object: object(id, 0), place: None, contained: Vec::new() });
    assert_eq!(fake.only_run().tasks, [0]);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn what_was_dropped_before_it_was_published_is_asked_for_again() {
    let mut fake = with_mode(1, ResultsMode::Resident);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let run = fake.only_run();
    fake.finish(&run);
    fake.ask(1, &[object(id, 0)]);
    fake.user(ToHead::Release(vec![object(id, 0)]));
    assert_eq!(fake.failure(1).kind, FailureKind::Lost);
    assert_eq!(fake.dropped(object(id, 0)), 1);
    fake.sent.retain(|m| !matches!(m, ToNode::Publish { .. }));
    fake.user(ToHead::Hold(vec![object(id, 0)]));
    fake.ask(2, &[object(id, 0)]);
    assert_eq!(fake.only_run().tasks, [0]);
    fake.node(FromNode::Published { worker: WorkerId(0), object: object(id, 0), place: None, contained: Vec::new() });
    fake.run_all();
    assert_eq!(fake.values(2), 1);
}

#[test]
fn sealed_mode_seals_everything() {
    let mut fake = with_mode(1, ResultsMode::Sealed);
    let id = graph_id(1);
    fake.run_graph(chain(id, 3));
    assert_eq!(fake.only_run().outputs, [output::PUBLISH | output::SEAL; 3]);
    fake.ask(1, &[object(id, 2)]);
    fake.run_all();
    assert_eq!(fake.answers[&1], [(object(id, 2), Ok(Place::Sealed { len: 64 }))]);
    assert_eq!(fake.freed(object(id, 0)), 1);
}

#[test]
fn graphs_that_contradict_themselves_are_refused() {
    let id = graph_id(1);
    let good = || graph(id, &[&[], &[0]], &[1]);
    let mut bad = Vec::new();
    let mut add = |change: &dyn Fn(&mut eagleray_core::message::GraphSpec)| {
        let mut spec = good();
        change(&mut spec);
        bad.push(spec);
    };
    add(&|s| s.position = vec![1, 0]);
    add(&|s| s.position = vec![0, 0]);
    add(&|s| s.position = vec![0, 9]);
    add(&|s| s.position = vec![0]);
    add(&|s| s.class = vec![0, 1]);
    add(&|s| s.class = vec![0]);
    add(&|s| s.outputs = vec![2]);
    add(&|s| s.inputs = graph(id, &[&[], &[2]], &[]).inputs);
    add(&|s| s.externals = vec![object(id, 0)]);
    add(&|s| s.id = GraphId::puts(USER));
    add(&|s| s.id.peer = PeerId(7));
    let mut fake = Fake::new(1);
    for (i, spec) in bad.into_iter().enumerate() {
        fake.user(ToHead::Submit(Box::new(spec)));
        assert_eq!(fake.refused.len(), i + 1, "graph {i} was accepted");
        assert!(matches!(fake.refused[i].1, Refusal::MalformedGraph(_)));
    }
    fake.run_graph(good());
    fake.user(ToHead::Submit(Box::new(good())));
    assert_eq!(fake.refused.len(), 12, "an id was used twice");
}

#[test]
fn ids_of_others_are_refused() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    let other = PeerId::of_worker(WorkerId(0));
    let place = Place::Inline { len: 1 };
    fake.driver(other, ToHead::Admit { graph: id, upto: 1 });
    fake.driver(other, ToHead::Cancel { graph: id });
    fake.driver(other, ToHead::Supply { object: object(id, 0), place, contained: Vec::new() });
    fake.driver(other, ToHead::Put { object: object(GraphId::puts(USER), 0), place, contained: Vec::new() });
    fake.driver(other, ToHead::Hold(vec![object(id, 5)]));
    assert_eq!(fake.refused.len(), 5);
    fake.user(ToHead::Admit { graph: id, upto: 2 });
    assert_eq!(fake.refused.len(), 6);
    let put = object(GraphId::puts(USER), 0);
    fake.user(ToHead::Put { object: put, place, contained: Vec::new() });
    fake.user(ToHead::Put { object: put, place, contained: Vec::new() });
    assert_eq!(fake.refused.len(), 7);
    fake.run_all();
}

#[test]
fn a_peer_that_leaves_lets_go_of_everything() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    fake.user(ToHead::Put {
        object: object(GraphId::puts(USER), 0),
        place: Place::Inline { len: 1 },
        contained: Vec::new(),
    });
    fake.user(ToHead::Await { token: 1, objects: vec![object(id, 0)], need: 1, fail_fast: false });
    fake.user(ToHead::Bye);
    let run = fake.only_run();
    fake.finish(&run);
    assert!(fake.answers.is_empty());
    assert!(fake.head.is_idle());
}
