//! Actors that end, or begin again, at odd moments.

use eagleray_core::head::{HeadConfig, HeadEvent};
use eagleray_core::ids::WorkerId;
use eagleray_core::message::{
    ActorEnd, ActorName, ActorSpec, ClassSpec, Demand, FailureKind, FromNode, GraphKind, GraphSpec, Place, ToHead,
    ToNode, Trouble, WHOLE,
};

use crate::fake::{Fake, graph, graph_id, object, wide};

fn spec() -> ActorSpec {
    let name = ActorName { namespace: "space".into(), name: "a".into() };
    ActorSpec { name: Some(name), detached: true, max_restarts: 0, cpu: 0 }
}

fn actor_graph(seq: u32, spec: ActorSpec) -> GraphSpec {
    GraphSpec {
        kind: GraphKind::Actor(Box::new(spec)),
        demands: vec![Demand { cpu: WHOLE, others: Vec::new() }],
        classes: vec![ClassSpec { fingerprint: 1, max_retries: 0, retries: 1, demand: 1, part: false }],
        ..wide(graph_id(seq), 1)
    }
}

fn call(seq: u32, actor: u32) -> GraphSpec {
    GraphSpec {
        kind: GraphKind::Calls,
        externals: vec![object(graph_id(actor), 0)],
        ..graph(graph_id(seq), &[&[1]], &[0])
    }
}

fn lives(fake: &Fake) -> Vec<(bool, u32)> {
    fake.head.actors().map(|info| (info.alive, info.restarts)).collect()
}

#[test]
fn the_end_of_a_worker_that_could_not_make_an_actor_is_nothing_to_the_one_that_did() {
    let mut fake = Fake::new(2);
    fake.run_graph(actor_graph(1, spec()));
    let first = fake.only_run();
    fake.finish_with(&first, 0, Trouble::Retry([1].as_slice().into()));
    let second = fake.only_run();
    assert_ne!(second.id.worker, first.id.worker);
    fake.finish(&second);
    fake.down(first.id.worker.0, None);
    assert_eq!(lives(&fake), [(true, 0)]);
    fake.run_graph(call(2, 1));
    assert_eq!(fake.only_run().id.worker, second.id.worker);
}

#[test]
fn an_actor_whose_inputs_fail_is_no_more() {
    let mut fake = Fake::new(1);
    fake.run_graph(GraphSpec { kind: GraphKind::Independent, ..wide(graph_id(1), 1) });
    let run = fake.only_run();
    let reads = GraphSpec { externals: vec![object(graph_id(1), 0)], ..actor_graph(2, spec()) };
    fake.run_graph(GraphSpec { inputs: graph(graph_id(2), &[&[1]], &[0]).inputs, ..reads });
    fake.run_graph(call(3, 2));
    fake.finish_with(&run, 0, Trouble::Raised([1].as_slice().into()));
    assert_eq!(fake.head.actors().count(), 0);
    fake.ask(1, &[object(graph_id(3), 0)]);
    assert_eq!(fake.failure(1).origin, object(graph_id(1), 0));
    fake.user(ToHead::Release((1..4).map(|seq| object(graph_id(seq), 0)).collect()));
    assert!(fake.head.is_idle());
}

#[test]
fn an_actor_that_no_worker_lives_to_make_is_no_more() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, spec()));
    for worker in 0..21 {
        fake.up(worker + 1);
        fake.down(worker, None);
    }
    assert_eq!(fake.head.actors().count(), 0);
    fake.ask(1, &[object(graph_id(1), 0)]);
    assert!(matches!(fake.failure(1).kind, FailureKind::WorkerDied { .. }));
    fake.user(ToHead::Release(vec![object(graph_id(1), 0)]));
    assert!(fake.head.is_idle());
}

#[test]
fn an_actor_that_is_killed_while_it_is_made_is_not_made_again() {
    for end in 0..3 {
        let mut fake = Fake::new(2);
        fake.run_graph(actor_graph(1, spec()));
        let run = fake.only_run();
        let actor = object(graph_id(1), 0);
        fake.user(ToHead::KillActor { actor, restart: false });
        assert!(fake.sent.contains(&ToNode::Kill(run.id.worker)));
        match end {
            0 => fake.node(FromNode::Recalled { run: run.id, limit: 0 }),
            1 => fake.node(FromNode::Report(fake.report(&run, 0, 0, true))),
            _ => {}
        }
        fake.down(run.id.worker.0, None);
        assert!(fake.runs.is_empty());
        fake.ask(1, &[actor]);
        let FailureKind::ActorDied(death) = fake.failure(1).kind else { panic!("{:?}", fake.failure(1)) };
        assert_eq!(death.end, ActorEnd::Killed);
        fake.user(ToHead::Release(vec![actor]));
        assert!(fake.head.is_idle());
    }
}

/// A thread of the actor's that waits for something has its worker report so.
#[test]
fn an_actor_lives_when_it_is_made_though_the_run_is_not_over() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, ActorSpec { max_restarts: 1, ..spec() }));
    let run = fake.only_run();
    let made = fake.report(&run, 0, 1, false);
    fake.deliver(made);
    assert_eq!(lives(&fake), [(true, 0)]);
    fake.down(run.id.worker.0, None);
    fake.up(7);
    assert_eq!(fake.only_run().graph, graph_id(1));
    let again = fake.only_run();
    let made = fake.report(&again, 0, 1, false);
    fake.deliver(made);
    let over = fake.report(&again, 1, 1, true);
    fake.deliver(over);
    assert_eq!(lives(&fake), [(true, 1)]);
}

