//! A reverse proxy that finds its upstreams in a registry and chooses one for each request.
//!
//! The way of a request: [`app`] starts the servers, `server.rs` the one of the proxy port, on
//! connections of the crate [`http1`] (`client.rs`). `proxy.rs` takes a request, `route.rs` finds
//! its service, [`discovery`] chooses a node, `proxy/attempt.rs` sends it there over one of the
//! worker's connections (of the crate [`upstream`]), and `proxy/race.rs` says whether another node
//! may be tried.
//! `proxy/answer.rs` is what comes back, `proxy/intake.rs`, `proxy/upload.rs` and `proxy/download.rs` stream the bodies,
//! `proxy/headers.rs` decides on every header. `error.rs` is what clients read when that fails.
//! `access_log.rs` writes a line for each request, if wanted. `head_refusal.rs` answers what is refused before there is a request. `allowed.rs`
//! says where nodes may be, and `probe.rs` asks nodes for their health beside all this. The other port, with health, metrics,
//! instances and the dashboard, is `admin.rs`.

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
mod route;
mod server;

pub use app::App;
pub use config::{Cli, Command, Config};
pub use healthcheck::healthcheck;
pub use route::Route;
