//! Tasks and actors beside the graph.
//!
//! [`code`] and [`options`] are what many calls have in common. [`draft`] writes what one call does, [`send`] submits it.
//! Signatures and meanings are in `_native.pyi`.

mod code;
mod draft;
mod options;
mod send;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use eagleray_core::message::{ActorName, ActorSpec, GraphKind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

pub(crate) use code::RemoteCode;
pub(crate) use options::RemoteOptions;

use crate::annotations::{tries, units};
use crate::keys::{Keys, Of};
use crate::refs::ObjectRef;
use crate::role::{Role, raise};
use draft::Draft;
use send::Submission;

/// How long the session may take to say whether there is an actor. It answers at once.
const PATIENCE: Duration = Duration::from_secs(30);

fn copied(data: &Bound<'_, PyBytes>) -> Bytes {
    Bytes::copy_from_slice(data.as_bytes())
}

#[pyfunction]
#[pyo3(signature = (code, args, kwargs, options, surroundings))]
pub(crate) fn call(
    code: &Bound<'_, RemoteCode>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    options: &Bound<'_, RemoteOptions>,
    surroundings: Option<&Bound<'_, PyBytes>>,
) -> PyResult<Vec<ObjectRef>> {
    let (py, options) = (code.py(), options.get());
    let role = Role::current()?;
    let parts = options.parts();
    let mut draft = Draft::new(&role, code.get(), args, kwargs, options, 1 + parts, None)?;
    let mut submission = Submission::of_call(&role, options, &mut draft, GraphKind::Independent);
    submission.within(surroundings.map(copied));
    if parts == 0 {
        return submission.send(py, 0..options.num_returns);
    }
    submission.take_parts(py, 0, parts)?;
    submission.send(py, 1..1 + parts)
}

#[pyfunction]
#[pyo3(signature = (code, args, kwargs, options, surroundings, *, name, detached, max_restarts, running_cpu, meta))]
pub(crate) fn create_actor(
    code: &Bound<'_, RemoteCode>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    options: &Bound<'_, RemoteOptions>,
    surroundings: Option<&Bound<'_, PyBytes>>,
    name: Option<(String, String)>,
    detached: bool,
    max_restarts: i64,
    running_cpu: f64,
    meta: &Bound<'_, PyBytes>,
) -> PyResult<ObjectRef> {
    let (py, options) = (code.py(), options.get());
    let role = Role::current()?;
    let actor = ActorSpec {
        name: name.map(|(namespace, name)| ActorName { namespace: namespace.into(), name: name.into() }),
        detached,
        max_restarts: tries("max_restarts", max_restarts, u32::MAX)?,
        cpu: units("CPU", running_cpu)?,
    };
    let mut draft = Draft::new(&role, code.get(), args, kwargs, options, 1, None)?;
    let mut submission = Submission::of_call(&role, options, &mut draft, GraphKind::Actor(Box::new(actor)));
    submission.within(surroundings.map(copied));
    submission.make_actor(py, copied(meta))
}

#[pyfunction]
#[pyo3(signature = (actor, code, args, kwargs, options))]
pub(crate) fn call_actor(
    actor: &Bound<'_, ObjectRef>,
    code: &Bound<'_, RemoteCode>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    options: &Bound<'_, RemoteOptions>,
) -> PyResult<Vec<ObjectRef>> {
    let (py, options) = (code.py(), options.get());
    let role = Role::current()?;
    let actor = actor.get().object(&role)?;
    let mut draft = Draft::new(&role, code.get(), args, kwargs, options, 1, Some(actor))?;
    let submission = Submission::of_call(&role, options, &mut draft, GraphKind::Calls);
    let parts = options.parts();
    if parts == 0 {
        return submission.send(py, 0..options.num_returns);
    }
    let mut refs = Vec::with_capacity(parts as usize);
    for whole in submission.send(py, 0..1)? {
        let mut submission = Submission::of_parts(&role, options, whole.object(&role)?);
        submission.take_parts(py, parts, parts)?;
        refs.extend(submission.send(py, 0..parts)?);
    }
    Ok(refs)
}

#[pyfunction]
pub(crate) fn find_actor(
    py: Python<'_>,
    namespace: String,
    name: String,
) -> PyResult<Option<(ObjectRef, Bound<'_, PyBytes>)>> {
    let role = Role::current()?;
    let name = ActorName { namespace: namespace.into(), name: name.into() };
    let found = py.detach(|| role.client.find_actor(name, PATIENCE)).map_err(raise)?;
    Ok(found.map(|(actor, meta)| (ObjectRef::counted(&role, actor), PyBytes::new(py, &meta))))
}

#[pyfunction]
#[pyo3(signature = (actor, class_name, max_restarts))]
pub(crate) fn name_actor(
    py: Python<'_>,
    actor: &Bound<'_, ObjectRef>,
    class_name: Py<PyAny>,
    max_restarts: i64,
) -> PyResult<()> {
    let graph = actor.get().object(&*Role::current()?)?.graph;
    if Keys::of(graph).is_none() {
        let max_restarts = tries("max_restarts", max_restarts, u32::MAX)?;
        Keys::of_calls(py, graph, 0..1, &class_name, Of::Actor { max_restarts });
    }
    Ok(())
}

#[pyfunction]
pub(crate) fn kill_actor(actor: &Bound<'_, ObjectRef>, restart: bool) -> PyResult<()> {
    let role = Role::current()?;
    let actor = actor.get().object(&role)?;
    role.client.kill_actor(actor, restart).map_err(raise)
}

#[pyfunction]
#[pyo3(signature = (r#ref, force, recursive))]
pub(crate) fn cancel(r#ref: &Bound<'_, ObjectRef>, force: bool, recursive: bool) -> PyResult<()> {
    let role = Role::current()?;
    let object = r#ref.get().whole(&role)?;
    if force && Keys::of(object.graph).is_some_and(|keys| matches!(keys.whose(), Of::ActorsCalls(_))) {
        return Err(PyValueError::new_err(
            "force=True would end the actor, and other calls with this one: cancel it without force, or end the actor with \
             eagleray.kill().",
        ));
    }
    role.client.cancel_task(object, force, recursive).map_err(raise)
}
