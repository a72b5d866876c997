//! A reverse proxy that finds its upstreams in a registry and chooses one for each request.
//!
//! The path of a request:
//!
//! - [`app`] starts the servers; `server.rs` has those of both ports, on connections of the crate [`http1`].
//!   `client.rs` counts and limits the connections, `peer.rs` has the address of a client.
//! - `proxy.rs` handles a request. `route.rs` finds its service, `proxy/destination.rs` applies its tags, and
//!   [`discovery`] selects a node.
//! - `proxy/attempts.rs` decides on retries and hedges, in one table; `proxy/budget.rs` limits them.
//! - `proxy/upstream_request.rs` writes the request's head: `proxy/target.rs` its target, `proxy/headers.rs` and
//!   `proxy/forwarded.rs` its fields, `proxy/trace.rs` its ids.
//! - `proxy/attempt.rs` sends it over a connection of the crate [`upstream`], and `proxy/outlier.rs` reports
//!   the outcome to [`discovery`].
//! - `proxy/response.rs` has the response; `proxy/payload.rs`, `proxy/request_body.rs` and `proxy/response_body.rs` stream
//!   the bodies, `proxy/upgrade.rs` what follows a switch to WebSocket.
//! - `error.rs` has the responses of the gateway itself, `head_refusal.rs` those to malformed heads.
//!   `access_log.rs` writes an entry for each request, if configured.
//!
//! Beside that, `probe.rs` checks the health of nodes, `allowed.rs` limits where nodes may be,
//! `descriptors.rs` divides the process's open files, and `admin.rs` is the other port: health, metrics,
//! instances and the dashboard.

mod access_log;
mod admin;
mod allowed;
pub mod app;
mod client;
pub mod config;
mod descriptors;
mod error;
mod head_refusal;
mod healthcheck;
mod metrics;
mod peer;
mod probe;
mod proxy;
mod request_id;
mod route;
mod server;

pub use app::App;
pub use config::{Cli, Command, Config};
pub use healthcheck::healthcheck;
pub use route::Route;
