//! The process side of both services: what a program needs that runs for months, whatever it serves.
//!
//! - [`signal`]: the signals that stop a process.

pub mod signal;
