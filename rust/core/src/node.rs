//! The node. Being written.
