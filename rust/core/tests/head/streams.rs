//! What tasks make bit by bit.

use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{GraphKind, GraphSpec, Place, ToHead, Trouble};

use crate::fake::{Fake, USER, graph_id, object, wide};

/// A task that runs and makes parts; its object, and the peer it is.
fn begun(fake: &mut Fake) -> (ObjectId, PeerId) {
    fake.run_graph(GraphSpec { kind: GraphKind::Independent, ..wide(graph_id(1), 1) });
    (object(graph_id(1), 0), PeerId::of_worker(fake.only_run().id.worker))
}

fn makes(fake: &mut Fake, peer: PeerId, stream: ObjectId, index: u32) -> ObjectId {
    let part = object(GraphId::puts(peer), index);
    fake.driver(peer, ToHead::Put { object: part, place: Place::Inline { len: 8 }, contained: Vec::new() });
    fake.driver(peer, ToHead::Yield { stream, index, part });
    fake.driver(peer, ToHead::Release(vec![part]));
    part
}

fn next(fake: &mut Fake, token: u64, stream: ObjectId, index: u32) {
    fake.user(ToHead::Next { token, stream, index, take: true });
}

#[test]
fn parts_are_had_before_the_task_has_ended() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    next(&mut fake, 1, stream, 0);
    assert!(fake.found.is_empty());
    let first = makes(&mut fake, peer, stream, 0);
    assert_eq!(fake.found[&1], Some(first));
    let second = makes(&mut fake, peer, stream, 1);
    next(&mut fake, 2, stream, 1);
    assert_eq!(fake.found[&2], Some(second));
    next(&mut fake, 3, stream, 2);
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.found[&3], None);
    next(&mut fake, 4, stream, 2);
    assert_eq!(fake.found[&4], None);
    fake.user(ToHead::Release(vec![first, second, stream]));
    assert_eq!((fake.freed(first), fake.freed(second)), (1, 1));
    assert!(fake.head.is_idle());
}

#[test]
fn parts_go_when_the_next_is_asked_for() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    let [first, second, third] = [0, 1, 2].map(|index| makes(&mut fake, peer, stream, index));
    next(&mut fake, 1, stream, 0);
    next(&mut fake, 2, stream, 0);
    assert_eq!((fake.found[&1], fake.found[&2]), (Some(first), Some(first)), "it may be asked for again");
    fake.user(ToHead::Release(vec![first, first]));
    assert_eq!(fake.freed(first), 0);
    next(&mut fake, 3, stream, 2);
    assert_eq!((fake.found[&3], fake.freed(first), fake.freed(second)), (Some(third), 1, 1));
    next(&mut fake, 4, stream, 1);
    assert_eq!(fake.found[&4], None, "it was let go");
    next(&mut fake, 5, stream, 3);
    let fourth = makes(&mut fake, peer, stream, 3);
    assert_eq!(fake.found[&5], Some(fourth));
    fake.user(ToHead::Release(vec![third, fourth]));
    assert_eq!((fake.freed(third), fake.freed(fourth)), (1, 0));
    fake.user(ToHead::Release(vec![stream]));
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.freed(fourth), 1);
    assert!(fake.head.is_idle());
}

fn ahead(fake: &mut Fake, peer: PeerId, token: u64, stream: ObjectId, taken: u32) {
    fake.driver(peer, ToHead::Ahead { token, stream, taken });
}

#[test]
fn who_is_ahead_goes_on_when_parts_are_taken() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    makes(&mut fake, peer, stream, 0);
    ahead(&mut fake, peer, 1, stream, 1);
    assert!(!fake.found.contains_key(&1));
    // Its slot is free meanwhile.
    fake.run_graph(wide(graph_id(2), 1));
    fake.up(1);
    assert_eq!(fake.runs_of(1).len(), 1);
    next(&mut fake, 2, stream, 0);
    assert_eq!(fake.found[&1], None);
    ahead(&mut fake, peer, 3, stream, 1);
    assert_eq!(fake.found[&3], None, "it was taken already");
    next(&mut fake, 4, stream, 1);
    makes(&mut fake, peer, stream, 1);
    ahead(&mut fake, peer, 5, stream, 2);
    assert_eq!(fake.found[&5], None, "it went to who waited for it");
}

#[test]
fn who_looks_takes_nothing() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    let look = |fake: &mut Fake, token| fake.user(ToHead::Next { token, stream, index: 0, take: false });
    look(&mut fake, 1);
    let first = makes(&mut fake, peer, stream, 0);
    assert_eq!(fake.found[&1], Some(first));
    look(&mut fake, 2);
    assert_eq!(fake.found[&2], Some(first));
    ahead(&mut fake, peer, 3, stream, 1);
    assert!(!fake.found.contains_key(&3));
    next(&mut fake, 4, stream, 0);
    assert_eq!(fake.found[&4], Some(first));
    assert_eq!(fake.found[&3], None);
}

