//! Frames of a worker that does not behave. It is ended, and nothing else happens: the session goes on, other workers'
//! graphs end well, and nothing of it is left.

use std::cell::Cell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::intruder::{Act, Intruder, Message, Said, acts};
use super::stage::Stage;

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One intruder after the other on the only slot, then a worker that behaves.
fn play(intrusions: &[(bool, Vec<Act>)]) {
    let mut stage = Stage::new(1);
    let graph = stage.submit(6);
    let token = stage.client.ask(vec![graph], 1, true).unwrap();
    let over = Cell::new(false);
    for (hello, acts) in intrusions {
        let mut intruder = Intruder::new(stage.recruit());
        if *hello {
            intruder.act(&Act::Say(Message::Hello));
        }
        // It has been given a run, if it is going to be: an earlier one may have ended the graph.
        stage.until(|session| {
            over.set(over.get() || stage.client.answer(token, Duration::ZERO).unwrap().is_some());
            let idle = !hello || over.get();
            session.workers().iter().any(|worker| worker.id == intruder.id.0 && (worker.busy || idle))
        });
        for act in acts {
            intruder.act(act);
        }
        // All that it wrote is read before this.
        stage.ended(intruder.id);
    }
    let recruit = stage.recruit();
    let good = stage.hire(recruit);
    // It may have been failed, but it has ended.
    stage.wait(graph);
    stage.works();
    stage.client.release(&[graph]).unwrap();
    stage.ended(good);
    stage.until(|session| session.counters().objects == 0 && session.counters().sealed_bytes == 0);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn whatever_a_worker_says_the_session_lives_on(
        intrusions in vec((any::<bool>(), vec(acts(), 0..8)), 1..3)
    ) {
        play(&intrusions);
    }
}

/// The second of its results is where the first is. Of the first nobody hears, so it must not stay.
#[test]
fn half_a_report_leaves_nothing_behind() {
    let published = vec![(0, Said::Own), (1, Said::Again)];
    let report = Message::Report { seq: 0, upto: 4, ended: false, published, troubles: vec![], class: 0 };
    play(&[(true, vec![Act::Say(report)])]);
}

/// What must not be overlooked. The second worker goes on with its work meanwhile.
#[test]
fn a_worker_that_breaks_the_rules_is_ended() {
    let report = |seq, upto, published: Vec<(u32, Said)>, troubles| {
        Act::Say(Message::Report { seq, upto, ended: false, published, troubles, class: 0 })
    };
    let faults = [
        vec![Act::Frame(vec![0xff; 10])],
        vec![Act::Frame(Vec::new())],
        vec![Act::Long { len: u32::MAX, bytes: 0 }],
        vec![Act::Say(Message::Hello)],
        vec![report(77, 0, vec![], vec![])],
        vec![report(0, 100, vec![], vec![])],
        vec![report(0, 0, vec![(0, Said::Inline(1))], vec![])],
        vec![Act::Say(Message::Published(object(0), Some(Said::Inline(1))))],
        // It has deferred nothing; and of what a task cannot end with.
        vec![Act::Say(Message::Completed(object(1), Ok(Said::Inline(1))))],
        vec![Act::Say(Message::Completed(object(1), Err(0)))],
        vec![Act::Say(Message::Completed(object(1), Err(2)))],
        vec![Act::Say(Message::Segment { own: true, id: 9, size: 4096, fd: false })],
        vec![Act::Say(Message::Segment { own: true, id: 9, size: 4096, fd: true })],
        vec![Act::Say(Message::Segment { own: false, id: 9, size: 4096, fd: true })],
        vec![Act::Say(Message::SegmentGone { own: false, id: 0 })],
        vec![Act::Say(Message::Put { own: false, index: 0, value: Said::Inline(1) })],
        vec![Act::Say(Message::Put { own: true, index: 0, value: Said::Hidden })],
        vec![Act::Say(Message::Put { own: true, index: 0, value: Said::OfDriver })],
        vec![
            Act::Say(Message::Put { own: true, index: 0, value: Said::Own }),
            Act::Say(Message::Put { own: true, index: 1, value: Said::Again }),
        ],
        vec![Act::Say(Message::Put { own: true, index: 0, value: Said::Inline(1) }); 2],
        vec![Act::Say(Message::Supply(object(1), Said::Inline(1)))],
        vec![Act::Say(Message::Submit { own: false, seq: 1, sound: true, kind: 0 })],
        vec![Act::Say(Message::Submit { own: true, seq: 1, sound: false, kind: 0 })],
        vec![Act::Say(Message::Submit { own: true, seq: 1, sound: true, kind: 0 }); 2],
        vec![Act::Say(Message::Extend { own: false, seq: 1, upto: 1 })],
        vec![Act::Say(Message::Cancel { own: false, seq: 1 })],
        vec![Act::Descriptors(8); 20],
    ];
    let mut stage = Stage::new(2);
    let recruit = stage.recruit();
    let good = stage.hire(recruit);
    for fault in faults {
        let mut intruder = Intruder::new(stage.recruit());
        intruder.act(&Act::Say(Message::Hello));
        stage.until(|session| session.workers().iter().any(|worker| worker.id == intruder.id.0 && worker.up));
        for act in &fault {
            intruder.act(act);
        }
        stage.until_killed(intruder.id);
        stage.ended(intruder.id);
        stage.until(|session| session.workers().iter().all(|worker| worker.id != intruder.id.0 || !worker.alive));
    }
    stage.works();
    stage.ended(good);
    stage.until(|session| session.counters().objects == 0 && session.counters().sealed_bytes == 0);
}

fn object(seq: u32) -> eagleray_core::ids::ObjectId {
    let graph = eagleray_core::ids::GraphId { peer: eagleray_core::ids::PeerId::USER, seq };
    eagleray_core::ids::ObjectId { graph, index: 0 }
}

/// A length promises what never comes: no memory is taken for it.
#[test]
fn a_promised_length_takes_no_memory() {
    let size = || -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut stage = Stage::new(4);
    let before = size();
    let mut intruders = Vec::new();
    for _ in 0..4 {
        let mut intruder = Intruder::new(stage.recruit());
        intruder.act(&Act::Say(Message::Hello));
        intruder.act(&Act::Long { len: 1 << 30, bytes: 100_000 });
        intruders.push(intruder);
    }
    stage.until(|session| session.workers().iter().filter(|worker| worker.up).count() == 4);
    assert!(size().saturating_sub(before) < 1 << 30, "room for all that was promised was made at once");
    for intruder in intruders {
        stage.ended(intruder.id);
    }
}

/// What the template says is as little believed.
#[test]
fn garbage_of_the_template_ends_nothing() {
    let mut stage = Stage::new(1);
    let recruit = stage.recruit();
    let id = recruit.id;
    stage.hire(recruit);
    stage.works();
    for packet in [
        &b"\xff"[..],
        b"X",
        b"U\x01",
        b"Zgarbage",
        b"E\xff\xfe",
        b"X\xff\xff\xff\xff\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ] {
        stage.say(packet);
    }
    stage.say(&vec![b'E'; 60_000]);
    stage.say(b"R");
    stage.works();
    // It says that a worker has ended, twice.
    stage.ended(id);
    stage.ended(id);
    let recruit = stage.recruit();
    stage.hire(recruit);
    stage.works();
}
