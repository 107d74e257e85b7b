//! Which objects a value names: the refs that are met while it is pickled.
//!
//! The head holds these as long as the value exists, or the graph whose constant it is. Until it has been told so, this
//! process does.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;

use eagleray_core::ids::ObjectId;
use pyo3::prelude::*;

use crate::refs::of_another_session;
use crate::role::{Role, raise};

/// Objects that a value names, held once for each time.
#[derive(Default)]
pub(crate) struct Contained {
    /// Who holds them; none if there are none.
    role: Option<Arc<Role>>,
    objects: Vec<ObjectId>,
}

thread_local! {
    /// Of the value that this thread pickles.
    static COLLECTED: RefCell<Option<Contained>> = const { RefCell::new(None) };
}

/// Pickles something; gives the objects that it names as well.
pub(crate) fn collecting<T>(pickle: impl FnOnce() -> PyResult<T>) -> PyResult<(T, Contained)> {
    // What is pickled may encode another value meanwhile.
    let outer = COLLECTED.replace(Some(Contained::default()));
    let pickled = pickle();
    let collected = COLLECTED.replace(outer).unwrap_or_default();
    Ok((pickled?, collected))
}

/// Notes that this thread pickles a ref to the object. False if that is no part of a value that is being encoded.
///
/// Raises `ObjectLostError` if the object is of a session that has ended: nobody could use what is encoded.
pub(crate) fn note(role: &Arc<Role>, object: ObjectId) -> PyResult<bool> {
    if !COLLECTED.with_borrow(Option::is_some) {
        return Ok(false);
    }
    if !Role::find().is_some_and(|current| Arc::ptr_eq(&current, role)) {
        return Err(of_another_session(object));
    }
    role.client.hold(object).map_err(raise)?;
    COLLECTED.with_borrow_mut(|collected| {
        let Some(collected) = collected else { return };
        collected.role.get_or_insert_with(|| Arc::clone(role));
        collected.objects.push(object);
    });
    Ok(true)
}

impl Contained {
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Each of them once.
    pub(crate) fn objects(&self) -> Vec<ObjectId> {
        let mut objects = self.objects.clone();
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(role) = self.role.take().filter(|role| role.is_mine()) {
            // When the session has ended there is nothing to release.
            let _ = role.client.release(&self.objects);
        }
    }
}
