//! The cost of a request through the gateway, compared with nginx and HAProxy in the same run.
//! `scripts/bench.sh` gets what it needs, builds and runs it.
//!
//! All peers are in front of the same two greeters and take turns, round after round, so that whatever
//! else the machine does hits all of them. The CPU time a request costs is the figure that holds on
//! a noisy machine; requests a second and latency follow it, because load, proxy and greeters share
//! the cores.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use testing::Directory;
use testing::etcd::Etcd;
use testing::process::Process;

mod changes;
mod connections;
mod machine;
mod peer;
mod plot;
mod report;
mod workload;
mod wrk;

use peer::Peer;
use report::Report;
use workload::Workload;

/// Measures the gateway, nginx and HAProxy side by side, and prints tables in Markdown.
#[derive(Debug, Parser)]
struct Cli {
    /// Two minutes instead of ten: shorter and fewer rounds
    #[arg(long)]
    quick: bool,

    /// Only workloads whose name has this in it; discovery: how soon changes in etcd are felt, and what
    /// many nodes and many connections cost; or one of the three: changes, nodes, connections
    only: Option<String>,

    /// How often each peer has its turn [default: 5, with --quick 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// How long a turn is [default: 5, with --quick 2]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Where to draw the figures as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What `discovery` measures, each of which can be asked for alone.
const DISCOVERY: [&str; 3] = ["changes", "nodes", "connections"];

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let rounds = cli.rounds.unwrap_or(if cli.quick { 3 } else { 5 });
    let seconds = cli.seconds.unwrap_or(if cli.quick { 2 } else { 5 });
    println!("{}\n", machine::describe());
    let only = cli.only.as_deref();
    let is_asked = |part: &&str| only == Some("discovery") || only == Some(*part);
    let parts: Vec<_> = DISCOVERY.into_iter().filter(is_asked).collect();
    for part in &parts {
        match *part {
            "changes" => changes::felt_in().await?,
            "nodes" => changes::nodes().await?,
            _ => connections::measure().await?,
        }
    }
    if !parts.is_empty() {
        return Ok(());
    }
    let bench = Bench::start().await?;
    let mut reports = Vec::new();
    for workload in workload::all() {
        if cli
            .only
            .as_ref()
            .is_some_and(|only| !workload.name.contains(only.as_str()))
        {
            continue;
        }
        let report = bench.measure(&workload, rounds, Duration::from_secs(seconds))?;
        println!("{report}");
        reports.push(report);
    }
    if let Some(file) = cli.plot {
        std::fs::write(&file, plot::draw(&reports)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The peers, which run, and the greeters behind them.
struct Bench {
    peers: Vec<Peer>,
    directory: Directory,
    _greeters: Vec<Process>,
    _etcd: Etcd,
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let (etcd, directory) = (Etcd::start().await, Directory::new()?);
        let registry = format!("etcd://{}", etcd.address());
        let mut greeters = Vec::new();
        for number in 1..=2 {
            let log = directory.file(&format!("greeter-{number}.log"));
            let flags = ["--registry", &registry, "--tag", "version=v1"];
            greeters.push(Process::start(&log, "service-greeter", &flags, &[]).await?);
        }
        let addresses: Vec<_> = greeters.iter().map(|greeter| greeter.address).collect();
        let peers = vec![
            Peer::nginx(&directory, &addresses).await?,
            Peer::haproxy(&directory, &addresses).await?,
            Peer::gateway(&directory, &registry).await?,
        ];
        Ok(Self {
            peers,
            directory,
            _greeters: greeters,
            _etcd: etcd,
        })
    }

    /// Every peer in turn, the first of each round last in the next.
    fn measure(
        &self,
        workload: &Workload,
        rounds: usize,
        time: Duration,
    ) -> anyhow::Result<Report> {
        let mut report = Report::new(workload, &self.peers);
        let script = workload.script(&self.directory)?;
        for peer in &self.peers {
            wrk::run(peer, workload, script.as_deref(), Duration::from_secs(1))?; // connections are made
        }
        for round in 0..rounds {
            for turn in 0..self.peers.len() {
                let number = (round + turn) % self.peers.len();
                let peer = &self.peers[number];
                let before = peer.usage()?;
                let outcome = wrk::run(peer, workload, script.as_deref(), time)?;
                report.add(number, outcome, before, peer.usage()?);
            }
        }
        Ok(report)
    }
}
