//! Objects put for a graph.

use eagleray_core::ids::ObjectId;

use crate::role::Role;

/// Objects put for a graph, released unless they are taken.
pub(crate) struct Puts<'a> {
    role: &'a Role,
    objects: Vec<ObjectId>,
}

impl<'a> Puts<'a> {
    pub(crate) fn new(role: &'a Role) -> Self {
        Self { role, objects: Vec::new() }
    }

    /// Counts an object as one of these.
    pub(crate) fn add(&mut self, object: ObjectId) {
        self.objects.push(object);
    }

    /// Those there are.
    pub(crate) fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// Leaves them to the caller.
    pub(crate) fn take(mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.objects)
    }
}

impl Drop for Puts<'_> {
    fn drop(&mut self) {
        if !self.objects.is_empty() {
            // When the session has ended there is nothing to release.
            let _ = self.role.client.release(&self.objects);
        }
    }
}