#[test]
fn who_is_ahead_goes_on_when_nobody_can_take_anything() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    ahead(&mut fake, peer, 1, stream, 1);
    fake.driver(peer, ToHead::Forget { token: 1 });
    assert_eq!(fake.found[&1], None, "it asks no more");
    makes(&mut fake, peer, stream, 0);
    ahead(&mut fake, peer, 2, stream, 1);
    fake.user(ToHead::Release(vec![stream]));
    assert_eq!(fake.found[&2], None);
    ahead(&mut fake, peer, 3, stream, 1);
    assert_eq!(fake.found[&3], None);
    let run = fake.only_run();
    fake.finish(&run);
    assert!(fake.head.is_idle());
}

#[test]
fn a_worker_that_is_ahead_may_die() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    let first = makes(&mut fake, peer, stream, 0);
    ahead(&mut fake, peer, 1, stream, 1);
    let run = fake.only_run();
    fake.down(run.id.worker.0, Some((run.id.seq, 0)));
    next(&mut fake, 2, stream, 0);
    assert_eq!(fake.found[&2], Some(first));
    assert!(!fake.found.contains_key(&1), "nobody is there to hear it");
}

#[test]
fn parts_that_nobody_took_go_with_the_stream() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    let first = makes(&mut fake, peer, stream, 0);
    fake.user(ToHead::Release(vec![stream]));
    assert_eq!(fake.freed(first), 1);
    let second = makes(&mut fake, peer, stream, 1);
    assert_eq!(fake.freed(second), 1, "nobody can ask for it");
    let run = fake.only_run();
    fake.finish(&run);
    assert!(fake.head.is_idle());
}

#[test]
fn a_second_attempt_makes_no_part_twice() {
    let mut fake = Fake::new(2);
    let (stream, peer) = begun(&mut fake);
    let first = makes(&mut fake, peer, stream, 0);
    let run = fake.only_run();
    fake.down(run.id.worker.0, Some((run.id.seq, 0)));
    let again = PeerId::of_worker(fake.only_run().id.worker);
    let twice = makes(&mut fake, again, stream, 0);
    assert_eq!((fake.freed(first), fake.freed(twice)), (0, 1));
    next(&mut fake, 1, stream, 0);
    assert_eq!(fake.found[&1], Some(first));
    let second = makes(&mut fake, again, stream, 1);
    next(&mut fake, 2, stream, 1);
    let run = fake.only_run();
    fake.user(ToHead::Release(vec![first, second]));
    next(&mut fake, 3, stream, 2);
    assert_eq!(fake.freed(second), 1, "the next is asked for");
    fake.down(run.id.worker.0, Some((run.id.seq, 0)));
    fake.up(7);
    let again = PeerId::of_worker(fake.only_run().id.worker);
    let thrice = [0, 1].map(|index| makes(&mut fake, again, stream, index));
    assert_eq!(thrice.map(|part| fake.freed(part)), [1, 1], "also if it was taken");
    let third = makes(&mut fake, again, stream, 2);
    assert_eq!(fake.found[&3], Some(third));
}

#[test]
fn a_failure_ends_the_stream_after_its_parts() {
    let mut fake = Fake::new(1);
    let (stream, peer) = begun(&mut fake);
    let first = makes(&mut fake, peer, stream, 0);
    let run = fake.only_run();
    fake.finish_with(&run, 0, Trouble::Raised([1].as_slice().into()));
    next(&mut fake, 2, stream, 0);
    assert_eq!(fake.found[&2], Some(first));
    next(&mut fake, 1, stream, 1);
    assert_eq!(fake.found[&1], None);
    fake.ask(3, &[stream]);
    assert_eq!(fake.failure(3).origin, stream);
}

#[test]
fn who_waits_for_a_part_gives_its_slot_back_and_may_give_up() {
    let mut fake = Fake::new(1);
    let (stream, _) = begun(&mut fake);
    let other = PeerId::of_worker(eagleray_core::ids::WorkerId(7));
    fake.up(7);
    fake.driver(other, ToHead::Hold(vec![stream]));
    fake.driver(other, ToHead::Next { token: 1, stream, index: 0, take: true });
    fake.driver(other, ToHead::Forget { token: 1 });
    assert_eq!(fake.found[&1], None);
    fake.driver(other, ToHead::Next { token: 2, stream, index: 0, take: true });
    fake.down(7, None);
    let run = fake.only_run();
    fake.finish(&run);
    fake.user(ToHead::Release(vec![stream]));
    assert!(fake.head.is_idle() && USER.worker().is_none());
}
