//! Sends random HTTP/1.1 pipelines to a server, and counts the responses that are not right.

use std::error::Error;
use std::future::pending;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pipelines::{Failure, Node, Options, Profile, Summary};

/// Sends random HTTP/1.1 pipelines to a server, and checks the responses
#[derive(Parser)]
struct Flags {
    /// The address of the server
    #[arg(long, value_name = "IP:PORT", required_unless_present = "node_only")]
    to: Option<SocketAddr>,
    /// Run a node at this address, for the proxy under test to forward to; repeatable
    #[arg(long, value_name = "IP:PORT")]
    node: Vec<SocketAddr>,
    /// Run the nodes without sending anything
    #[arg(long, requires = "node")]
    node_only: bool,
    /// Use the greeter's endpoints instead of a node's
    #[arg(long)]
    greeter: bool,
    /// The minimum number of requests
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    requests: usize,
    /// The seed of the run, by default a random one
    #[arg(long, value_name = "N", env = "PIPELINES_SEED")]
    seed: Option<u64>,
    /// Send only the pipeline of this connection's seed
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Count failures instead of ending with the first
    #[arg(long)]
    keep_going: bool,
    /// The path in front of every target, such as /x
    #[arg(long, value_name = "PATH", default_value = "")]
    prefix: String,
    /// The number of connections at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    connections: usize,
    /// The maximum number of requests on a connection
    #[arg(long, value_name = "N", default_value_t = 10)]
    depth: usize,
    /// The limit of one connection in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    limit: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let flags = Flags::parse();
    let mut nodes = Vec::new();
    for address in &flags.node {
        nodes.push(Node::start(*address).await?);
    }
    let Some(to) = flags.to.filter(|_| !flags.node_only) else {
        return pending().await;
    };
    let options = Options {
        requests: flags.requests,
        seed: flags.seed.unwrap_or_else(|| fastrand::u64(..)),
        connections: flags.connections,
        depth: flags.depth,
        limit: Duration::from_secs(flags.limit),
        prefix: flags.prefix,
        profile: if flags.greeter {
            Profile::Greeter
        } else {
            Profile::Node
        },
        keep_going: flags.keep_going,
    };
    if let Some(seed) = flags.replay {
        return Ok(match pipelines::replay(to, seed, &options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failed(&failure),
        });
    }
    println!("seed {}", options.seed);
    let started = Instant::now();
    let summary = match pipelines::run(to, options).await {
        Ok(summary) => summary,
        Err(failure) => return Ok(failed(&failure)),
    };
    report(&summary, started.elapsed());
    let forbidden: usize = nodes.iter().map(Node::forbidden).sum();
    println!("  {forbidden:>8} requests that must not be processed reached a node");
    let is_right = summary.faults.is_empty() && forbidden == 0;
    Ok(ExitCode::from(u8::from(!is_right)))
}

fn failed(failure: &Failure) -> ExitCode {
    println!("{failure}");
    ExitCode::FAILURE
}

fn report(summary: &Summary, duration: Duration) {
    for failure in &summary.failures {
        println!("{failure}\n");
    }
    println!("in {:.1} s:", duration.as_secs_f64());
    for (count, what) in [
        (summary.connections, "connections"),
        (summary.requests, "requests"),
        (
            summary.responses,
            "responses as they should be, on connections without a fault",
        ),
        (
            summary.unprocessed,
            "requests without a response behind a close",
        ),
        (summary.resets, "resets behind the last response"),
    ] {
        println!("  {count:>8} {what}");
    }
    for ((kind, detail), count) in &summary.faults {
        println!("  {count:>8} connections with {kind:?}: {detail}");
    }
}
