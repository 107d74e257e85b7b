//! Actors and their calls.

use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{
    ActorEnd, ActorName, ActorSpec, ClassSpec, Demand, End, FailureKind, FromNode, GraphKind, GraphSpec, Place, Run,
    ToHead, ToNode, Trouble, WHOLE, output,
};

use crate::fake::{Fake, USER, chain, graph, graph_id, object, wide};

const CPU: Demand = Demand { cpu: WHOLE, others: Vec::new() };

fn spec() -> ActorSpec {
    ActorSpec { name: None, detached: false, max_restarts: 0, cpu: 0 }
}

fn name(name: &str) -> ActorName {
    ActorName { namespace: "space".into(), name: name.into() }
}

fn actor_graph(seq: u32, spec: ActorSpec) -> GraphSpec {
    GraphSpec {
        kind: GraphKind::Actor(Box::new(spec)),
        demands: vec![CPU],
        classes: vec![ClassSpec { fingerprint: 1, max_retries: 0, retries: 0, demand: 1, part: false }],
        ..wide(graph_id(seq), 1)
    }
}

/// Calls without further inputs.
fn calls(id: GraphId, actor: ObjectId, n: u32) -> GraphSpec {
    let rows: Vec<Vec<u32>> = (0..n).map(|_| vec![n]).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    GraphSpec {
        kind: GraphKind::Calls,
        externals: vec![actor],
        classes: vec![ClassSpec { fingerprint: 2, max_retries: 0, retries: 0, demand: 0, part: false }],
        ..graph(id, &rows, &(0..n).collect::<Vec<_>>())
    }
}

/// An actor that is made; its object and its worker.
fn made(fake: &mut Fake, seq: u32, spec: ActorSpec) -> (ObjectId, u32) {
    fake.run_graph(actor_graph(seq, spec));
    let run = making(fake, seq);
    fake.finish(&run);
    (object(graph_id(seq), 0), run.id.worker.0)
}

fn making(fake: &Fake, seq: u32) -> Run {
    fake.runs.values().find(|run| run.graph == graph_id(seq)).cloned().expect("the actor is being made")
}

fn end_of(fake: &Fake, token: u64) -> ActorEnd {
    match fake.failure(token).kind {
        FailureKind::ActorDied(death) => death.end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_worker_keeps_does_not_end_with_an_actor() {
    for others in [0, 1] {
        let mut fake = Fake::new(1);
        // The second task of it may not run yet, so the first one's result stays.
        let kept = chain(graph_id(9), 2);
        fake.user(ToHead::Submit(Box::new(kept)));
        fake.user(ToHead::Admit { graph: graph_id(9), upto: 1 });
        let run = fake.only_run();
        assert_eq!(run.outputs, [output::KEEP]);
        fake.finish(&run);
        if others > 0 {
            fake.up(1);
        }
        fake.sent.clear();
        fake.run_graph(actor_graph(1, spec()));
        let object = object(graph_id(9), 0);
        let asked = ToNode::Publish { worker: WorkerId(0), objects: vec![object], seal: false };
        assert_eq!(making(&fake, 1).id.worker, WorkerId(others));
        assert_eq!(fake.sent.contains(&asked), others == 0);
    }
}

#[test]
fn an_actor_has_a_worker_to_itself_and_no_slot() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    assert!(fake.head.is_actors(WorkerId(worker)));
    assert!(fake.sent.contains(&ToNode::Want(2)), "the pool is as large as before");
    fake.up(1);
    fake.run_graph(wide(graph_id(2), 1));
    let run = fake.only_run();
    assert_eq!(run.id.worker, WorkerId(1));
    fake.run_graph(calls(graph_id(3), actor, 2));
    let call = fake.runs_of(worker).remove(0);
    assert_eq!((call.tasks.as_slice(), call.inputs.as_slice()), ([0, 1].as_slice(), [].as_slice()));
    fake.finish(&call);
    fake.finish(&run);
    fake.ask(1, &[object(graph_id(3), 0), object(graph_id(3), 1)]);
    assert_eq!(fake.values(1), 2);
}

#[test]
fn an_actor_ends_with_its_last_handle_and_not_before_its_calls() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.run_graph(calls(graph_id(2), actor, 1));
    fake.user(ToHead::Release(vec![actor]));
    assert!(!fake.sent.contains(&ToNode::Stop(WorkerId(worker))));
    let call = fake.only_run();
    fake.finish(&call);
    assert!(fake.sent.contains(&ToNode::Stop(WorkerId(worker))));
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(fake.values(1), 1, "results outlive the actor");
    fake.down(worker, None);
    fake.user(ToHead::Release(vec![object(graph_id(2), 0)]));
    assert!(fake.head.is_idle());
    assert_eq!(fake.head.actors().count(), 0);
}

