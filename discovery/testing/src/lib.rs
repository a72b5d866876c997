//! What the tests of the library and of both services share, and the fault injection: for
//! development only.
//!
//! * Registries: a real [`etcd`], [`consul`] or [`zookeeper`] as a process on a free port, which ends
//!   with its owner; an etcd in this process that fails as scripted; a [`gate`] in front of a registry.
//! * The network: a [`relay`] that can be cut, fall silent, or lose messages.
//! * HTTP/1.1 byte by byte: scripted clients and nodes in [`http`].
//! * Programs of this workspace: a [`process`] whose log is a file, a [`program`] whose log a test reads
//!   line by line, and their [`usage`] of the machine.
//! * States to wait for, always with a limit: [`until`], [`within_limit`].
//!
//! The crate depends on `discovery`, which has it as a dev-dependency. The unit tests inside
//! `discovery/src` do not use it: to them, its types of `discovery` are those of another crate.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]
#![allow(
    clippy::new_without_default,
    reason = "constructors that start or create something"
)]

#[cfg(feature = "certificates")]
pub mod certificates;
pub mod consul;
mod directory;
pub mod etcd;
pub mod gate;
pub mod http;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod relay;
pub mod scene;
#[cfg(feature = "scripted-etcd")]
pub mod scripted_etcd;
pub mod server;
pub mod usage;
mod wait;
pub mod zookeeper;

pub use directory::Directory;
pub use server::free_port;
pub use wait::{PATIENCE, eventually, try_until, until, within_limit};
