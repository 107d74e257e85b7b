//! Threads of the driver that run the session's loop while they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use eagleray_core::ids::WorkerId;

use super::stage::{Stage, WATCHDOG};
use crate::SessionError;
use crate::client::ClientError;
use crate::shared::Input;

fn ended<T>(result: Result<T, ClientError>) -> bool {
    matches!(result, Err(ClientError::Session(SessionError::Ended)))
}

/// Waits until a thread of the driver leads.
fn until_led(stage: &Stage) {
    stage.until(|session| session.shared().seat.is_led_by_a_driver());
}

#[test]
fn all_threads_are_answered_while_workers_die() {
    const THREADS: u32 = 6;
    const DEATHS: u32 = 40;
    let mut stage = Stage::new(2);
    let mut workers: Vec<WorkerId> = (0..2)
        .map(|_| {
            let recruit = stage.recruit();
            stage.hire(recruit)
        })
        .collect();
    let over = AtomicBool::new(false);
    let rounds: Vec<AtomicU32> = (0..THREADS).map(|_| AtomicU32::new(0)).collect();
    let client = Arc::clone(&stage.client);
    thread::scope(|scope| {
        for (number, rounds) in (0..THREADS).zip(&rounds) {
            let (client, over) = (&client, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed) + number;
                    let object = Stage::submit_to(client, 2 + round % 5);
                    if round % 5 == 0 {
                        client.cancel(object.graph).unwrap();
                    }
                    let token = client.ask(vec![object], 1, true).unwrap();
                    let limit = [WATCHDOG, Duration::ZERO, Duration::from_micros(300)][round as usize % 3];
                    let mut answer = client.answer(token, limit).unwrap();
                    if answer.is_none() {
                        client.withdraw(token).unwrap();
                        answer = client.answer(token, WATCHDOG).unwrap();
                    }
                    assert!(answer.is_some(), "an answer before the watchdog");
                    client.release(&[object]).unwrap();
                }
            });
        }
        for death in 0..DEATHS {
            // Each thread gets on between two deaths.
            let seen: Vec<u32> = rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect();
            stage.until(|_| rounds.iter().zip(&seen).all(|(now, &seen)| now.load(Ordering::Relaxed) > seen));
            stage.ended(workers.remove(death as usize % 2));
            let recruit = stage.recruit();
            workers.push(stage.hire(recruit));
        }
        over.store(true, Ordering::Relaxed);
    });
    stage.works();
    stage.until(|session| session.counters().objects == 0);
}

#[test]
fn a_thread_that_only_looks_sees_what_workers_say() {
    let mut stage = Stage::new(1);
    let recruit = stage.recruit();
    stage.hire(recruit);
    stage.works();
    for _ in 0..50 {
        let object = stage.submit(3);
        let token = stage.client.ask(vec![object], 1, true).unwrap();
        // This leads all the time, for nearly no time: it has to look at the sockets by itself.
        let start = std::time::Instant::now();
        while stage.client.answer(token, Duration::ZERO).unwrap().is_none() {
            assert!(start.elapsed() < WATCHDOG);
        }
        stage.client.release(&[object]).unwrap();
    }
}

#[test]
fn what_nobody_waits_for_is_done_after_a_thread_has_led() {
    let mut stage = Stage::new(1);
    let recruit = stage.recruit();
    stage.hire(recruit);
    for _ in 0..20 {
        stage.works();
        let runs = stage.session.counters().runs;
        let object = stage.submit(3);
        stage.until(|session| session.counters().runs > runs);
        stage.client.release(&[object]).unwrap();
        stage.until(|session| session.counters().objects == 0);
    }
}

#[test]
fn a_session_is_stopped_while_a_thread_leads() {
    let stage = Stage::new(1);
    let object = stage.submit(3);
    let token = stage.client.ask(vec![object], 1, true).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| stage.client.answer(token, WATCHDOG));
        until_led(&stage);
        let follows = scope.spawn(|| stage.client.answer(token, WATCHDOG));
        stage.session.stop();
        assert!(ended(waits.join().unwrap()) && ended(follows.join().unwrap()));
    });
    assert!(ended(stage.client.ask(vec![object], 1, true)));
}

#[test]
fn a_fault_in_a_turn_ends_the_session() {
    for led in [true, false] {
        let mut stage = Stage::new(1);
        stage.recruit();
        let object = stage.submit(3);
        let token = stage.client.ask(vec![object], 1, true).unwrap();
        thread::scope(|scope| {
            let waits = led.then(|| scope.spawn(|| stage.client.answer(token, WATCHDOG)));
            if led {
                until_led(&stage);
            }
            stage.session.shared().seat.send(Input::Panic, true).unwrap();
            if let Some(waits) = waits {
                assert!(ended(waits.join().unwrap()));
            }
        });
        assert!(ended(stage.client.answer(token, WATCHDOG)));
        stage.session.stop();
        assert!(ended(stage.client.ask(vec![object], 1, true)));
        stage.until_template_is_gone();
    }
}
