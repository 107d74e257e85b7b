//! Tasks that raise and are run again.

use eagleray_core::message::{FailureKind, GraphSpec, Report, Run, ToNode, Trouble, output};

use crate::fake::{Fake, chain, graph, graph_id, object, wide};

fn retry() -> Trouble {
    Trouble::Retry(b"boom".as_slice().into())
}

fn with_retries(mut spec: GraphSpec, retries: u16) -> GraphSpec {
    spec.classes[0].retries = retries;
    spec
}

/// A report of a whole run, with these troubles.
fn troubled(fake: &Fake, run: &Run, troubles: Vec<(u32, Trouble)>) -> Report {
    let mut report = fake.report(run, 0, run.tasks.len() as u32, true);
    report.published.retain(|(place, _)| troubles.iter().all(|(other, _)| other != place));
    Report { troubles, ..report }
}

#[test]
fn a_task_is_run_again_as_often_as_it_may_and_its_last_exception_counts() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(wide(id, 1), 2));
    fake.ask(1, &[object(id, 0)]);
    for _ in 0..3 {
        assert!(fake.answers.is_empty());
        let run = fake.only_run();
        fake.finish_with(&run, 0, retry());
    }
    let failure = fake.failure(1);
    assert_eq!(failure.origin, object(id, 0));
    assert!(matches!(failure.kind, FailureKind::Raised { ref error, attempts: 3 } if **error == *b"boom"));
    assert_eq!(fake.head.counters().reruns, 2);
}

#[test]
fn what_a_task_is_not_run_again_for_fails_it_at_once() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(wide(id, 1), 2));
    fake.ask(1, &[object(id, 0)]);
    let run = fake.only_run();
    fake.finish_with(&run, 0, Trouble::Raised(b"boom".as_slice().into()));
    assert!(matches!(fake.failure(1).kind, FailureKind::Raised { attempts: 1, .. }));
}

#[test]
fn retries_without_end() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(wide(id, 1), u16::MAX));
    fake.ask(1, &[object(id, 0)]);
    for _ in 0..=u32::from(u16::MAX) + 1 {
        let run = fake.only_run();
        fake.finish_with(&run, 0, retry());
    }
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn what_it_read_within_its_run_is_made_again_and_what_was_skipped_follows() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(chain(id, 4), 1));
    fake.ask(1, &[object(id, 3)]);
    let run = fake.only_run();
    assert_eq!(run.tasks, [0, 1, 2, 3]);
    let report = troubled(&fake, &run, vec![(2, retry()), (3, Trouble::Skipped)]);
    fake.deliver(report);
    // Task 1 was read by task 2 alone and is gone with the attempt, and so is what task 1 was made of.
    assert_eq!(fake.only_run().tasks[0], 0);
    fake.run_all();
    assert_eq!(fake.values(1), 1);
}

#[test]
fn what_it_read_and_its_worker_kept_is_not_used_again() {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_all();
    let id = graph_id(2);
    // Each task is a run of its own, and the worker keeps what the next one reads.
    fake.run_graph(with_retries(graph(id, &[&[], &[0], &[0]], &[1, 2]), 1));
    fake.ask(1, &[object(id, 1), object(id, 2)]);
    let first = fake.runs_of(0)[0].clone();
    assert_eq!((first.tasks.as_slice(), first.outputs.as_slice()), (&[0][..], &[output::KEEP][..]));
    fake.finish(&first);
    let second = fake.runs_of(0)[0].clone();
    fake.finish_with(&second, 0, retry());
    assert_eq!(fake.dropped(object(id, 0)), 1);
    let made_again = fake.runs.values().any(|run| run.tasks.contains(&0));
    assert!(made_again, "{:?}", fake.runs);
    // Task 2 was on its way and finds its input missing.
    for run in fake.runs_of(0) {
        if run.tasks == [2] {
            fake.finish_with(&run, 0, Trouble::InputNotHere(vec![object(id, 0)]));
        }
    }
    fake.run_all();
    assert_eq!(fake.values(1), 2);
}

#[test]
fn an_input_that_the_run_should_have_kept_is_not_taken_for_kept() {
    let mut fake = Fake::with(eagleray_core::head::HeadConfig {
        results: eagleray_core::head::ResultsMode::Resident,
        ..eagleray_core::head::HeadConfig::new(1)
    });
    fake.up(0);
    let id = graph_id(1);
    fake.run_graph(with_retries(graph(id, &[&[], &[0]], &[0, 1]), 1));
    let run = fake.only_run();
    assert_eq!(run.outputs, [output::KEEP, output::KEEP]);
    fake.finish_with(&run, 1, retry());
    assert_eq!(fake.only_run().tasks[0], 0);
    fake.ask(1, &[object(id, 0), object(id, 1)]);
    fake.run_all();
    assert_eq!(fake.values(1), 2);
}

#[test]
fn a_published_input_is_read_again() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(graph(id, &[&[], &[0]], &[0, 1]), 1));
    let run = fake.only_run();
    fake.ask(1, &[object(id, 0), object(id, 1)]);
    fake.finish_with(&run, 1, retry());
    let again = fake.only_run();
    assert_eq!((again.tasks.as_slice(), again.inputs.as_slice()), (&[1][..], &[object(id, 0)][..]));
    fake.finish(&again);
    assert_eq!(fake.values(1), 2);
    assert_eq!(fake.freed(object(id, 0)), 0);
}

#[test]
fn a_graph_that_ends_meanwhile_does_not_run_it_again() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.run_graph(with_retries(wide(id, 1), 5));
    let run = fake.only_run();
    fake.user(eagleray_core::message::ToHead::Cancel { graph: id });
    fake.finish_with(&run, 0, retry());
    assert!(fake.runs.is_empty());
    fake.user(eagleray_core::message::ToHead::Release(vec![object(id, 0)]));
    assert!(fake.forgotten(id));
    assert!(fake.head.is_idle());
    assert!(!fake.sent.iter().any(|m| matches!(m, ToNode::Kill(_))));
}
