//! Tasks that wait for actors, which wait for tasks: all of them find workers.

use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{ActorSpec, ClassSpec, Demand, GraphKind, GraphSpec, Run, ToHead, WHOLE};

use crate::fake::{Fake, graph, graph_id, object, wide};

/// One slot: worker 0 is an actor's, and a task runs in worker 1.
fn actor_and_task() -> (Fake, ObjectId, PeerId) {
    let mut fake = Fake::new(1);
    let spec = ActorSpec { name: None, detached: false, max_restarts: 0, cpu: 0 };
    fake.run_graph(GraphSpec {
        kind: GraphKind::Actor(Box::new(spec)),
        demands: vec![Demand { cpu: WHOLE, others: Vec::new() }],
        classes: vec![ClassSpec { fingerprint: 1, max_retries: 0, retries: 0, demand: 1 }],
        ..wide(graph_id(1), 1)
    });
    let run = fake.only_run();
    fake.finish(&run);
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
    fake.driver(of_actor, ToHead::Next { token: 1, stream, index: 0 });
    fake.driver(peer, ToHead::Hold(vec![object(graph_id(3), 0)]));
    fake.ask_as(peer, 2, &[object(graph_id(3), 0)]);
    let run = given(&mut fake, 2);
    assert_eq!(run.graph, stream.graph);
    fake.finish(&run);
    assert_eq!(fake.found[&1], None);
}
