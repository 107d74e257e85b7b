//! Waiting for objects and for parts of what tasks make bit by bit, interruptible.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eagleray_core::ids::ObjectId;
use eagleray_runtime::command::{Answer, Ended};
use pyo3::prelude::*;

use crate::failures;
use crate::refs::ObjectRef;
use crate::role::{Role, raise};

/// How long Python's signals may wait.
const SIGNALS: Duration = Duration::from_millis(50);

/// How long a withdrawn question may take to be answered.
const WITHDRAWN: Duration = Duration::from_secs(5);

/// A part of what a task makes bit by bit: the task's object, and how many parts come before.
pub(crate) type PartOf = (ObjectId, u32);

/// When a wait of `timeout` seconds is over.
fn deadline(timeout: Option<f64>) -> Option<Instant> {
    timeout.and_then(|seconds| Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?))
}

/// Waits for the answer to one of these questions until `deadline`.
///
/// Raises what a signal handler raises.
fn first_answer(py: Python<'_>, role: &Role, tokens: &[u64], deadline: Option<Instant>) -> PyResult<Option<Answer>> {
    loop {
        let left = deadline.map_or(SIGNALS, |deadline| deadline.saturating_duration_since(Instant::now()).min(SIGNALS));
        let answer = py.detach(|| role.client.first_answer(tokens, left)).map_err(raise)?;
        if answer.is_some() {
            return Ok(answer);
        }
        py.check_signals()?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(None);
        }
    }
}

/// Withdraws a question. Gives what is there.
fn withdraw(py: Python<'_>, role: &Role, token: u64) -> PyResult<Ended> {
    role.client.withdraw(token).map_err(raise)?;
    let answer = py.detach(|| role.client.first_answer(&[token], WITHDRAWN)).map_err(raise)?;
    Ok(answer.map(|answer| answer.ended).unwrap_or_default())
}

/// Waits for the answer to a question until `deadline`. If it does not come, what is there then is the answer. Says as well
/// whether it came, or what a signal handler has raised.
fn answer(py: Python<'_>, role: &Role, token: u64, deadline: Option<Instant>) -> PyResult<(Ended, PyResult<bool>)> {
    Ok(match first_answer(py, role, &[token], deadline) {
        Ok(Some(answer)) => (answer.ended, Ok(true)),
        other => (withdraw(py, role, token)?, other.map(|_| false)),
    })
}

/// Waits until `need` of the objects are there or have failed (with `fail_fast`: or one has failed), or `timeout` has
/// passed; returns those that are. Objects may occur more than once in `objects`, but count once.
///
/// Raises what a signal handler raises.
pub(crate) fn wait(
    py: Python<'_>,
    role: &Role,
    objects: &[ObjectId],
    need: usize,
    fail_fast: bool,
    timeout: Option<f64>,
) -> PyResult<Ended> {
    let token = role.client.ask(objects.to_vec(), need as u32, fail_fast).map_err(raise)?;
    let (ended, came) = answer(py, role, token, deadline(timeout))?;
    role.client.learn(&ended);
    came.map(|_| ended)
}

/// The part that an answer has brought, if it has.
fn part(role: &Arc<Role>, ended: &Ended) -> PyResult<Option<ObjectRef>> {
    let Some((part, _)) = ended.first() else { return Ok(None) };
    role.client.adopt(*part).map_err(raise)?;
    Ok(Some(ObjectRef::counted(role, *part)))
}

/// Whether a task has ended.
fn has_ended(py: Python<'_>, role: &Role, task: ObjectId) -> PyResult<bool> {
    Ok(!wait(py, role, &[task], 1, false, Some(0.0))?.is_empty())
}

/// Waits for a part of what a task makes bit by bit. `None` if the task has ended without.
///
/// Raises `GetTimeoutError` after `timeout`, and what a signal handler raises.
pub(crate) fn next_part(
    py: Python<'_>,
    role: &Arc<Role>,
    (stream, index): PartOf,
    take: bool,
    timeout: Option<f64>,
) -> PyResult<Option<ObjectRef>> {
    let mut deadline = deadline(timeout);
    loop {
        let token = role.client.ask_next(stream, index, take).map_err(raise)?;
        let (ended, came) = answer(py, role, token, deadline)?;
        let part = part(role, &ended)?;
        if came? || part.is_some() {
            return Ok(part);
        }
        // What was withdrawn is answered like what will never come. If it will not, that is said at once.
        if !has_ended(py, role, stream)? {
            return Err(failures::timeout(py, timeout.unwrap_or_default()));
        }
        deadline = None;
    }
}

/// Waits until so many parts of what the task makes were taken, or nobody can take any.
///
/// Raises what a signal handler raises.
pub(crate) fn taken(py: Python<'_>, role: &Role, stream: ObjectId, count: u32) -> PyResult<()> {
    let token = role.client.ask_ahead(stream, count).map_err(raise)?;
    answer(py, role, token, None)?.1.map(|_| ())
}

/// Waits until `need` of the objects and parts are there, or will not be, or `timeout` has passed. Returns the objects that
/// are, and of each part whether it is. Each of both may occur only once.
///
/// Raises what a signal handler raises.
pub(crate) fn wait_with_parts(
    py: Python<'_>,
    role: &Arc<Role>,
    objects: &[ObjectId],
    parts: &[PartOf],
    need: usize,
    timeout: Option<f64>,
) -> PyResult<(Ended, Vec<bool>)> {
    let deadline = deadline(timeout);
    let mut there = vec![false; parts.len()];
    let mut ended = Ended::new();
    let mut open = Vec::with_capacity(parts.len() + 1);
    for (stream, index) in parts {
        open.push(role.client.ask_next(*stream, *index, false).map_err(raise)?);
    }
    let tokens = open.clone();
    let came = loop {
        let missing = need.saturating_sub(ended.len() + there.iter().filter(|there| **there).count());
        if missing == 0 {
            break Ok(true);
        }
        // As parts come, fewer objects are needed: so the question about these is put again.
        let about_objects = if ended.len() < objects.len() {
            let need = (ended.len() + missing).min(objects.len()) as u32;
            Some(role.client.ask(objects.to_vec(), need, false).map_err(raise)?)
        } else {
            None
        };
        open.extend(about_objects);
        let came = first_answer(py, role, &open, deadline);
        open.truncate(open.len() - usize::from(about_objects.is_some()));
        let answered = came.as_ref().ok().and_then(|answer| Some(answer.as_ref()?.token));
        if let Some(token) = about_objects.filter(|token| answered != Some(*token)) {
            ended = withdraw(py, role, token)?;
        }
        match came {
            Ok(Some(answer)) if Some(answer.token) == about_objects => ended = answer.ended,
            Ok(Some(answer)) => {
                drop(part(role, &answer.ended)?);
                open.retain(|token| *token != answer.token);
                if let Some(place) = tokens.iter().position(|token| *token == answer.token) {
                    there[place] = true;
                }
            }
            Ok(None) => break Ok(false),
            Err(interrupt) => break Err(interrupt),
        }
    };
    for token in open {
        let part = part(role, &withdraw(py, role, token)?)?;
        if let Some(place) = tokens.iter().position(|other| *other == token) {
            there[place] = part.is_some();
        }
    }
    if !came? {
        for (place, (stream, _)) in parts.iter().enumerate() {
            // As in `next_part`: what will never come is there.
            there[place] = there[place] || has_ended(py, role, *stream)?;
        }
    }
    role.client.learn(&ended);
    Ok((ended, there))
}
