//! What an executor needs of its surroundings. A worker gives it a control page and a socket; a run in the driver's own
//! process, neither.

use eagleray_core::ids::ObjectId;
use eagleray_core::message::{Opaque, Trouble};
use pyo3::prelude::*;

use super::failure::{self, Inputs};
use crate::value::Encoded;

/// The surroundings of one run. All methods take `&self`: a task may call back into the worker (it computes a graph of
/// its own), so nothing is borrowed while Python runs.
pub(crate) trait RunIo {
    /// Why no task of the run can be called, if none can. Asked once.
    fn obstacle(&self) -> Option<PyErr> {
        None
    }

    /// Claims the next task: its place in the run, counted from 0 without gaps. `None` when the rest was recalled or
    /// there is none.
    fn claim(&self) -> Option<u32>;

    /// The claimed task begins now. The time is that of [`RunIo::now_ns`].
    fn start(&self, index: u32, now_ns: u64);

    /// The task that began last has come back, well or not.
    fn returned(&self) {}

    /// Whether the present task was to be interrupted.
    fn was_interrupted(&self, _index: u32) -> bool {
        false
    }

    /// Whether a result stands for one that comes later: the task goes on.
    fn is_deferred(&self, _py: Python<'_>, _task: ObjectId, _result: &Py<PyAny>) -> bool {
        false
    }

    /// The monotonic clock.
    fn now_ns(&self) -> u64;

    /// A result with a reader outside the run. Inline if small and not `seal`, else sealed.
    fn publish(&self, py: Python<'_>, index: u32, value: Encoded, seal: bool) -> PyResult<()>;

    /// The present task raised. Gives what is reported of that; in another process, everything. Inputs are given
    /// unless the task is a call.
    fn raised(&self, py: Python<'_>, error: PyErr, inputs: Option<Inputs>) -> PyResult<Opaque> {
        failure::dump(py, error, inputs)
    }

    /// A task of class `class` ended after `ns`, well if there is no trouble. `bytes` is the size of its result as far
    /// as it is known cheaply. Called once for each claimed task, in their order.
    fn ended(&self, index: u32, class: u32, ns: u64, bytes: u64, trouble: Option<Trouble>);

    /// Called between two tasks: what waits is reported, what was asked is answered (with values of
    /// [`super::Executor::kept`]).
    fn between(&self, py: Python<'_>) -> PyResult<()>;
}
