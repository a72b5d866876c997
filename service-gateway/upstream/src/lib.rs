//! The client half of HTTP/1.1 ([RFC 9112]) for a reverse proxy: connections to the nodes, their pool, the
//! encoder of requests and the parser of responses.
//!
//! - [`Pool`]: a worker's connections; [`Pool::take`] an idle one, or [`Pool::connect`].
//! - [`Connection`]: sends one [`Request`] at a time and returns the [`ResponseHead`].
//! - [`ResponseBody`]: the chunks behind that head. When it has ended, its connection returns to the pool.
//! - [`SendError`]: the reasons for which there is no response.
//!
//! A response whose end another parser could find elsewhere is an error ([`ParseError::AmbiguousFraming`]),
//! and a connection is reused only if its last response has ended as announced by the head. No task is spawned
//! for a request: the task that polls a response also sends what is left of the request.
//!
//! What follows from an error (a retry, an ejection, a status code) is decided by the caller. There are no
//! metrics and no log entries. HTTP/2, TLS and pipelining are left out.
//!
//! [RFC 9112]: https://www.rfc-editor.org/rfc/rfc9112

mod body;
mod connection;
mod encoder;
mod error;
pub mod fields;
mod head;
mod pool;
#[cfg(test)]
mod properties;
mod request;

pub use body::ResponseBody;
pub use connection::{Connection, UpgradedStream};
pub use error::{ParseError, SendError, is_address_unavailable, is_local};
pub use head::ResponseHead;
pub use pool::Pool;
pub use request::{BodySource, Request, RequestBody, RequestInfo};
