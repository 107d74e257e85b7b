//! Executes runs: program and inputs in, results out. Knows no socket.

mod io;
