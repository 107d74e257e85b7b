//! Reading what comes, for all threads of the worker, and its driver role, which waits for answers.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eagleray_runtime::client::{ClientError, Port};
use eagleray_runtime::command::{Answer, Command};
use eagleray_runtime::link::LinkError;
use eagleray_runtime::program::Value;
use eagleray_runtime::{FromWorker, SessionError};
use pyo3::prelude::*;

use super::{Worker, lock};

/// Who reads the socket.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// A thread does. It takes in what comes, for whomever it is.
    busy: bool,
    /// So many threads wait meanwhile.
    waiting: u32,
}

impl Worker {
    /// Wakes the threads that wait for what another one reads. Mostly there are none, and the system need not look for them.
    fn tell(&self, reading: MutexGuard<'_, Reading>) {
        let waiting = reading.waiting;
        drop(reading);
        if waiting > 0 {
            self.news.notify_all();
        }
    }

    /// Takes in what has come already, unless another thread reads: that one does it then. An answer that is taken in here
    /// while that one begins to read would not be looked for.
    pub(super) fn take_in(&self) -> Result<(), LinkError> {
        let reading = lock(&self.reading);
        if reading.busy {
            return Ok(());
        }
        let taken = loop {
            match self.link.try_next() {
                Ok(Some(message)) => self.enter(message),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.tell(reading);
        taken
    }

    /// Takes in what comes until `done`; true, or false if `limit` has passed before. Of several threads one reads, for
    /// all. To be called without the GIL.
    pub(super) fn pump(&self, limit: Option<Duration>, done: impl Fn() -> bool) -> Result<bool, PumpError> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        loop {
            self.cancel_deferred();
            let mut reading = lock(&self.reading);
            loop {
                if done() {
                    return Ok(true);
                }
                if self.has_to_cancel() {
                    break;
                }
                if left().is_some_and(|left| left.is_zero()) {
                    return Ok(false);
                }
                if !reading.busy {
                    break;
                }
                reading.waiting += 1;
                reading = match left() {
                    None => self.news.wait(reading).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => self.news.wait_timeout(reading, left).unwrap_or_else(PoisonError::into_inner).0,
                };
                reading.waiting -= 1;
            }
            if self.has_to_cancel() {
                continue;
            }
            reading.busy = true;
            drop(reading);
            let read = self.link.next(left());
            let read = read.map(|message| message.map(|message| self.enter(message)));
            let mut reading = lock(&self.reading);
            reading.busy = false;
            self.tell(reading);
            if read?.is_some() {
                self.do_chores()?;
                // Unpins and the like must not wait for the next report.
                self.link.flush()?;
            }
        }
    }
}

/// Why nothing more can be taken in.
pub(super) enum PumpError {
    Link(LinkError),
    Python(PyErr),
}

impl From<LinkError> for PumpError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<PyErr> for PumpError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// How a task that computes reaches the node: through its worker's socket.
pub(super) struct WorkerPort(pub(super) Arc<Worker>);

impl Port for WorkerPort {
    fn send(&self, commands: Vec<Command>) -> Result<(), ClientError> {
        // Tasks that may run, or are to stop, do not wait for this task to ask something or to end.
        let urgent = commands.iter().any(is_urgent);
        for command in commands {
            self.0.link.send(&FromWorker::Driver(command));
        }
        if urgent { Ok(self.0.link.flush()?) } else { Ok(()) }
    }

    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError> {
        Ok(self.0.link.store(len, false, write)?)
    }

    fn wait(&self, tokens: &[u64], limit: Duration) -> Result<Option<Answer>, ClientError> {
        let failed = |error: PyErr| ClientError::Session(SessionError::Refused(error.to_string().into()));
        // What is done counts now: others may need it while this task waits. It also carries the question.
        self.0.report(false).map_err(failed)?;
        self.0.link.flush()?;
        let answered = self.0.pump(Some(limit), || {
            let answers = lock(&self.0.answers);
            tokens.iter().any(|token| answers.contains_key(token))
        });
        answered.map_err(|error| match error {
            PumpError::Link(error) => ClientError::Link(error),
            PumpError::Python(error) => failed(error),
        })?;
        let mut answers = lock(&self.0.answers);
        Ok(tokens.iter().find_map(|&token| Some(Answer { token, ended: answers.remove(&token)? })))
    }
}

/// Whether a command is not to wait until its task ends or asks something.
fn is_urgent(command: &Command) -> bool {
    matches!(
        command,
        Command::Extend { .. }
            | Command::Cancel(_)
            | Command::CancelTask { .. }
            | Command::KillActor { .. }
            | Command::Yield { .. }
    )
}
