//! Actors, deferred and cancelled tasks, as far as the session itself has to do with them.

use eagleray_core::head::ActorInfo;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{ActorEnd, FailureKind, GraphKind, WHOLE};

use super::intruder::{Act, Intruder, Message, Said};
use super::stage::{GOOD, META, Stage, actor, calls, chain, name};
use crate::command::Ended;
use crate::look::Look;
use crate::program::{Part, Value};
use crate::wire::ToWorker;

/// Has an actor made.
fn create(stage: &Stage) -> ObjectId {
    let graph = stage.client.next_graph();
    let (spec, program) = actor(graph);
    stage.submit_this(spec, program);
    ObjectId { graph, index: 0 }
}

fn call(stage: &Stage, actor: ObjectId) -> ObjectId {
    let graph = stage.client.next_graph();
    let (spec, program) = calls(graph, actor);
    stage.submit_this(spec, program);
    ObjectId { graph, index: 0 }
}

fn until_alive(stage: &Stage) -> ActorInfo {
    stage.until(|session| session.inspect(Look::default()).unwrap().actors.iter().any(|actor| actor.alive));
    stage.session.inspect(Look::default()).unwrap().actors[0].clone()
}

fn value(ended: &Ended) -> &[u8] {
    match &ended[..] {
        [(_, Ok(Value::Inline(bytes)))] => bytes,
        other => panic!("no value: {other:?}"),
    }
}

/// A worker that is up, and does nothing by itself.
fn idler(stage: &mut Stage) -> Intruder {
    let mut idler = Intruder::new(stage.recruit());
    idler.act(&Act::Say(Message::Hello));
    stage.until(|session| session.workers().iter().any(|worker| worker.id == idler.id.0 && worker.up));
    idler
}

fn until_runs(stage: &Stage, runs: u64) {
    stage.until(|session| session.counters().runs == runs);
}

/// It says that a run of one task has ended.
fn ends(worker: &mut Intruder, seq: u32, published: Option<Said>, trouble: Option<u8>) {
    let published = published.map(|said| (0, said)).into_iter().collect();
    let troubles = trouble.map(|trouble| (0, trouble)).into_iter().collect();
    worker.act(&Act::Say(Message::Report { seq, upto: 1, ended: true, published, troubles, class: 0 }));
}

/// A worker that is an actor and has deferred a call of it: the worker, the actor, the call.
fn deferring(stage: &mut Stage) -> (Intruder, ObjectId, ObjectId) {
    let mut worker = idler(stage);
    let object = create(stage);
    until_runs(stage, 1);
    ends(&mut worker, 0, Some(Said::Inline(1)), None);
    until_alive(stage);
    let called = call(stage, object);
    until_runs(stage, 2);
    ends(&mut worker, 1, None, Some(2));
    (worker, object, called)
}

#[test]
fn an_actor_is_seen_found_called_and_let_go() {
    let mut stage = Stage::new(1);
    let recruit = stage.recruit();
    let worker = stage.hire(recruit);
    let before = stage.session.inspect(Look::default()).unwrap();
    assert_eq!((&before.offered, before.actors.len()), (&before.free, 0));
    assert_eq!(before.offered, [("CPU".into(), WHOLE)]);
    let object = create(&stage);
    let info = ActorInfo {
        actor: object,
        name: Some(name("actor")),
        worker: Some(worker),
        alive: true,
        restarts: 0,
        detached: false,
    };
    assert_eq!(until_alive(&stage), info);
    assert_eq!(stage.session.inspect(Look::default()).unwrap().free, [("CPU".into(), WHOLE / 4 * 3)]);
    let limit = super::stage::WATCHDOG;
    assert_eq!(stage.client.inspect(Look::default(), limit).unwrap(), stage.session.inspect(Look::default()).unwrap());
    assert_eq!(stage.client.find_actor(name("nobody"), limit).unwrap(), None);
    assert_eq!(stage.client.find_actor(name("actor"), limit).unwrap(), Some((object, META.into())));
    let called = call(&stage, object);
    assert_eq!(value(&stage.wait(called)), GOOD);
    stage.client.release(&[called, object]).unwrap();
    // It was found once, and that counts.
    assert_eq!(until_alive(&stage), info);
    stage.client.release(&[object]).unwrap();
    stage.until(|session| session.inspect(Look::default()).unwrap().actors.is_empty());
    assert_eq!(stage.client.find_actor(name("actor"), limit).unwrap(), None);
    stage.ended(worker);
}

