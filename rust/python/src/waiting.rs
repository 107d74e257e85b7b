//! Waiting for objects, interruptible.

use std::time::{Duration, Instant};

use eagleray_core::ids::ObjectId;
use eagleray_runtime::command::Ended;
use pyo3::prelude::*;

use crate::role::{Role, raise};

/// How long Python's signals may wait.
const SIGNALS: Duration = Duration::from_millis(50);

/// How long a withdrawn question may take to be answered.
const WITHDRAWN: Duration = Duration::from_secs(5);

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
    let deadline = timeout.and_then(|seconds| Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?));
    let client = &role.client;
    let token = client.ask(objects.to_vec(), need as u32, fail_fast).map_err(raise)?;
    let withdraw = || -> PyResult<Ended> {
        client.withdraw(token).map_err(raise)?;
        Ok(py.detach(|| client.answer(token, WITHDRAWN)).map_err(raise)?.unwrap_or_default())
    };
    loop {
        let left = deadline.map_or(SIGNALS, |deadline| deadline.saturating_duration_since(Instant::now()).min(SIGNALS));
        if let Some(ended) = py.detach(|| client.answer(token, left)).map_err(raise)? {
            return Ok(ended);
        }
        if let Err(interrupt) = py.check_signals() {
            withdraw()?;
            return Err(interrupt);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return withdraw();
        }
    }
}
