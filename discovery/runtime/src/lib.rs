//! The process side of both services: what a program that runs for months needs, whatever it serves.
//!
//! - [`process`]: the numbers that Prometheus expects of a process.
//! - [`signal`]: the signals that stop a process.
//! - [`logging`]: the program's own log on standard error, as text or JSON, and the end of a process.
//! - [`line_writer`]: the bounded queue in front of an output that may block or fail.
//! - [`descriptors`]: the limit of open files.
//! - [`socket`]: listening sockets, and connections whose peer disappears.

pub mod descriptors;
pub mod line_writer;
pub mod logging;
pub mod process;
pub mod signal;
pub mod socket;