/// Its constructor may never end.
#[test]
fn the_worker_that_makes_an_actor_ends_when_the_making_is_cancelled() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, spec()));
    let run = fake.only_run();
    fake.user(ToHead::Cancel { graph: graph_id(1) });
    assert!(fake.sent.contains(&ToNode::Kill(run.id.worker)));
    fake.down(run.id.worker.0, Some((0, 0)));
    fake.ask(1, &[object(graph_id(1), 0)]);
    assert_eq!(fake.failure(1).kind, FailureKind::Cancelled);
    fake.user(ToHead::Release(vec![object(graph_id(1), 0)]));
    assert!(fake.head.is_idle());
}

#[test]
fn a_constructor_that_goes_on_though_nobody_holds_the_actor_is_ended_after_a_while() {
    for (found, early) in [(false, false), (false, true), (true, false)] {
        let mut fake = Fake::with(HeadConfig::new(1));
        let actor = object(graph_id(1), 0);
        fake.run_graph(actor_graph(1, ActorSpec { detached: false, ..spec() }));
        if early {
            fake.user(ToHead::Release(vec![actor]));
        }
        fake.up(0);
        let run = fake.only_run();
        if !early {
            fake.user(ToHead::Release(vec![actor]));
        }
        let kill = ToNode::Kill(run.id.worker);
        assert!(!fake.sent.contains(&kill), "it is made first");
        if found {
            let name = ActorName { namespace: "space".into(), name: "a".into() };
            fake.user(ToHead::FindActor { token: 1, name });
        }
        for _ in 0..3 {
            fake.now += 29_000_000_000;
            fake.tell(HeadEvent::Tick);
        }
        assert_eq!(fake.sent.contains(&kill), !found);
        if found {
            fake.finish(&run);
            assert_eq!(lives(&fake), [(true, 0)]);
            fake.user(ToHead::Release(vec![actor]));
        }
        fake.down(run.id.worker.0, (!found).then_some((0, 0)));
        assert!(fake.head.is_idle());
    }
}

#[test]
fn an_actor_that_is_found_while_it_is_made_is_made_once() {
    let mut fake = Fake::new(1);
    let actor = object(graph_id(1), 0);
    let spec = actor_graph(1, ActorSpec { detached: false, ..spec() });
    fake.handle(HeadEvent::Driver(eagleray_core::message::FromDriver {
        peer: crate::fake::USER,
        message: ToHead::Submit(Box::new(spec)),
    }));
    fake.user(ToHead::Release(vec![actor]));
    fake.user(ToHead::Admit { graph: graph_id(1), upto: 1 });
    let run = fake.only_run();
    let name = ActorName { namespace: "space".into(), name: "a".into() };
    fake.user(ToHead::FindActor { token: 1, name });
    assert_eq!(fake.found[&1], Some(actor));
    fake.finish(&run);
    assert_eq!(lives(&fake), [(true, 0)]);
    assert!(!fake.sent.contains(&ToNode::Stop(run.id.worker)));
}

#[test]
fn who_says_that_it_cannot_read_an_actor_does_not_have_it_made_twice() {
    let mut fake = Fake::new(2);
    fake.run_graph(actor_graph(1, spec()));
    let making = fake.only_run();
    fake.finish(&making);
    let actor = object(graph_id(1), 0);
    let reads = GraphSpec { externals: vec![actor], ..graph(graph_id(2), &[&[1]], &[0]) };
    fake.run_graph(GraphSpec { kind: GraphKind::Independent, ..reads });
    for _ in 0..6 {
        let run = fake.only_run();
        assert_eq!(run.graph, graph_id(2));
        fake.finish_with(&run, 0, Trouble::InputNotHere(vec![actor]));
    }
    assert_eq!(lives(&fake), [(true, 0)]);
    fake.ask(1, &[object(graph_id(2), 0)]);
    assert_eq!(fake.failure(1).kind, FailureKind::Lost);
}

#[test]
fn a_call_may_be_deferred_though_its_graph_was_cancelled() {
    let mut fake = Fake::new(1);
    fake.run_graph(actor_graph(1, spec()));
    let making = fake.only_run();
    fake.finish(&making);
    fake.run_graph(call(2, 1));
    let run = fake.only_run();
    fake.user(ToHead::Cancel { graph: graph_id(2) });
    fake.finish_with(&run, 0, Trouble::Deferred);
    let object = object(graph_id(2), 0);
    assert!(fake.head.is_deferred(run.id.worker, object), "it will complete it, and is no liar then");
    let outcome = Ok((Place::Inline { len: 4 }, Vec::new()));
    fake.node(FromNode::Completed { worker: run.id.worker, object, outcome });
    assert_eq!(fake.freed(object), 1);
    fake.user(ToHead::KillActor { actor: self::object(graph_id(1), 0), restart: false });
    fake.user(ToHead::Release(vec![object, self::object(graph_id(1), 0)]));
    fake.down(run.id.worker.0, None);
    assert!(fake.head.is_idle());
    assert!(!fake.head.is_actors(WorkerId(0)));
}
