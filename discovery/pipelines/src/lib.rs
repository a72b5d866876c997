//! Random HTTP/1.1 pipelines for the client-facing side of a server.
//!
//! Each connection has a seed, which determines its requests: methods, versions, `Connection`,
//! framings, junk, and the segments in which they are sent. The responses are checked: their order,
//! framing, content, and the end of the connection. A [`Node`] responds behind a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;

mod check;
mod client;
mod exchange;
mod failure;
mod junk;
mod kind;
mod message;
mod node;
mod pipeline;
mod profile;
mod request;

use client::Played;
pub use failure::{Failure, FaultKind};
pub use node::Node;
use pipeline::Pipeline;
pub use profile::Profile;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The minimum number of requests, in all connections together.
    pub requests: usize,
    /// The seed that the connections' seeds are drawn from.
    pub seed: u64,
    /// The number of connections at a time.
    pub connections: usize,
    /// The maximum number of requests on a connection, without those that must not be processed.
    pub depth: usize,
    /// The time limit of one connection.
    pub limit: Duration,
    /// The path in front of every target.
    pub prefix: String,
    /// The targets.
    pub profile: Profile,
    /// Counts failures instead of ending with the first.
    pub keep_going: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            requests: 10_000,
            seed: 0,
            connections: 16,
            depth: 10,
            limit: Duration::from_secs(10),
            prefix: String::new(),
            profile: Profile::Node,
            keep_going: false,
        }
    }
}

/// Returns the seed in the environment variable `PIPELINES_SEED`, or a random one. Prints it.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("PIPELINES_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("PIPELINES_SEED={seed}");
    seed
}

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Connections made.
    pub connections: usize,
    /// Requests generated, without those that must not be processed.
    pub requests: usize,
    /// Responses that were right.
    pub responses: usize,
    /// Requests without a response, behind one that closed the connection as it may.
    pub unprocessed: usize,
    /// Connections that ended with a reset behind the last response.
    pub resets: usize,
    /// Connections by the first fault on them, and its description.
    pub faults: BTreeMap<(FaultKind, String), usize>,
    /// The first failure of each fault.
    pub failures: Vec<Failure>,
}

impl Summary {
    fn count(&mut self, requests: usize, played: Result<Played, Failure>) {
        self.connections += 1;
        self.requests += requests;
        match played {
            Ok(played) => {
                self.responses += played.responses;
                self.unprocessed += requests - played.responses;
                self.resets += usize::from(played.is_reset);
            }
            Err(failure) => {
                let count = self.faults.entry(failure.fault()).or_default();
                *count += 1;
                if *count == 1 {
                    self.failures.push(failure);
                }
            }
        }
    }
}

/// The state that the connections of a run share.
struct Run {
    address: SocketAddr,
    options: Options,
    /// The source of seeds, and the number of requests generated.
    drawn: Mutex<(Rng, usize)>,
    summary: Mutex<Summary>,
}

impl Run {
    fn next(&self) -> Option<Pipeline> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let has_failed = !self.options.keep_going && !self.summary().failures.is_empty();
        if drawn.1 >= self.options.requests || has_failed {
            return None;
        }
        let seed = drawn.0.u64(..);
        let pipeline = Pipeline::generate(seed, &self.options);
        drawn.1 += pipeline.exchanges.len();
        Some(pipeline)
    }

    async fn play(&self) {
        while let Some(pipeline) = self.next() {
            let played = client::play(&pipeline, self.address, self.options.limit).await;
            self.summary().count(pipeline.exchanges.len(), played);
        }
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends random pipelines to a server and checks its responses.
///
/// # Errors
/// With the first connection on which a response was not right, unless the options count them.
pub async fn run(address: SocketAddr, options: Options) -> Result<Summary, Failure> {
    let connections = options.connections;
    let run = Arc::new(Run {
        address,
        drawn: Mutex::new((Rng::with_seed(options.seed), 0)),
        summary: Mutex::default(),
        options,
    });
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let run = run.clone();
        clients.spawn(async move { run.play().await });
    }
    clients.join_all().await;
    let summary = run.summary().clone();
    match summary.failures.first() {
        Some(failure) if !run.options.keep_going => Err(failure.clone()),
        _ => Ok(summary),
    }
}

/// Sends the pipeline of one connection's seed, as a failure's message names it.
///
/// # Errors
/// If a response is not right.
pub async fn replay(address: SocketAddr, seed: u64, options: &Options) -> Result<(), Failure> {
    let pipeline = Pipeline::generate(seed, options);
    client::play(&pipeline, address, options.limit).await?;
    Ok(())
}
