//! Requests at a steady rate, and what became of them.
//!
//! A request is due at a fixed time, whether or not earlier ones have ended, and its latency counts
//! from then: a stall of the server is seen in full (no coordinated omission). Every request carries
//! an id in `x-request-id`, and its response has to carry the same one.
//!
//! The program `load` shows the figures on a terminal. The fault tests run [`Load`] in their own
//! process and check the [`Tally`].

mod generator;
mod tally;

pub use generator::Load;
pub use tally::{Answer, Tally};
