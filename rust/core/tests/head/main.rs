//! Transitions of the head, one subject a module: the test plays the drivers, the node and its workers.

mod actor_ends;
mod actor_waits;
mod actors;
mod basics;
mod demands;
mod failures;
mod fake;
mod holding;
mod independent;
mod lineage;
mod long_chains;
mod look;
mod nesting;
mod once;
mod parts;
mod priority;
mod retries;
mod streams;
mod unsendable;
