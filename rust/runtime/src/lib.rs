//! Processes, sockets and threads of eagleray: the session with its head and node, the worker pool, the driver role.
//!
//! Programs and values are carried as bytes; nothing here knows Python. What is scheduled where is decided in
//! `eagleray-core`, which this crate feeds with events and whose effects it carries out.
//!
//! * [`session`]: one thread with head and node. `pool`, `template`: its processes. `objects`, `programs`: its tables.
//! * [`client`]: the driver role, for the user's program and for tasks that compute.
//! * [`link`]: a worker's side.
//! * `wire`, `socket`: frames as types, as protobuf, as bytes.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod calls;
pub mod client;
pub mod command;
#[allow(unsafe_code, reason = "marks descriptors between fork and exec")]
mod inheritance;
pub mod link;
mod objects;
mod pool;
pub mod program;
mod programs;
mod segments;
pub mod session;
mod shared;
mod signal;
mod socket;
mod template;
#[cfg(test)]
mod tests;
mod wire;

pub use self::shared::{Counters, SessionError, Snapshot, WorkerInfo};
pub use self::socket::SocketError;
pub use self::wire::{FromWorker, ToWorker, WireError};