#[test]
fn what_an_actor_was_made_of_is_held_as_long_as_it_may_be_made_again() {
    let mut fake = Fake::new(1);
    let put = object(GraphId::puts(USER), 0);
    fake.user(ToHead::Put { object: put, place: Place::Inline { len: 8 }, contained: Vec::new() });
    let mut spec = actor_graph(1, ActorSpec { max_restarts: 1, ..spec() });
    spec.contained = vec![put];
    fake.run_graph(spec);
    fake.user(ToHead::Release(vec![put]));
    let first = making(&fake, 1);
    fake.finish(&first);
    assert_eq!(fake.freed(put), 0);
    fake.down(first.id.worker.0, None);
    fake.up(7);
    let again = making(&fake, 1);
    assert_eq!(fake.freed(put), 0);
    fake.finish(&again);
    assert_eq!(fake.freed(put), 1, "it was the last time");
}

#[test]
fn a_handle_that_is_dropped_at_once_lets_the_actor_be_made_first() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, spec()));
    fake.user(ToHead::Release(vec![object(graph_id(1), 0)]));
    let run = making(&fake, 1);
    fake.finish(&run);
    assert!(fake.sent.contains(&ToNode::Stop(run.id.worker)));
    fake.down(run.id.worker.0, None);
    assert!(fake.head.is_idle());
}

#[test]
fn calls_of_a_peer_keep_their_order_though_inputs_come_late() {
    let mut fake = Fake::new(2);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.up(2);
    fake.run_graph(wide(graph_id(2), 1));
    let slow = fake.runs.values().find(|run| run.graph == graph_id(2)).cloned().expect("it runs");
    let mut waits = calls(graph_id(3), actor, 2);
    waits.externals.push(object(graph_id(2), 0));
    waits.inputs = graph(graph_id(3), &[&[2, 3], &[2]], &[]).inputs;
    fake.run_graph(waits);
    fake.run_graph(calls(graph_id(4), actor, 1));
    assert!(fake.runs_of(worker).is_empty(), "the first waits, and the others behind it");
    // Another peer's calls do not wait behind them.
    let peer = PeerId::of_worker(slow.id.worker);
    let other = GraphId { peer, seq: 1 };
    fake.driver(peer, ToHead::Hold(vec![actor]));
    fake.run_graph(calls(other, actor, 1));
    let call = fake.runs_of(worker).remove(0);
    assert_eq!(call.graph, other);
    fake.finish(&call);
    fake.finish(&slow);
    let order: Vec<(GraphId, Vec<u32>)> = fake.runs_of(worker).into_iter().map(|run| (run.graph, run.tasks)).collect();
    assert_eq!(order, [(graph_id(3), vec![0, 1]), (graph_id(4), vec![0])]);
    assert_eq!(fake.runs_of(worker)[0].inputs, [object(graph_id(2), 0)], "the actor is not sent to itself");
}

