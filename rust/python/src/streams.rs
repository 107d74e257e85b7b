//! What tasks make bit by bit: the parts, and who asks for them. Signatures and meanings are in `_native.pyi`.

use eagleray_core::ids::{GraphId, ObjectId};
use pyo3::prelude::*;

use crate::executor::not_picklable;
use crate::refs::ObjectRef;
use crate::role::{Role, raise};
use crate::{pickles, value, waiting};

fn object((graph, index): (u64, u32)) -> ObjectId {
    ObjectId { graph: GraphId::from_u64(graph), index }
}

#[pyfunction]
pub(crate) fn yield_part(task: (u64, u32), index: u32, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let role = Role::current()?;
    let encoded = value::encode(value.py(), value).map_err(|cause| not_picklable(value.py(), value, cause))?;
    let part = pickles::put(&role, encoded)?;
    role.client.yield_part(object(task), index, part).map_err(raise)
}

#[pyfunction]
pub(crate) fn until_taken(py: Python<'_>, task: (u64, u32), count: u32) -> PyResult<()> {
    let role = Role::current()?;
    waiting::taken(py, &role, object(task), count)
}

#[pyfunction]
#[pyo3(signature = (call, index, timeout, *, take))]
pub(crate) fn next_part(
    call: &Bound<'_, ObjectRef>,
    index: u32,
    timeout: Option<f64>,
    take: bool,
) -> PyResult<Option<ObjectRef>> {
    let py = call.py();
    let role = Role::current()?;
    let stream = call.get().object(&role)?;
    waiting::next_part(py, &role, (stream, index), take, timeout)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eagleray_core::ids::{GraphId, ObjectId, PeerId};
    use eagleray_runtime::command::Command;
    use pyo3::prelude::*;
    use pyo3::types::{PyList, PyString};

    use super::yield_part;
    use crate::refs::ObjectRef;
    use crate::testing::in_role;

    #[test]
    fn a_part_goes_over_to_the_task_with_what_it_names() {
        in_role(|py, role, sent| {
            let task = ObjectId { graph: GraphId { peer: PeerId::USER, seq: 7 }, index: 0 };
            let named = ObjectId { graph: GraphId { peer: PeerId::USER, seq: 8 }, index: 0 };
            let reference = Bound::new(py, ObjectRef::holding(&Arc::clone(role), named).unwrap()).unwrap();
            let value = PyList::new(py, [reference.into_any(), PyString::new(py, "and more").into_any()]).unwrap();
            sent.take();
            yield_part((task.graph.to_u64(), task.index), 3, value.as_any()).unwrap();
            let sent = sent.take();
            let [Command::Put(part, _, contained), Command::Yield { stream, index, part: yielded }, rest @ ..] =
                &sent[..]
            else {
                panic!("{sent:?}")
            };
            assert_eq!((contained[..].to_vec(), *stream, *index, yielded), (vec![named], task, 3, part));
            let [Command::Release(released)] = rest else { panic!("{rest:?}") };
            assert_eq!(released[..], [*part]);
        });
    }
}
