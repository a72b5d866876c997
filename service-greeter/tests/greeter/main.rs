//! The service from outside: its answers, its life in a registry, and the process with its exit codes.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod answers;
mod bodies;
mod life;
mod metrics;
mod pipelines;
mod process;
mod program;
mod started;