/// What is behind a call that is cancelled goes back with it, or it would begin before what comes back.
#[test]
fn calls_keep_their_order_though_one_is_cancelled() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    for seq in 2..5 {
        fake.run_graph(calls(graph_id(seq), actor, 2));
    }
    let runs = fake.runs_of(worker);
    assert!(runs.len() > 1, "{runs:?}");
    fake.user(ToHead::CancelTask { object: object(graph_id(2), 0), force: false, recursive: false });
    let recalled: Vec<_> =
        fake.sent.iter().filter_map(|m| if let ToNode::Recall { run, .. } = m { Some(*run) } else { None }).collect();
    assert_eq!(recalled, runs.iter().rev().map(|run| run.id).collect::<Vec<_>>());
    for run in recalled {
        fake.node(FromNode::Recalled { run, limit: 0 });
    }
    for run in runs {
        let report = fake.report(&run, 0, 0, true);
        fake.deliver(report);
    }
    let mut order = Vec::new();
    while let Some(run) = fake.runs_of(worker).first().cloned() {
        order.extend(run.tasks.iter().map(|&task| (run.graph.seq, task)));
        fake.finish(&run);
    }
    assert_eq!(order, [(2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]);
}

#[test]
fn what_the_constructor_raised_is_why_calls_fail() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, ActorSpec { name: Some(name("a")), ..spec() }));
    let actor = object(graph_id(1), 0);
    fake.run_graph(calls(graph_id(2), actor, 1));
    let run = making(&fake, 1);
    fake.finish_with(&run, 0, Trouble::Raised([7].as_slice().into()));
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(end_of(&fake, 1), ActorEnd::Init { error: [7].as_slice().into() });
    fake.run_graph(calls(graph_id(3), actor, 1));
    fake.ask(2, &[object(graph_id(3), 0)]);
    assert_eq!(end_of(&fake, 2), ActorEnd::Init { error: [7].as_slice().into() });
    assert!(fake.sent.contains(&ToNode::Stop(run.id.worker)));
    // Its name is free again.
    fake.user(ToHead::FindActor { token: 9, name: name("a") });
    assert_eq!(fake.found[&9], None);
}

#[test]
fn an_actor_that_ends_itself_is_not_said_to_be_killed() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: 5, ..spec() });
    fake.run_graph(calls(graph_id(2), actor, 1));
    let run = fake.only_run();
    fake.driver(PeerId::of_worker(WorkerId(worker)), ToHead::KillActor { actor, restart: false });
    assert!(fake.sent.contains(&ToNode::Kill(WorkerId(worker))));
    fake.down(worker, Some((run.id.seq, 0)));
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert!(matches!(end_of(&fake, 1), ActorEnd::Exited));
}

#[test]
fn killing_an_actor_fails_what_it_has_not_done() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.run_graph(calls(graph_id(2), actor, 1));
    let done = fake.only_run();
    fake.finish(&done);
    fake.run_graph(calls(graph_id(3), actor, 2));
    let run = fake.only_run();
    fake.user(ToHead::KillActor { actor, restart: false });
    assert!(fake.sent.contains(&ToNode::Kill(WorkerId(worker))));
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(fake.values(1), 1, "what was done is not lost");
    // It may still have something to say before it dies.
    let report = fake.report(&run, 0, 1, false);
    fake.node(FromNode::Report(report));
    fake.down(worker, Some((run.id.seq, 1)));
    fake.ask(2, &[object(graph_id(3), 1)]);
    assert!(matches!(end_of(&fake, 2), ActorEnd::Killed));
    fake.run_graph(calls(graph_id(4), actor, 1));
    fake.ask(3, &[object(graph_id(4), 0)]);
    assert!(matches!(end_of(&fake, 3), ActorEnd::Killed));
}

#[test]
fn an_actor_is_made_again_and_calls_that_had_not_begun_are_done() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: 1, ..spec() });
    fake.run_graph(calls(graph_id(2), actor, 3));
    let run = fake.only_run();
    fake.node(FromNode::Report(fake.report(&run, 0, 1, false)));
    fake.up(1);
    fake.down(worker, Some((run.id.seq, 1)));
    fake.ask(1, &[object(graph_id(2), 1)]);
    assert!(matches!(end_of(&fake, 1), ActorEnd::Died(_)), "the one that ran has failed");
    let again = making(&fake, 1);
    fake.finish(&again);
    let rest = fake.runs_of(again.id.worker.0).remove(0);
    assert_eq!(rest.tasks, [2]);
    fake.finish(&rest);
    fake.ask(2, &[object(graph_id(2), 0), object(graph_id(2), 2)]);
    assert_eq!(fake.values(2), 2);
    fake.up(2);
    fake.down(again.id.worker.0, None);
    fake.run_graph(calls(graph_id(3), actor, 1));
    fake.ask(3, &[object(graph_id(3), 0)]);
    assert!(matches!(end_of(&fake, 3), ActorEnd::Died(_)), "it had one restart");
}

