//! Tasks that wait for actors, which wait for tasks: all of them find workers.

use eagleray_core::head::{HeadConfig, HeadEvent};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{
    ActorSpec, ClassSpec, Demand, FromNode, GraphKind, GraphSpec, Place, Run, ToHead, ToNode, Trouble, WHOLE,
};

use crate::fake::{Fake, graph, graph_id, object, wide};

/// Has worker `worker`, which is idle, make an actor.
fn actor(fake: &mut Fake, id: GraphId, worker: u32) -> ObjectId {
    let spec = ActorSpec { name: None, detached: false, max_restarts: 0, cpu: 0 };
    fake.run_graph(GraphSpec {
        kind: GraphKind::Actor(Box::new(spec)),
        demands: vec![Demand { cpu: WHOLE, others: Vec::new() }],
        classes: vec![ClassSpec { fingerprint: 1, max_retries: 0, retries: 0, demand: 1, part: false }],
        ..wide(id, 1)
    });
    let run = fake.runs_of(worker).first().cloned().expect("it makes the actor");
    fake.finish(&run);
    object(id, 0)
}

/// One slot: worker 0 is an actor's, and a task runs in worker 1.
fn actor_and_task() -> (Fake, ObjectId, PeerId) {
    let mut fake = Fake::new(1);
    actor(&mut fake, graph_id(1), 0);
    fake.up(1);
    fake.run_graph(wide(graph_id(2), 1));
    let peer = PeerId::of_worker(fake.only_run().id.worker);
    assert_eq!(peer, PeerId::of_worker(WorkerId(1)));
    (fake, object(graph_id(1), 0), peer)
}

fn call(id: GraphId, actor: ObjectId, reads: &[ObjectId]) -> GraphSpec {
    let row: Vec<u32> = (1..=1 + reads.len() as u32).collect();
    let externals = [&[actor], reads].concat();
    GraphSpec { kind: GraphKind::Calls, externals, ..graph(id, &[&row], &[0]) }
}

fn independent(id: GraphId) -> GraphSpec {
    GraphSpec { kind: GraphKind::Independent, ..wide(id, 1) }
}

/// The run that a new worker is given.
fn given(fake: &mut Fake, worker: u32) -> Run {
    fake.up(worker);
    fake.runs_of(worker).first().cloned().expect("it has something to do")
}

#[test]
fn who_waits_for_a_call_waits_for_what_is_before_it() {
    let (mut fake, actor, peer) = actor_and_task();
    fake.run_graph(independent(graph_id(3)));
    fake.run_graph(call(graph_id(4), actor, &[object(graph_id(3), 0)]));
    let calls: Vec<GraphId> = (5..8).map(graph_id).collect();
    for &id in &calls {
        fake.run_graph(call(id, actor, &[]));
    }
    let results: Vec<ObjectId> = calls.iter().map(|&id| object(id, 0)).collect();
    fake.driver(peer, ToHead::Hold(results.clone()));
    fake.ask_as(peer, 1, &results);
    let run = given(&mut fake, 2);
    assert_eq!(run.graph, graph_id(3));
    fake.finish(&run);
    while let Some(run) = fake.runs_of(0).first().cloned() {
        fake.finish(&run);
    }
    assert_eq!(fake.values(1), 3);
}

#[test]
fn an_actor_that_waits_for_a_part_gets_it_though_all_slots_wait_for_the_actor() {
    let (mut fake, actor, peer) = actor_and_task();
    fake.run_graph(call(graph_id(3), actor, &[]));
    let of_actor = PeerId::of_worker(WorkerId(0));
    let stream = object(GraphId { peer: of_actor, seq: 1 }, 0);
    fake.run_graph(independent(stream.graph));
    fake.driver(of_actor, ToHead::Next { token: 1, stream, index: 0, take: true });
    fake.driver(peer, ToHead::Hold(vec![object(graph_id(3), 0)]));
    fake.ask_as(peer, 2, &[object(graph_id(3), 0)]);
    let run = given(&mut fake, 2);
    assert_eq!(run.graph, stream.graph);
    fake.finish(&run);
    assert_eq!(fake.found[&1], None);
}

/// A peer submits a call of an actor and waits for it.
fn calls_and_waits(fake: &mut Fake, peer: PeerId, seq: u32, actor: ObjectId) -> ObjectId {
    let id = GraphId { peer, seq };
    fake.run_graph(call(id, actor, &[]));
    fake.ask_as(peer, u64::from(peer.0) * 1000 + u64::from(seq), &[object(id, 0)]);
    object(id, 0)
}

/// How many workers the head has asked for at most.
fn most_wanted(fake: &Fake) -> u32 {
    let wanted =
        fake.sent.iter().filter_map(|message| if let ToNode::Want(count) = message { Some(*count) } else { None });
    wanted.max().unwrap_or(0)
}

