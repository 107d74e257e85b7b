//! `eagleray._native`: `PyO3` glue and conversions.
//!
//! * [`ingest`] turns Dask's objects into numbers and templates, [`template`] is what a task's code looks like,
//!   [`executor`] executes runs, [`value`] turns values into bytes and back.
//! * [`role`]: what this process is in its session. [`api`], [`graph`], [`refs`], [`local`]: what Python sees of it.
//!   [`worker`]: the life of a worker process, [`devices`] the GPUs its tasks see. [`annotations`]: what a user wants of
//!   tasks beside their results.

mod annotations;
mod api;
mod buffer;
mod devices;
mod executor;
mod failures;
mod gc;
mod graph;
mod ingest;
mod local;
mod pickles;
mod refs;
mod role;
mod template;
mod value;
mod waiting;
mod worker;

use pyo3::prelude::*;
use tracing_subscriber::filter::LevelFilter;

/// Messages go to stderr, from warnings on, or as `EAGLERAY_LOG` says.
fn start_logging() {
    let level = std::env::var("EAGLERAY_LOG").ok().and_then(|text| text.parse::<LevelFilter>().ok());
    // Somebody else's subscriber in this process stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::WARN))
        .with_writer(std::io::stderr)
        .try_init();
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::api::{counters, get, in_worker, put, py_order, start, started, stop, submit, wait, workers};
    #[pymodule_export]
    use super::gc::GcGuard;
    #[pymodule_export]
    use super::graph::Graph;
    #[pymodule_export]
    use super::local::run_local;
    #[pymodule_export]
    use super::refs::{_rebuild_ref, ObjectRef};
    #[pymodule_export]
    use super::worker::worker_main;
    use super::{Bound, PyModule, PyResult, start_logging};

    #[pymodule_init]
    #[expect(clippy::unnecessary_wraps, reason = "what PyO3 asks for")]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        start_logging();
        Ok(())
    }
}
