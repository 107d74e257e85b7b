//! The pure part of eagleray: what is scheduled, where and when.
//!
//! There is no I/O here, no clock, no thread, no environment and no randomness: time comes in with each event, and
//! effects go out through an outbox. That is why the crate is `no_std`, and why a seed replays a whole cluster.
//!
//! * [`graph`] and [`order`](mod@order): a graph as dense ids, and the order in which its tasks should run.
//! * [`message`]: the vocabulary between driver, head and node.
//! * [`head`]: which task runs where. [`node`]: the workers of one machine. [`driver`]: the process of the user.
//! * [`page`]: the control page through which a worker claims tasks and the node takes them back.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod driver;
pub mod graph;
pub mod head;
pub mod ids;
pub mod message;
pub mod node;
pub mod order;
pub mod page;