#[test]
fn an_actor_may_wait_for_many_tasks_that_wait_for_another() {
    let mut fake = Fake::with(HeadConfig { max_workers: 8, ..HeadConfig::new(1) });
    fake.up(0);
    actor(&mut fake, graph_id(1), 0);
    fake.up(1);
    let other = actor(&mut fake, graph_id(2), 1);
    fake.up(2);
    // A call of the first actor has begun tasks and waits for them.
    fake.run_graph(call(graph_id(3), object(graph_id(1), 0), &[]));
    let peer = PeerId::of_worker(WorkerId(0));
    let tasks: Vec<GraphId> = (1..=30).map(|seq| GraphId { peer, seq }).collect();
    for &id in &tasks {
        fake.run_graph(independent(id));
    }
    fake.ask_as(peer, 1, &tasks.iter().map(|&id| object(id, 0)).collect::<Vec<_>>());
    let mut next = 3;
    for seq in 1..=30 {
        // Whoever has the next task: a worker that was started for it would have it first.
        let run = (2..next).find_map(|worker| fake.runs_of(worker).first().cloned()).expect("a task runs");
        let peer = PeerId::of_worker(run.id.worker);
        calls_and_waits(&mut fake, peer, seq, other);
        while next < most_wanted(&fake) {
            fake.up(next);
            next += 1;
        }
        let call = fake.runs_of(1).first().cloned().expect("the call is run");
        fake.finish(&call);
        fake.finish(&run);
    }
    assert_eq!(fake.values(1), 30);
    assert!(next <= 4, "{next} workers");
}

#[test]
fn tasks_may_report_to_the_concurrent_actor_that_waits_for_them() {
    let mut fake = Fake::with(HeadConfig { max_workers: 8, ..HeadConfig::new(1) });
    fake.up(0);
    let actor = actor(&mut fake, graph_id(1), 0);
    fake.up(1);
    fake.run_graph(call(graph_id(3), actor, &[]));
    let run = fake.runs_of(0)[0].clone();
    fake.finish_with(&run, 0, Trouble::Deferred);
    let peer = PeerId::of_worker(WorkerId(0));
    let tasks: Vec<GraphId> = (1..=30).map(|seq| GraphId { peer, seq }).collect();
    for &id in &tasks {
        fake.run_graph(independent(id));
    }
    fake.ask_as(peer, 1, &tasks.iter().map(|&id| object(id, 0)).collect::<Vec<_>>());
    let mut next = 2;
    for seq in 1..=30 {
        let run = (1..next).find_map(|worker| fake.runs_of(worker).first().cloned()).expect("a task runs");
        let peer = PeerId::of_worker(run.id.worker);
        let called = calls_and_waits(&mut fake, peer, seq, actor);
        let call = fake.runs_of(0).first().cloned().expect("the call is begun");
        fake.finish_with(&call, 0, Trouble::Deferred);
        while next < most_wanted(&fake) {
            fake.up(next);
            next += 1;
        }
        let outcome = Ok((Place::Inline { len: 8 }, Vec::new()));
        fake.node(FromNode::Completed { worker: WorkerId(0), object: called, outcome });
        fake.finish(&run);
    }
    assert_eq!(fake.values(1), 30);
    assert!(next <= 4, "{next} workers");
}

/// A call of a concurrent actor that was begun before the actor asked for something may be the one that did.
#[test]
fn what_a_deferred_call_may_wait_for_has_a_worker_though_a_task_waits_for_the_call() {
    let (mut fake, actor, peer) = actor_and_task();
    fake.run_graph(independent(graph_id(3)));
    calls_and_waits(&mut fake, peer, 1, actor);
    let run = fake.runs_of(0)[0].clone();
    fake.finish_with(&run, 0, Trouble::Deferred);
    let of_actor = PeerId::of_worker(WorkerId(0));
    fake.driver(of_actor, ToHead::Hold(vec![object(graph_id(3), 0)]));
    fake.ask_as(of_actor, 1, &[object(graph_id(3), 0)]);
    assert_eq!(given(&mut fake, 2).graph, graph_id(3));
}

/// What a call of an actor waits for is the program's affair: another task, say, that is to put something in a queue.
#[test]
fn tasks_that_wait_for_an_actor_do_not_keep_the_one_from_starting_that_they_wait_for() {
    let (mut fake, actor, peer) = actor_and_task();
    fake.run_graph(wide(graph_id(3), 1));
    fake.run_graph(wide(graph_id(4), 1));
    calls_and_waits(&mut fake, peer, 1, actor);
    let run = fake.runs_of(0)[0].clone();
    // As long as the call runs, it may end.
    fake.now += 1_000_000_000;
    fake.tell(HeadEvent::Tick);
    assert_eq!(most_wanted(&fake), 2);
    fake.finish_with(&run, 0, Trouble::Deferred);
    assert!(fake.runs_of(2).is_empty());
    for worker in [2, 3] {
        fake.tick();
        assert_eq!(most_wanted(&fake), worker + 1, "one worker at a time");
        let run = given(&mut fake, worker);
        assert_eq!(run.graph, graph_id(worker + 1));
        calls_and_waits(&mut fake, PeerId::of_worker(WorkerId(worker)), 1, actor);
        for behind in fake.runs_of(worker).into_iter().skip(1) {
            fake.node(FromNode::Recalled { run: behind.id, limit: 0 });
            let report = fake.report(&behind, 0, 0, true);
            fake.deliver(report);
        }
        let call = fake.runs_of(0)[0].clone();
        fake.finish_with(&call, 0, Trouble::Deferred);
    }
}
