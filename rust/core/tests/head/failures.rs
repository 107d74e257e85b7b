//! Tasks that raise, workers that die, results that are lost, graphs that are cancelled.

use eagleray_core::head::HeadEvent;
use eagleray_core::ids::{RunId, WorkerId};
use eagleray_core::message::{Death, End, FailureKind, FromNode, Place, ToHead, ToNode, Trouble};

use crate::fake::{Fake, chain, graph, graph_id, object, wide};

fn raised() -> Trouble {
    Trouble::Raised(b"boom".as_slice().into())
}

#[test]
fn a_task_that_raises_fails_the_rest_and_recalls_it() {
    let mut fake = Fake::new(2);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let id = graph_id(2);
    fake.run_graph(wide(id, 4));
    fake.ask(1, &[object(id, 0), object(id, 3)]);
    let first = fake.runs_of(0)[0].clone();
    let mut report = fake.report(&first, 0, 0, true);
    (report.upto, report.troubles) = (1, vec![(0, raised())]);
    fake.deliver(report);
    let failure = fake.failure(1);
    assert_eq!(failure.origin, object(id, first.tasks[0]));
    assert!(matches!(failure.kind, FailureKind::Raised { ref error, attempts: 1 } if **error == *b"boom"));
    for run in fake.runs.values() {
        assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 0 }), "{run:?} was not recalled");
    }
    // What still ran is dropped, however it was published.
    for run in fake.runs.values().cloned().collect::<Vec<_>>() {
        fake.finish(&run);
        assert_eq!(fake.freed(object(id, run.tasks[0])), 1);
    }
    fake.user(ToHead::Release((0..4).map(|i| object(id, i)).collect()));
    assert!(fake.forgotten(id));
}

#[test]
fn what_depends_on_a_task_that_raised_is_skipped_and_what_does_not_is_still_there() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(graph(id, &[&[], &[], &[0]], &[1, 2]));
    let run = fake.only_run();
    fake.ask(1, &[object(id, 1), object(id, 2)]);
    let mut report = fake.report(&run, 0, 3, true);
    report.published.retain(|(place, _)| *place == 1);
    report.troubles = vec![(0, raised()), (2, Trouble::Skipped)];
    fake.deliver(report);
    let answer = &fake.answers[&1];
    assert_eq!(answer[0], (object(id, 1), Ok(Place::Inline { len: 8 })));
    assert_eq!(answer[1].1.as_ref().map_err(|f| f.origin), Err(object(id, 0)));
}

/// Something that comes with a run ends its workers before any task begins. That must come to an end.
#[test]
fn workers_that_die_before_their_first_task_again_and_again_fail_the_graph() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(chain(id, 3));
    fake.ask(1, &[object(id, 2)]);
    let mut deaths = 0;
    while !fake.answers.contains_key(&1) {
        fake.down(deaths, None);
        fake.up(deaths + 1);
        deaths += 1;
        assert!(deaths < 100, "it is tried for ever");
    }
    assert!(deaths > 10, "a few deaths are free");
    assert!(matches!(
        fake.failure(1).kind,
        FailureKind::WorkerDied { death: Death { end: End::Signalled(9), .. }, .. }
    ));
}

#[test]
fn only_the_task_that_ran_is_blamed_for_a_death() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    let mut spec = wide(id, 2);
    spec.classes[0].max_retries = 1;
    fake.run_graph(spec);
    fake.ask(1, &[object(id, 0), object(id, 1)]);
    let deaths = [(0, Some((0, 0))), (1, None), (2, Some((0, 1))), (3, None)];
    for (worker, running) in deaths {
        assert_eq!(fake.runs_of(worker)[0].tasks, [0, 1]);
        fake.down(worker, running);
        fake.up(worker + 1);
        assert!(fake.answers.is_empty());
    }
    fake.down(4, Some((0, 1)));
    let failure = fake.failure(1);
    assert_eq!(failure.origin, object(id, 1));
    assert_eq!(failure.kind, FailureKind::WorkerDied { death: End::Signalled(9).into(), attempts: 2 });
}

