use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_runtime::command::Command;
use pyo3::prelude::*;

use super::{Contained, collecting, note};
use crate::testing::in_role;

fn object(index: u32) -> ObjectId {
    ObjectId { graph: GraphId { peer: PeerId::USER, seq: 1 }, index }
}

#[test]
fn what_a_value_names_is_held_until_that_has_been_told() {
    in_role(|_, role, sent| {
        assert!(!note(role, object(0)).unwrap(), "nothing is being encoded");
        let pickle = || {
            for index in [1, 0, 1] {
                assert!(note(role, object(index))?);
            }
            Ok(())
        };
        let ((), contained) = collecting(pickle).unwrap();
        assert_eq!(contained.objects(), [object(0), object(1)]);
        let held: Vec<_> = sent.take().into_iter().map(|command| format!("{command:?}")).collect();
        let hold = |index| format!("{:?}", Command::Hold(vec![object(index)]));
        assert_eq!(held, [hold(1), hold(0)]);
        drop(contained);
        let [Command::Release(released)] = &sent.take()[..] else { panic!("one message") };
        assert_eq!(released[..], [object(0), object(1)]);
    });
}

#[test]
fn a_value_that_is_encoded_while_another_is_has_its_own() {
    in_role(|_, role, _| {
        let mut within = Contained::default();
        let pickle = || {
            note(role, object(0))?;
            within = collecting(|| note(role, object(1)))?.1;
            note(role, object(2))
        };
        let (_, around) = collecting(pickle).unwrap();
        assert_eq!(around.objects(), [object(0), object(2)]);
        assert_eq!(within.objects(), [object(1)]);
    });
}

#[test]
fn nothing_is_held_for_a_value_that_cannot_be_pickled() {
    in_role(|_, role, sent| {
        let pickle = || -> PyResult<()> {
            note(role, object(0))?;
            Err(pyo3::exceptions::PyTypeError::new_err("no"))
        };
        assert!(collecting(pickle).is_err());
        assert_eq!(sent.take().len(), 2, "held, and released again");
        assert!(!note(role, object(0)).unwrap(), "nothing is being encoded any more");
    });
}

#[test]
fn what_names_an_object_of_an_ended_session_is_not_encoded() {
    let mut old = None;
    in_role(|_, role, _| old = Some(role.clone()));
    in_role(|_, role, sent| {
        let pickle = || {
            note(role, object(0))?;
            note(old.as_ref().unwrap(), object(1))
        };
        assert!(collecting(pickle).is_err());
        assert_eq!(sent.take().len(), 2, "held, and released again");
    });
}
