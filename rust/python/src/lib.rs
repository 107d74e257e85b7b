//! `eagleray._native`: `PyO3` glue and conversions.
//!
//! * [`ingest`] turns Dask's objects into numbers and templates, [`template`] is what a task's code looks like,
//!   [`executor`] executes runs, [`value`] turns values into bytes and back.
//! * [`role`]: what this process is in its session. [`api`], [`graph`], [`refs`], [`local`]: what Python sees of it.
//!   [`worker`]: the life of a worker process, [`devices`] the GPUs its tasks see. [`annotations`]: what a user wants of
//!   tasks beside their results.
//! * [`raw`] and [`buffer`] have all that is `unsafe`.
#![deny(unsafe_code)]

mod annotations;
mod api;
#[allow(unsafe_code, reason = "implements the buffer protocol")]
mod buffer;
mod calls;
mod contained;
mod devices;
mod executor;
mod failures;
mod gc;
mod graph;
mod ingest;
mod keys;
mod local;
mod logging;
mod look;
mod pickles;
mod puts;
#[allow(unsafe_code, reason = "all other calls that the compiler cannot check")]
mod raw;
mod refs;
mod role;
mod sharing;
mod sizes;
mod streams;
mod template;
#[cfg(test)]
mod testing;
mod value;
mod waiting;
mod worker;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::api::{
        counters, get, get_known, in_worker, name_by_value, put, py_order, renew_workers, resources, start, started,
        stop, submit, wait, wait_for_parts, workers,
    };
    #[pymodule_export]
    use super::calls::{
        RemoteCode, RemoteOptions, call, call_actor, cancel, create_actor, find_actor, kill_actor, name_actor,
    };
    #[pymodule_export]
    use super::gc::{GcGuard, gc_after_fork};
    #[pymodule_export]
    use super::graph::Graph;
    #[pymodule_export]
    use super::keys::task_key;
    #[pymodule_export]
    use super::local::run_local;
    #[pymodule_export]
    use super::look::{state, timeline};
    #[pymodule_export]
    use super::refs::{_rebuild_ref, ObjectRef};
    #[pymodule_export]
    use super::sharing::note_foreign;
    #[pymodule_export]
    use super::streams::{next_part, until_taken, yield_part};
    #[pymodule_export]
    use super::worker::{
        Deferred, after_run, current_task, defer, flush_uses, retire, set_cancel_deferred, worker_main,
    };
    use super::{Bound, PyModule, PyResult, logging};

    #[pymodule_init]
    #[expect(clippy::unnecessary_wraps, reason = "what PyO3 asks for")]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        logging::start();
        Ok(())
    }
}
