//! A small HTTP service that registers itself, and answers what a test of a proxy asks.
//!
//! Its life is `app.rs`: listen, register, serve, and in the end leave the registry before the
//! last connection closes. `address.rs` finds out under which address others reach it, and
//! `state.rs` is what its workers share, and `metrics.rs` what they count. The answers are in `routes.rs` and below; what all of
//! them have in common is `routes/common.rs`.
//!
//! ```
//! use clap::Parser;
//! use service_greeter::{App, Cli};
//!
//! # #[actix_web::main]
//! # async fn main() -> anyhow::Result<()> {
//! let cli = Cli::parse_from(["service-greeter", "--registry", "memory:", "--drain", "0s"]);
//! let app = App::start(cli.config)?;
//! let url = format!("http://{}/greet/Ada", app.addr());
//!
//! app.run_until(async {
//!     let response = awc::Client::new().get(url).send().await.expect("it listens");
//!     assert_eq!(response.status(), 200);
//!     "the end of the example"
//! })
//! .await
//! # }
//! ```

mod address;
mod app;
mod config;
mod healthcheck;
mod metrics;
mod problem;
mod routes;
mod state;

pub use address::Advertise;
pub use app::App;
pub use config::{Cli, Command, Config};
pub use healthcheck::healthcheck;
