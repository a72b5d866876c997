//! The server half of HTTP/1.1 ([RFC 9112]) for actix-web applications: one request of a connection at a
//! time, with limits for everything that a client may take its time for.
//!
//! - [`serve`]: a port, its workers and connections.
//! - [`Downstream`]: what differs between ports, such as limits and the response to a malformed head.
//! - [`Framing`]: the decoder of bodies, of requests and of responses.
//! - [`Deadline`]: a timer for limits that seldom expire.
//!
//! It exists because actix-http decodes up to 16 pipelined requests ahead and keeps a part of its state of
//! the request that was decoded last, so that the response to `GET` in front of `HEAD` has no body, and
//! ends a connection with a response due if what follows cannot be parsed. Here, a request is decoded when
//! the response to the one before it has ended. `100 Continue` is sent when a body is first read. Trailers
//! are received and dropped, in requests and responses. HTTP/2 and TLS are left to proxies in front.
//!
//! [RFC 9112]: https://www.rfc-editor.org/rfc/rfc9112

mod connection;
mod deadline;
mod framing;
mod head;
mod io;
mod limits;
mod response;
mod server;

pub use connection::{Downstream, Timeout};
pub use deadline::Deadline;
pub use framing::{Chunk, Decoded, Framing, InvalidChunk, READ_BYTES};
pub use head::{HeadError, MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES};
pub use limits::Limits;
pub use response::ReasonPhrase;
pub use server::{App, Options, Worker, serve};