#[test]
fn what_a_dead_worker_kept_is_made_again_with_what_that_needs() {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let id = graph_id(2);
    fake.run_graph(chain(id, 3));
    fake.ask(1, &[object(id, 2)]);
    let first = fake.runs_of(0)[0].clone();
    fake.finish(&first);
    let second = fake.runs_of(0)[0].clone();
    fake.finish(&second);
    assert_eq!((first.tasks, second.tasks), (vec![0], vec![1]));
    fake.down(0, Some((3, 0)));
    fake.up(1);
    // Task 0 was freed at its last use: it is made again too.
    assert_eq!(fake.only_run().tasks, [0]);
    assert_eq!(fake.head.counters().reruns, 3);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn a_published_result_that_cannot_be_read_is_made_again() {
    let mut fake = Fake::new(1);
    let (first, second) = (graph_id(1), graph_id(2));
    fake.run_graph(wide(first, 1));
    fake.run_all();
    let mut reader = graph(second, &[&[1]], &[0]);
    reader.externals.push(object(first, 0));
    fake.run_graph(reader);
    fake.ask(1, &[object(second, 0)]);
    let run = fake.only_run();
    assert_eq!(run.inputs, [object(first, 0)]);
    fake.finish_with(&run, 0, Trouble::InputNotHere(vec![object(first, 0)]));
    assert_eq!(fake.freed(object(first, 0)), 1);
    assert_eq!(fake.only_run().graph, first, "the reader waits until its input is there again");
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn a_question_counts_what_is_there_when_it_is_answered() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    let mut spec = graph(id, &[&[], &[], &[0]], &[0, 1, 2]);
    spec.classes[0].max_retries = 0;
    fake.user(ToHead::Submit(Box::new(spec)));
    fake.user(ToHead::Admit { graph: id, upto: 1 });
    fake.run_all();
    fake.ask(1, &[object(id, 0), object(id, 1)]);
    fake.user(ToHead::Admit { graph: id, upto: 3 });
    let run = fake.runs.values().find(|run| run.tasks.contains(&2)).cloned().expect("task 2 is in a run");
    let reads = run.tasks.iter().position(|&task| task == 2).expect("it was found there") as u32;
    fake.finish_with(&run, reads, Trouble::InputNotHere(vec![object(id, 0)]));
    assert!(fake.answers.is_empty(), "object 0 was lost before object 1 was there");
    fake.run_all();
    assert_eq!(fake.values(1), 2);
}

#[test]
fn a_put_object_that_is_lost_fails_its_readers_in_the_end() {
    let mut fake = Fake::new(1);
    let put = object(eagleray_core::ids::GraphId::puts(eagleray_core::ids::PeerId::USER), 0);
    fake.user(ToHead::Put { object: put, place: Place::Inline { len: 8 }, contained: Vec::new() });
    let id = graph_id(1);
    let mut spec = graph(id, &[&[1]], &[0]);
    spec.externals.push(put);
    fake.run_graph(spec);
    fake.ask(1, &[object(id, 0)]);
    for _ in 0..10 {
        if fake.answers.is_empty() {
            let run = fake.only_run();
            fake.finish_with(&run, 0, Trouble::InputNotHere(vec![put]));
        }
    }
    let failure = fake.failure(1);
    assert_eq!((failure.origin, failure.kind), (put, FailureKind::Lost));
}

#[test]
fn a_cancelled_task_that_goes_on_is_killed_after_a_grace() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    fake.ask(1, &[object(id, 0)]);
    let at = fake.now;
    fake.user(ToHead::Cancel { graph: id });
    assert_eq!(fake.failure(1).kind, FailureKind::Cancelled);
    fake.tick();
    assert!(fake.now >= at + 1_000_000_000);
    assert!(fake.sent.contains(&ToNode::Kill(WorkerId(0))));
}

#[test]
fn a_task_of_another_graph_is_not_killed_for_a_cancelled_one_behind_it() {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let (first, second) = (graph_id(2), graph_id(3));
    fake.run_graph(wide(first, 1));
    fake.run_graph(wide(second, 1));
    assert_eq!(fake.runs_of(0).len(), 2);
    fake.user(ToHead::Cancel { graph: second });
    fake.tick();
    assert!(!fake.sent.iter().any(|m| matches!(m, ToNode::Kill(_))));
}

#[test]
fn a_cancelled_task_that_ends_in_time_is_not_killed() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    fake.user(ToHead::Cancel { graph: id });
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.head.next_deadline(), None);
    assert_eq!(fake.freed(object(id, 0)), 1);
}

#[test]
fn without_any_worker_graphs_fail() {
    let mut fake = Fake::with(eagleray_core::head::HeadConfig::new(2));
    let id = graph_id(1);
    fake.run_graph(wide(id, 1));
    fake.ask(1, &[object(id, 0)]);
    let death = Death::from(End::NeverStarted("no python".into()));
    fake.node(FromNode::CannotStart(death.clone()));
    assert_eq!(fake.failure(1).kind, FailureKind::NoWorkers(death));
}

#[test]
fn a_report_that_cannot_be_true_ends_its_worker() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let run = fake.only_run();
    let mut report = fake.report(&run, 0, 2, true);
    report.upto = 3;
    fake.node(FromNode::Report(report));
    assert!(fake.sent.contains(&ToNode::Kill(WorkerId(0))));
    fake.down(0, None);
    fake.up(1);
    assert_eq!(fake.runs_of(1)[0].tasks, [0, 1]);
}

#[test]
fn an_empty_graph_of_which_several_inputs_are_gone_fails_once() {
    let mut fake = Fake::new(1);
    let put = object(eagleray_core::ids::GraphId::puts(eagleray_core::ids::PeerId::USER), 0);
    fake.user(ToHead::Put { object: put, place: Place::Inline { len: 8 }, contained: Vec::new() });
    let mut spec = graph(graph_id(2), &[], &[]);
    spec.externals = vec![object(graph_id(1), 0), put];
    fake.run_graph(spec);
    fake.user(ToHead::Release(vec![put]));
    assert!(fake.head.is_idle());
}

#[test]
fn messages_about_what_is_not_there_change_nothing() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(wide(id, 2));
    let before = fake.sent.len();
    let (run, worker) = (RunId { worker: WorkerId(9), seq: 9 }, WorkerId(9));
    fake.node(FromNode::Recalled { run, limit: 0 });
    fake.node(FromNode::Recalled { run: RunId { worker: WorkerId(0), seq: 9 }, limit: 0 });
    fake.node(FromNode::Sampled { worker, claimed: vec![(0, 7)], running_ns: None });
    fake.node(FromNode::Sampled { worker: WorkerId(0), claimed: vec![(0, 700)], running_ns: Some(1 << 60) });
    fake.node(FromNode::WorkerDown { worker, death: End::Exited(1).into(), running: Some((1, 1)) });
    fake.node(FromNode::Published { worker, object: object(id, 77), place: None, contained: Vec::new() });
    fake.tell(HeadEvent::Tick);
    assert_eq!(fake.sent.len(), before);
    fake.run_all();
}