#[test]
fn a_call_that_has_run_is_not_done_again_because_nobody_was_told() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: 1, ..spec() });
    fake.run_graph(calls(graph_id(2), actor, 2));
    fake.run_graph(calls(graph_id(3), actor, 4));
    let runs = fake.runs_of(worker);
    let (first, second) = (runs[0].clone(), runs[1].clone());
    fake.up(1);
    fake.down(worker, Some((second.id.seq, 2)));
    let gone = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)];
    for (token, (graph, index)) in (1..).zip(gone) {
        fake.ask(token, &[object(graph_id(graph), index)]);
        assert!(matches!(end_of(&fake, token), ActorEnd::Died(_)), "call {index} of graph {graph}");
    }
    assert_eq!((first.tasks.len(), second.tasks.len()), (2, 4));
    let again = making(&fake, 1);
    fake.finish(&again);
    assert_eq!(fake.runs_of(again.id.worker.0).remove(0).tasks, [3], "it had not begun");
}

#[test]
fn exceptions_and_deaths_of_a_call_are_counted_together() {
    for (raises, dies, runs_again) in [(1, 0, true), (1, 1, true), (2, 1, false), (1, 2, false)] {
        let mut fake = Fake::new(1);
        let (actor, mut worker) = made(&mut fake, 1, ActorSpec { max_restarts: u32::MAX, ..spec() });
        let class = ClassSpec { fingerprint: 2, max_retries: 2, retries: 2, demand: 0, part: false };
        fake.run_graph(GraphSpec { classes: vec![class], ..calls(graph_id(2), actor, 1) });
        for next in 0..dies {
            let run = fake.runs_of(worker).remove(0);
            fake.up(1 + next);
            fake.down(worker, Some((run.id.seq, 0)));
            let again = making(&fake, 1);
            fake.finish(&again);
            worker = again.id.worker.0;
        }
        for _ in 0..raises {
            let Some(run) = fake.runs_of(worker).pop() else { break };
            fake.finish_with(&run, 0, Trouble::Retry([1].as_slice().into()));
        }
        assert_eq!(fake.runs_of(worker).len(), usize::from(runs_again), "after {raises} exceptions, {dies} deaths");
    }
}

#[test]
fn a_call_that_may_be_retried_is_done_by_the_next_life() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: u32::MAX, ..spec() });
    let mut spec = calls(graph_id(2), actor, 1);
    spec.classes[0].max_retries = 1;
    fake.run_graph(spec);
    let run = fake.only_run();
    fake.up(1);
    fake.down(worker, Some((run.id.seq, 0)));
    let again = making(&fake, 1);
    fake.finish(&again);
    let call = fake.only_run();
    fake.finish(&call);
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(fake.values(1), 1);
}

#[test]
fn a_kill_that_allows_it_is_followed_by_a_restart() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: 1, ..spec() });
    fake.user(ToHead::KillActor { actor, restart: true });
    fake.up(1);
    fake.down(worker, None);
    let again = making(&fake, 1);
    fake.finish(&again);
    assert_eq!(fake.head.actors().map(|info| (info.alive, info.restarts)).collect::<Vec<_>>(), [(true, 1)]);
}

