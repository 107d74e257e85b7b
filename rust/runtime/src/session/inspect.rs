//! What a user may see of a session.

use std::sync::mpsc::{SyncSender, sync_channel};

use eagleray_core::ids::{GraphId, ObjectId, PeerId};

use super::{Loop, Session};
use crate::program::Value;
use crate::shared::{Input, SessionError, Snapshot};
use crate::wire;

/// Who wants to see how things stand.
#[derive(Debug)]
pub(super) enum Inspection {
    /// Who has the session.
    Session(SyncSender<Snapshot>),
    /// A driver role, with a question of this token.
    Peer(PeerId, u64),
}

impl Session {
    /// How things stand: after all that was sent before, and what follows from it at once. Waits for the session's thread.
    pub fn inspect(&self) -> Result<Snapshot, SessionError> {
        let (asked, answer) = sync_channel(1);
        self.shared().seat.send(Input::Inspect(asked), true)?;
        answer.recv().map_err(|_| self.shared().seat.ended().unwrap_or(SessionError::Ended))
    }
}

impl Loop {
    pub(super) fn answer_inspections(&mut self) {
        if self.inspections.is_empty() {
            return;
        }
        let (offered, free) = self.head.resources();
        let snapshot = Snapshot { offered, free, actors: self.head.actors().collect() };
        for asked in std::mem::take(&mut self.inspections) {
            match asked {
                Inspection::Session(asked) => {
                    // Who does not wait any more needs no answer.
                    let _ = asked.send(snapshot.clone());
                }
                Inspection::Peer(peer, token) => {
                    let nothing = ObjectId { graph: GraphId::puts(peer), index: u32::MAX };
                    let value = Value::Inline(wire::snapshot(&snapshot));
                    self.send_answer(peer, token, vec![(nothing, Ok(value))]);
                }
            }
        }
    }
}
