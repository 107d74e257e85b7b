//! What the node asks for and tells beside runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use eagleray_core::ids::ObjectId;
use eagleray_runtime::program::{Intro, RetryFilter, RunProgram};
use eagleray_runtime::{FromWorker, ToWorker};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::{GraphNote, Worker, lock, os};
use crate::pickles::payload;
use crate::role::raise;
use crate::value::{self, Payload};

impl Worker {
    /// Puts a message where it will be looked for. Nothing of Python's is touched.
    pub(super) fn enter(&self, message: ToWorker) {
        match message {
            ToWorker::Run(program) => lock(&self.runs).push_back(program),
            ToWorker::Awaited(answer) => {
                lock(&self.answers).insert(answer.token, answer.ended);
            }
            ToWorker::Stop => self.stop.store(true, Ordering::Relaxed),
            ToWorker::Cancel(object) => lock(&self.deferred.to_cancel).push_back(object),
            chore => lock(&self.chores).push_back(chore),
        }
    }

    /// Does what was asked for. It may run Python code, which may come back here.
    pub(super) fn do_chores(&self) -> PyResult<()> {
        let _others = self.interrupts.put_off();
        loop {
            let next = lock(&self.chores).pop_front();
            let Some(chore) = next else { return Ok(()) };
            Python::attach(|py| self.do_chore(py, chore))?;
        }
    }

    fn do_chore(&self, py: Python<'_>, message: ToWorker) -> PyResult<()> {
        match message {
            ToWorker::Publish { objects, seal } => {
                for object in objects {
                    self.publish_kept(py, object, seal)?;
                }
                self.link.flush().map_err(os)?;
            }
            ToWorker::Drop(objects) => objects.into_iter().for_each(|object| self.executor.drop_kept(object)),
            ToWorker::Forget(graph) => {
                self.executor.forget(graph);
                lock(&self.graphs).remove(&graph);
            }
            ToWorker::DropBlobs(blobs) => blobs.into_iter().for_each(|blob| self.executor.drop_blob(blob)),
            ToWorker::Refused(why) => return Err(PyRuntimeError::new_err(format!("the node refused: {why}"))),
            // Entered elsewhere, or the link's own.
            ToWorker::Run(_)
            | ToWorker::Awaited(_)
            | ToWorker::Stop
            | ToWorker::Cancel(_)
            | ToWorker::Recycle(_)
            | ToWorker::Segment { .. }
            | ToWorker::SegmentGone(_) => {}
        }
        Ok(())
    }

    /// Publishes a result that is kept. One that cannot be encoded is as good as lost.
    fn publish_kept(&self, py: Python<'_>, object: ObjectId, seal: bool) -> PyResult<()> {
        let kept = self.executor.kept(py, object).map(|value| value.into_bound(py));
        let stored = match kept.as_ref().map(|value| value::encode(py, value)) {
            Some(Ok(mut encoded)) => {
                if let Some(value) = &kept {
                    self.executor.published(object.graph, value);
                }
                let value = self.link.store(encoded.len(), seal, |target| encoded.write_to(target)).map_err(os)?;
                Some((value, encoded.take_contained()))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a result cannot be pickled");
                None
            }
            None => None,
        };
        self.flush_uses().map_err(raise)?;
        // What the value names is held here until that has been told.
        let told = stored.as_ref().map(|(value, contained)| (value.clone(), contained.objects()));
        self.link.send(&FromWorker::Published(object, told));
        Ok(())
    }

    pub(super) fn introduce(&self, program: &mut RunProgram) -> PyResult<()> {
        let graph = program.run.graph;
        for intro in program.intros.drain(..) {
            match intro {
                Intro::Graph { len, externals } => {
                    lock(&self.graphs).insert(graph, GraphNote { len, externals, ..GraphNote::default() });
                }
                Intro::Function { id, blob, bytes } => {
                    if let Some(bytes) = bytes {
                        self.executor.add_blob(blob, Arc::new(bytes));
                    }
                    self.executor.add_function(graph, id, blob);
                }
                Intro::Template { id, template } => self
                    .executor
                    .add_template(graph, id, &template.code, template.functions)
                    .map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
                Intro::Batch { id, bytes } => self.executor.add_batch(graph, id, Arc::new(bytes)),
                Intro::Surroundings(bytes) => {
                    if let Some(note) = lock(&self.graphs).get_mut(&graph) {
                        // The frame it came in must not live as long as the graph.
                        note.surroundings = Some(Bytes::copy_from_slice(&bytes));
                    }
                }
                Intro::Hooks(bytes) => self.executor.set_hooks(graph, Arc::new(bytes)),
                Intro::RetryFilter(RetryFilter { classes, exceptions }) => {
                    let exceptions = exceptions.map(|exceptions| -> Payload { Arc::new(exceptions) });
                    self.executor.add_retry_filter(graph, &classes, exceptions.as_ref());
                }
            }
        }
        for (object, value) in program.inputs.drain(..) {
            self.executor.add_input(object, payload(value));
        }
        Ok(())
    }
}