#[test]
fn a_kill_before_an_actor_is_made_counts_as_any_other() {
    // Before it has a worker, and when it has one that has not begun.
    for begins in [false, true] {
        for max_restarts in 0..2 {
            let mut fake = Fake::new(1);
            let blocker = wide(graph_id(9), 1);
            if !begins {
                fake.run_graph(blocker);
            }
            fake.run_graph(actor_graph(1, ActorSpec { max_restarts, ..spec() }));
            let actor = object(graph_id(1), 0);
            fake.user(ToHead::KillActor { actor, restart: true });
            if begins {
                fake.up(1);
                fake.down(0, None);
            }
            if max_restarts == 0 {
                fake.ask(1, &[actor]);
                assert!(matches!(end_of(&fake, 1), ActorEnd::Killed));
                continue;
            }
            if !begins {
                let run = fake.only_run();
                fake.finish(&run);
            }
            let run = making(&fake, 1);
            fake.finish(&run);
            assert_eq!(fake.head.actors().map(|info| (info.alive, info.restarts)).collect::<Vec<_>>(), [(true, 1)]);
            fake.user(ToHead::KillActor { actor, restart: true });
            fake.up(2);
            fake.down(run.id.worker.0, None);
            assert_eq!(fake.head.actors().count(), 0);
        }
    }
}

#[test]
fn what_a_kill_has_interrupted_says_so() {
    for (deferred, max_restarts) in [(false, 1), (true, 1), (false, 0), (true, 0)] {
        let mut fake = Fake::new(1);
        let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts, ..spec() });
        fake.run_graph(calls(graph_id(2), actor, 1));
        let run = fake.only_run();
        if deferred {
            let mut report = fake.report(&run, 0, 1, true);
            report.published.clear();
            report.troubles = vec![(0, Trouble::Deferred)];
            fake.deliver(report);
        }
        fake.user(ToHead::KillActor { actor, restart: true });
        fake.up(1);
        fake.down(worker, (!deferred).then_some((run.id.seq, 0)));
        fake.ask(1, &[object(graph_id(2), 0)]);
        assert!(matches!(end_of(&fake, 1), ActorEnd::Killed));
        if max_restarts == 1 {
            // Of the next process it is not true any more.
            let again = making(&fake, 1);
            fake.finish(&again);
            fake.run_graph(calls(graph_id(3), actor, 1));
            let run = fake.only_run();
            fake.down(run.id.worker.0, Some((run.id.seq, 0)));
            fake.ask(2, &[object(graph_id(3), 0)]);
            assert!(matches!(end_of(&fake, 2), ActorEnd::Died(_)));
        }
    }
}

#[test]
fn a_deferred_call_ends_when_its_worker_says_so() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.run_graph(calls(graph_id(2), actor, 3));
    let run = fake.only_run();
    let mut report = fake.report(&run, 0, 3, true);
    report.published.clear();
    report.troubles = (0..3).map(|place| (place, Trouble::Deferred)).collect();
    fake.deliver(report);
    let call = |index| object(graph_id(2), index);
    let worker = WorkerId(worker);
    assert!((0..3).all(|index| fake.head.is_deferred(worker, call(index))));
    fake.ask(1, &[call(2)]);
    assert!(!fake.answers.contains_key(&1));
    let place = Place::Inline { len: 4 };
    fake.node(FromNode::Completed { worker, object: call(2), outcome: Ok((place, Vec::new())) });
    assert_eq!(fake.values(1), 1);
    fake.node(FromNode::Completed { worker, object: call(1), outcome: Err(Trouble::Raised([5].as_slice().into())) });
    fake.ask(2, &[call(1)]);
    assert!(matches!(fake.failure(2).kind, FailureKind::Raised { .. }));
    fake.user(ToHead::CancelTask { object: call(0), force: false, recursive: false });
    assert!(fake.sent.contains(&ToNode::CancelDeferred { worker, object: call(0) }));
    fake.node(FromNode::Completed { worker, object: call(0), outcome: Err(Trouble::Cancelled) });
    fake.ask(3, &[call(0)]);
    assert_eq!(fake.failure(3).kind, FailureKind::Cancelled);
    fake.user(ToHead::Release([0, 1, 2].map(call).into()));
    fake.user(ToHead::Release(vec![actor]));
    fake.down(worker.0, None);
    assert!(fake.head.is_idle());
}

