//! Clients and nodes that read and write HTTP/1.1 byte by byte, and what they send.

mod address;
pub mod answers;
mod echo;
mod message;
pub mod mixed;
pub mod requests;
mod upstream;
mod wire;

pub use address::{Full, Refusing};
pub use echo::is_echoed;
pub use message::Message;
pub use upstream::{Peer, Upstream};
pub use wire::{End, Wire};
