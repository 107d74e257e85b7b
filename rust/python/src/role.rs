//! Which role this process plays: the user's program with its session, or a worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eagleray_runtime::client::{Client, ClientError};
use eagleray_runtime::session::Session;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::failures;
use crate::keys::Keys;

/// What is behind a role.
pub(crate) enum Kind {
    /// The user's program, with head and node in it.
    Driver(Arc<Session>),
    /// A worker.
    Worker,
}

/// A process's part in a session.
pub(crate) struct Role {
    /// The process it belongs to. A child forked from it has no part in the session.
    pid: u32,
    /// Names the session, the same in all its processes.
    pub(crate) session: String,
    /// The driver role.
    pub(crate) client: Client,
    /// What is behind it.
    pub(crate) kind: Kind,
}

static ROLE: Mutex<Option<Arc<Role>>> = Mutex::new(None);

fn role() -> MutexGuard<'static, Option<Arc<Role>>> {
    ROLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Role {
    pub(crate) fn new(session: String, client: Client, kind: Kind) -> Arc<Self> {
        Arc::new(Self { pid: std::process::id(), session, client, kind })
    }

    /// Whether this is still the process it belongs to.
    pub(crate) fn is_mine(&self) -> bool {
        self.pid == std::process::id()
    }

    /// This process's role, if it has one.
    pub(crate) fn find() -> Option<Arc<Self>> {
        role().as_ref().filter(|role| role.is_mine()).cloned()
    }

    /// This process's role.
    ///
    /// Raises `RuntimeError` if there is none.
    pub(crate) fn current() -> PyResult<Arc<Self>> {
        Self::find().ok_or_else(|| PyRuntimeError::new_err("eagleray is not initialized in this process"))
    }

    /// Takes the role on. Raises `RuntimeError` if the process has one.
    pub(crate) fn take_on(new: Arc<Self>) -> PyResult<()> {
        let mut role = role();
        if role.as_ref().is_some_and(|old| old.is_mine()) {
            return Err(PyRuntimeError::new_err("eagleray is initialized already"));
        }
        Keys::forget_all();
        // The role of the process that forked this one: its threads are not here, so it must not be taken down.
        std::mem::forget(role.replace(new));
        Ok(())
    }

    /// Gives the role up.
    pub(crate) fn give_up() -> Option<Arc<Self>> {
        let mut role = role();
        if role.as_ref().is_some_and(|role| role.is_mine()) { role.take() } else { None }
    }

    /// The session behind it, in the user's program.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match &self.kind {
            Kind::Driver(session) => Some(session),
            Kind::Worker => None,
        }
    }
}

/// The Python exception for an error of the driver role.
pub(crate) fn raise(error: ClientError) -> PyErr {
    Python::attach(|py| failures::client_error(py, &error))
}
