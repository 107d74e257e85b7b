//! Transitions of the head, one subject a module: the test plays the drivers, the node and its workers.

mod basics;
mod failures;
mod fake;
mod holding;
mod nesting;
