//! Processes, sockets and threads of eagleray: the session with its head and node, the worker pool, the driver role.
//!
//! Programs and values are carried as bytes; nothing here knows Python. What is scheduled where is decided in
//! `eagleray-core`, which this crate feeds with events and whose effects it carries out.
//!
//! * [`session`]: a loop with head and node. `seat`: who runs it. `poller`: what it sleeps in. `pool`, `template`: its
//!   processes. `objects`, `programs`: its tables.
//! * [`look`]: what a user may see. `history`: what is over. [`times`]: when tasks ran.
//! * [`client`]: the driver role, for the user's program and for tasks that compute.
//! * [`link`]: a worker's side.
//! * `wire`, `socket`: frames as types, as protobuf, as bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod calls;
pub mod client;
pub mod command;
mod history;
pub mod link;
pub mod look;
mod objects;
mod poller;
mod pool;
pub mod program;
mod programs;
mod seat;
mod segments;
pub mod session;
mod shared;
mod signal;
mod socket;
mod spin;
mod template;
#[cfg(test)]
mod tests;
pub mod times;
mod unpinned;
mod wire;

pub use self::history::{PastRun, Store, Timeline, Transfer};
pub use self::shared::{Counters, SessionError, WorkerInfo};
pub use self::socket::SocketError;
pub use self::wire::{FromWorker, ToWorker, WireError};
