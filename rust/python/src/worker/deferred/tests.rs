use std::sync::atomic::Ordering;

use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::Trouble;

use super::{Deferrals, Stage, lock};

const TASK: ObjectId = ObjectId { graph: GraphId { peer: PeerId(0), seq: 1 }, index: 0 };

/// A task has asked to be deferred.
fn begun() -> Deferrals {
    let deferrals = Deferrals::default();
    lock(&deferrals.stages).insert(TASK, (0, Stage::Begun));
    deferrals.asked.store(true, Ordering::Relaxed);
    deferrals
}

#[test]
fn an_end_that_comes_before_the_task_is_away_is_told_behind_that() {
    let deferrals = begun();
    *lock(&deferrals.stages).get_mut(&TASK).unwrap() = (0, Stage::Early(Err(Trouble::Cancelled)));
    let (task, outcome) = deferrals.task_ended(TASK, true).unwrap();
    assert_eq!((task, outcome.err()), (TASK, Some(Trouble::Cancelled)));
    assert!(lock(&deferrals.stages).is_empty() && !deferrals.is_asked());
}

#[test]
fn a_task_that_ends_otherwise_is_not_deferred() {
    let deferrals = begun();
    *lock(&deferrals.stages).get_mut(&TASK).unwrap() = (0, Stage::Early(Err(Trouble::Cancelled)));
    assert!(deferrals.task_ended(TASK, false).is_none());
    assert!(lock(&deferrals.stages).is_empty() && !deferrals.is_asked());
}

#[test]
fn only_what_is_away_is_cancelled() {
    let deferrals = begun();
    let cancel = || {
        lock(&deferrals.to_cancel).push_back(TASK);
        deferrals.next_to_cancel()
    };
    assert_eq!(cancel(), None, "its function has not returned");
    assert!(deferrals.task_ended(TASK, true).is_none());
    assert!(!deferrals.is_cancelled(TASK));
    assert_eq!(cancel(), Some(TASK));
    assert!(deferrals.is_cancelled(TASK));
    lock(&deferrals.stages).remove(&TASK);
    assert_eq!(cancel(), None, "it has ended");
}
