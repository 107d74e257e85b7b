//! What the session itself does for actors, whatever the head decides.

use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{ActorName, ActorSpec, GraphKind};

use super::intruder::{Act, Intruder, Message, Said};
use super::stage::{Stage, chain};
use crate::shared::ActorInfo;

fn name() -> ActorName {
    ActorName { namespace: "space".into(), name: "name".into() }
}

/// Has an actor made.
fn create(stage: &Stage) -> GraphId {
    let id = stage.client.next_graph();
    let (mut spec, mut program) = chain(id, 1);
    spec.kind = GraphKind::Actor(Box::new(ActorSpec { name: Some(name()), detached: false, max_restarts: 0, cpu: 0 }));
    program.actor_meta = Some("methods".into());
    stage.submit_this(spec, program);
    id
}

fn info(graph: GraphId, worker: Option<u32>) -> ActorInfo {
    ActorInfo { actor: ObjectId { graph, index: 0 }, name: Some(name()), detached: false, worker }
}

/// A worker that is up, and does nothing by itself.
fn idler(stage: &mut Stage) -> Intruder {
    let mut idler = Intruder::new(stage.recruit());
    idler.act(&Act::Say(Message::Hello));
    stage.until(|session| session.workers().iter().any(|worker| worker.id == idler.id.0 && worker.up));
    idler
}

fn busy(stage: &Stage, worker: &Intruder) {
    stage.until(|session| session.workers().iter().any(|info| info.id == worker.id.0 && info.busy));
}

/// The end of its first run.
fn ends_its_run(worker: &mut Intruder, tasks: u32) {
    let published = vec![(tasks - 1, Said::Inline(4))];
    worker.act(&Act::Say(Message::Report { seq: 0, upto: tasks, ended: true, published, troubles: vec![], class: 0 }));
}

#[test]
fn a_worker_that_has_an_actor_stays_when_workers_are_renewed() {
    let mut stage = Stage::new(1);
    let mut worker = idler(&mut stage);
    assert_eq!(stage.session.inspect().unwrap().actors, []);
    let graph = create(&stage);
    busy(&stage, &worker);
    assert_eq!(stage.session.inspect().unwrap().actors, [info(graph, Some(worker.id.0))]);
    ends_its_run(&mut worker, 1);
    stage.until(|session| session.workers().iter().all(|worker| !worker.busy));
    stage.session.renew_workers().unwrap();
    // One that is renewed is as good as gone at once.
    assert_eq!(stage.session.inspect().unwrap().actors, [info(graph, Some(worker.id.0))]);
    assert!(!worker.was_told_to_stop());
    stage.ended(worker.id);
    stage.until(|session| session.inspect().unwrap().actors.iter().all(|actor| actor.worker.is_none()));
}

#[test]
fn a_worker_that_is_to_end_is_given_nothing_once_it_is_idle() {
    let mut stage = Stage::new(1);
    let mut worker = idler(&mut stage);
    let first = stage.submit(1);
    busy(&stage, &worker);
    stage.session.renew_workers().unwrap();
    ends_its_run(&mut worker, 1);
    stage.wait(first);
    // Its place is taken by this one, though the head knows of no other worker yet.
    let second = stage.submit(6);
    let recruit = stage.recruit();
    stage.hire(recruit);
    stage.wait(second);
    stage.client.release(&[first, second]).unwrap();
}