#[test]
fn a_worker_that_has_an_actor_stays_when_workers_are_renewed() {
    let mut stage = Stage::new(1);
    let recruit = stage.recruit();
    let worker = stage.hire(recruit);
    let object = create(&stage);
    until_alive(&stage);
    stage.session.renew_workers().unwrap();
    let called = call(&stage, object);
    assert_eq!(value(&stage.wait(called)), GOOD);
    stage.client.kill_actor(object, false).unwrap();
    stage.until_killed(worker);
    let called = call(&stage, object);
    let ended = stage.wait(called);
    let Err(failure) = &ended[0].1 else { panic!("an answer of a dead actor") };
    assert!(matches!(&failure.kind, FailureKind::ActorDied(death) if death.end == ActorEnd::Killed), "{failure:?}");
    stage.ended(worker);
}

#[test]
fn no_actor_is_made_in_a_worker_that_is_to_end() {
    let mut stage = Stage::new(1);
    let mut worker = idler(&mut stage);
    let task = stage.submit(1);
    until_runs(&stage, 1);
    stage.session.renew_workers().unwrap();
    worker.until_told(|message| matches!(message, ToWorker::Stop));
    ends(&mut worker, 0, Some(Said::Inline(4)), None);
    stage.wait(task);
    // The head knew of no other worker.
    create(&stage);
    // What it holds was released when it was let go, and need not be released once more.
    worker.act(&Act::Say(Message::Release(vec![task])));
    let recruit = stage.recruit();
    let other = stage.hire(recruit);
    assert_eq!(until_alive(&stage).worker, Some(other));
    stage.ended(worker.id);
    stage.ended(other);
}

#[test]
fn a_deferred_call_is_cancelled_and_completed_once() {
    let mut stage = Stage::new(1);
    let (mut worker, _, called) = deferring(&mut stage);
    stage.client.cancel_task(called, false, false).unwrap();
    worker.until_told(|message| matches!(message, ToWorker::Cancel(told) if *told == called));
    worker.act(&Act::Say(Message::Inspect(3)));
    worker.until_told(|message| matches!(message, ToWorker::Awaited(answer) if answer.token == 3));
    // It need not heed that.
    let completed = Act::Say(Message::Completed(called, Ok(Said::Inline(4))));
    worker.act(&completed);
    assert_eq!(value(&stage.wait(called)), [7; 4]);
    worker.act(&completed);
    stage.until_killed(worker.id);
    stage.ended(worker.id);
}

/// A worker that looks for a frame that is not there yet does not look again before the end of its run.
#[test]
fn a_worker_is_asked_to_read_when_there_is_something_to_read() {
    let mut stage = Stage::new(1);
    let (mut worker, object, called) = deferring(&mut stage);
    // More than the socket takes.
    let (spec, program) = calls(stage.client.next_graph(), object);
    let graph = spec.id;
    stage.client.submit(spec, program).unwrap();
    let part = Part { functions: vec![vec![0; 8 << 20].into()], batches: Vec::new() };
    stage.client.extend(graph, part, 1).unwrap();
    until_runs(&stage, 3);
    stage.client.cancel_task(called, false, false).unwrap();
    // The answer comes at the end of the turn that took the cancellation in, or of a later one.
    stage.client.inspect(Look::default(), super::stage::WATCHDOG).unwrap();
    assert_eq!(worker.page().requests(), 0, "nothing that is asked can be read");
    worker.until_told(|message| matches!(message, ToWorker::Cancel(told) if *told == called));
    stage.until(|_| worker.page().requests() == 1);
    stage.ended(worker.id);
}

#[test]
fn what_is_claimed_is_interrupted_when_it_has_begun() {
    let mut stage = Stage::new(1);
    let pid = stage.spawn_of_template();
    let mut worker = Intruder::new(stage.recruit());
    worker.say_hello_as(pid);
    let graph = stage.client.next_graph();
    let (mut spec, program) = chain(graph, 1);
    spec.kind = GraphKind::Independent;
    stage.submit_this(spec, program);
    until_runs(&stage, 1);
    assert_eq!(worker.page().claim(0), Some(0));
    let task = ObjectId { graph, index: 0 };
    stage.client.cancel_task(task, false, false).unwrap();
    // The session has looked at the page, and has seen that it does not run.
    stage.session.inspect(Look::default()).unwrap();
    let goes_on = || std::fs::exists(format!("/proc/{pid}")).unwrap();
    assert!(goes_on(), "something else would have been interrupted");
    worker.page().start(0, 0, crate::session::now_ns());
    stage.until(|_| !goes_on());
    ends(&mut worker, 0, None, Some(3));
    let ended = stage.wait(task);
    assert!(matches!(&ended[0].1, Err(failure) if failure.kind == FailureKind::Cancelled), "{ended:?}");
    stage.ended(worker.id);
}