#[test]
fn deferred_calls_die_with_their_actor() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { max_restarts: 1, ..spec() });
    fake.run_graph(calls(graph_id(2), actor, 1));
    let run = fake.only_run();
    let mut report = fake.report(&run, 0, 1, true);
    report.published.clear();
    report.troubles = vec![(0, Trouble::Deferred)];
    fake.deliver(report);
    fake.up(1);
    fake.down(worker, None);
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert!(matches!(end_of(&fake, 1), ActorEnd::Died(_)));
}

#[test]
fn only_calls_may_be_deferred() {
    let mut fake = Fake::new(1);
    fake.run_graph(wide(graph_id(1), 1));
    let run = fake.only_run();
    fake.node(FromNode::Report({
        let mut report = fake.report(&run, 0, 1, true);
        report.published.clear();
        report.troubles = vec![(0, Trouble::Deferred)];
        report
    }));
    assert!(fake.sent.contains(&ToNode::Kill(run.id.worker)));
}

#[test]
fn names_are_found_taken_and_free_again() {
    let mut fake = Fake::new(1);
    let named = |text: &str| ActorSpec { name: Some(name(text)), ..spec() };
    fake.run_graph(actor_graph(1, named("a")));
    fake.run_graph(actor_graph(2, named("a")));
    let (first, second) = (object(graph_id(1), 0), object(graph_id(2), 0));
    fake.ask(1, &[second]);
    assert_eq!(end_of(&fake, 1), ActorEnd::NameTaken);
    let other = PeerId::of_worker(WorkerId(0));
    fake.driver(other, ToHead::FindActor { token: 2, name: name("a") });
    assert_eq!(fake.found[&2], Some(first));
    // Who found it holds it.
    fake.user(ToHead::Release(vec![first, second]));
    let run = making(&fake, 1);
    fake.finish(&run);
    assert_eq!(fake.head.actors().count(), 1);
    fake.driver(other, ToHead::Release(vec![first]));
    fake.driver(other, ToHead::FindActor { token: 3, name: name("a") });
    assert_eq!(fake.found[&3], None);
}

#[test]
fn a_detached_actor_lives_until_it_is_killed() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, ActorSpec { detached: true, name: Some(name("d")), ..spec() });
    fake.user(ToHead::Release(vec![actor]));
    fake.user(ToHead::FindActor { token: 1, name: name("d") });
    assert_eq!(fake.found[&1], Some(actor));
    fake.user(ToHead::KillActor { actor, restart: false });
    fake.user(ToHead::Release(vec![actor]));
    fake.down(worker, None);
    assert!(fake.head.is_idle());
}

#[test]
fn an_actor_keeps_its_resources_for_life() {
    let mut config = eagleray_core::head::HeadConfig::new(2);
    config.offers = vec![("license".into(), WHOLE)];
    let mut fake = Fake::with(config);
    fake.up(0);
    fake.up(1);
    let licensed = |seq| {
        let demand = Demand { cpu: WHOLE, others: vec![("license".into(), WHOLE)] };
        GraphSpec { demands: vec![demand], ..actor_graph(seq, ActorSpec { cpu: WHOLE, ..spec() }) }
    };
    fake.run_graph(licensed(1));
    fake.run_graph(licensed(2));
    let run = fake.only_run();
    fake.finish(&run);
    fake.up(2);
    assert!(fake.runs.is_empty(), "the second waits for the license");
    let (_, free) = fake.head.resources();
    assert_eq!(free, [("license".into(), 0), ("CPU".into(), WHOLE)]);
    fake.user(ToHead::Release(vec![object(graph_id(1), 0)]));
    let second = fake.only_run();
    assert_eq!(second.graph, graph_id(2));
}

