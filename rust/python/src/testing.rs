//! What tests of several modules need: an interpreter, and a role whose session only listens.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use eagleray_core::ids::PeerId;
use eagleray_runtime::client::{Client, ClientError, Port};
use eagleray_runtime::command::{Answer, Command};
use eagleray_runtime::program::Value;
use pyo3::prelude::*;

use crate::role::{Kind, Role};

/// Everything that a role has sent.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<Command>>>);

impl Sent {
    /// Takes what has been sent since this was last asked.
    pub(crate) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Port for Sent {
    fn send(&self, commands: Vec<Command>) -> Result<(), ClientError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(commands);
        Ok(())
    }

    fn store(&self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> Result<Value, ClientError> {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        Ok(Value::Inline(Bytes::from(bytes)))
    }

    fn wait(&self, _tokens: &[u64], _limit: Duration) -> Result<Option<Answer>, ClientError> {
        Ok(None)
    }
}

/// Plain pickle in the place of what needs the whole package.
const STUBS: &str = r#"
import pickle, sys, types
sys.modules.setdefault("eagleray", types.ModuleType("eagleray"))
pickling = types.ModuleType("eagleray._pickling")
pickling.dump = pickling.dump_function = lambda value: pickle.dumps(value, 5)
sys.modules.setdefault("eagleray._pickling", pickling)
parts = types.ModuleType("eagleray._remote_parts")
parts.part = int
sys.modules.setdefault("eagleray._remote_parts", parts)
arguments = sys.modules.setdefault("eagleray._arguments", types.ModuleType("eagleray._arguments"))
arguments.not_picklable = lambda value, cause, keys, nodes: TypeError(f"{keys} {type(value).__name__}")
"#;

/// Runs a test in the role of the user's program. One at a time: a process has one role.
pub(crate) fn in_role(test: impl FnOnce(Python<'_>, &Arc<Role>, &Sent)) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one: MutexGuard<'_, ()> = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Python::initialize();
    Python::attach(|py| {
        py.run(&CString::new(STUBS).expect("no zero"), None, None).expect("stubs");
        let sent = Sent::default();
        let role = Role::new("session".into(), Client::new(PeerId::USER, Box::new(sent.clone())), Kind::Worker);
        Role::take_on(Arc::clone(&role)).expect("there is no other");
        test(py, &role, &sent);
        Role::give_up();
    });
}
