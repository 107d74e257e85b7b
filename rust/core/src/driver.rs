//! The driver role. Being written.