#[test]
fn what_an_actor_waits_for_finds_a_worker_though_all_slots_wait_for_the_actor() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.up(1);
    fake.run_graph(wide(graph_id(2), 1));
    let task = fake.only_run();
    let (caller, called) = (PeerId::of_worker(task.id.worker), PeerId::of_worker(WorkerId(worker)));
    fake.driver(caller, ToHead::Hold(vec![actor]));
    let call = GraphId { peer: caller, seq: 1 };
    fake.run_graph(calls(call, actor, 1));
    // The actor begins, and waits for a task of its own, before its caller waits for it.
    let inner = GraphId { peer: called, seq: 1 };
    fake.run_graph(wide(inner, 1));
    fake.ask_as(called, 1, &[object(inner, 0)]);
    fake.ask_as(caller, 2, &[object(call, 0)]);
    fake.up(2);
    let run = fake.runs_of(2).remove(0);
    assert_eq!(run.graph, inner);
    fake.finish(&run);
    assert_eq!(fake.values(1), 1);
}

#[test]
fn an_actor_that_crashes_while_it_is_made_uses_up_a_restart() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, ActorSpec { max_restarts: 1, ..spec() }));
    for worker in 0..2 {
        let run = making(&fake, 1);
        assert_eq!(run.id.worker, WorkerId(worker));
        fake.up(worker + 1);
        fake.down(worker, Some((run.id.seq, 0)));
    }
    fake.ask(1, &[object(graph_id(1), 0)]);
    let FailureKind::ActorDied(death) = fake.failure(1).kind else { panic!("{:?}", fake.failure(1)) };
    assert_eq!((death.end, death.restarts), (ActorEnd::Died(End::Signalled(9).into()), 1));
}

#[test]
fn a_worker_that_dies_before_it_makes_an_actor_is_no_restart() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, spec()));
    fake.up(1);
    fake.down(0, None);
    let run = making(&fake, 1);
    fake.finish(&run);
    assert_eq!(fake.head.actors().map(|info| (info.alive, info.restarts)).collect::<Vec<_>>(), [(true, 0)]);
}

#[test]
fn graphs_of_actors_that_do_not_fit_are_refused() {
    let mut fake = Fake::new(1);
    let mut two = actor_graph(1, spec());
    two.inputs = graph(graph_id(1), &[&[], &[]], &[]).inputs;
    let idle = GraphSpec { demands: vec![], classes: wide(graph_id(2), 1).classes, ..actor_graph(2, spec()) };
    let stray = GraphSpec { kind: GraphKind::Calls, ..wide(graph_id(3), 1) };
    for spec in [two, idle, stray] {
        fake.user(ToHead::Submit(Box::new(spec)));
    }
    assert_eq!(fake.refused.len(), 3);
    assert!(fake.head.is_idle());
}

#[test]
fn a_call_of_an_actor_that_is_gone_fails() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.user(ToHead::Release(vec![actor]));
    fake.down(worker, None);
    fake.run_graph(calls(graph_id(2), actor, 1));
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(fake.failure(1).kind, FailureKind::Lost);
    fake.user(ToHead::Release(vec![object(graph_id(2), 0)]));
    assert!(fake.head.is_idle());
    assert!(USER.worker().is_none());
}

#[test]
fn what_an_actor_waits_for_bit_by_bit_runs_for_a_task_that_waits_for_the_actor() {
    let mut fake = Fake::new(1);
    let (actor, worker) = made(&mut fake, 1, spec());
    fake.up(1);
    fake.run_graph(wide(graph_id(2), 1));
    let task = fake.only_run();
    fake.run_graph(calls(graph_id(3), actor, 1));
    let made_bit_by_bit = GraphSpec { kind: GraphKind::Independent, ..wide(graph_id(4), 1) };
    fake.run_graph(made_bit_by_bit);
    let stream = object(graph_id(4), 0);
    let peer = PeerId::of_worker(WorkerId(worker));
    fake.driver(peer, ToHead::Hold(vec![stream]));
    fake.driver(peer, ToHead::Next { token: 1, stream, index: 0, take: true });
    assert!(fake.runs.values().all(|run| run.graph != graph_id(4)), "the slot is occupied");
    fake.ask_as(PeerId::of_worker(task.id.worker), 2, &[object(graph_id(3), 0)]);
    fake.up(2);
    assert!(fake.runs.values().any(|run| run.graph == graph_id(4)));
}
