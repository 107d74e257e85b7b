//! What a user may see of a session.

use tokio::sync::oneshot;

use super::{Loop, Session};
use crate::shared::{Input, SessionError, Snapshot};

impl Session {
    /// How things stand: after all that was sent before, and what follows from it at once. Waits for the session's thread.
    pub fn inspect(&self) -> Result<Snapshot, SessionError> {
        let ended = || self.shared.ended().unwrap_or(SessionError::Ended);
        let (asked, answer) = oneshot::channel();
        self.shared.input.send(Input::Inspect(asked)).map_err(|_| ended())?;
        answer.blocking_recv().map_err(|_| ended())
    }
}

impl Loop {
    pub(super) fn answer_inspections(&mut self) {
        if self.inspections.is_empty() {
            return;
        }
        let (offered, free) = self.head.resources();
        let snapshot = Snapshot { offered, free, actors: self.head.actors().collect() };
        for asked in self.inspections.drain(..) {
            // Who does not wait any more needs no answer.
            let _ = asked.send(snapshot.clone());
        }
    }
}
