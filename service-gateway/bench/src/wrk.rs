//! The load, by [wrk](https://github.com/wg/wrk).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::peer::Peer;
use crate::workload::Workload;

/// What wrk counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// At 50, 75, 90 and 99 %, in milliseconds.
    pub(crate) latency: [f64; 4],
    /// Answers other than 2xx and 3xx, and connections that broke.
    pub(crate) failed: u64,
}

pub(crate) const PERCENTILES: [&str; 4] = ["50%", "75%", "90%", "99%"];

pub(crate) fn run(
    peer: &Peer,
    workload: &Workload,
    script: Option<&Path>,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let url = format!("http://{}{}", peer.address, workload.path);
    load(&url, workload.connections, script, time)
}

pub(crate) fn load(
    url: &str,
    connections: usize,
    script: Option<&Path>,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--latency", "--timeout", "30s"]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", time.as_secs())]);
    if let Some(script) = script {
        command.arg("--script").arg(script);
    }
    let output = command.arg(url).output();
    let output = output.context("starting wrk: scripts/bench.sh installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "wrk: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    read(&text).with_context(|| format!("what wrk said: {text}"))
}

fn read(text: &str) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [percent, time] if let Some(index) = PERCENTILES.iter().position(|p| *p == percent) => {
                outcome.latency[index] = milliseconds(time)?;
            }
            [count, "requests", "in", ..] => outcome.requests = count.parse().ok()?,
            ["Requests/sec:", rate] => outcome.per_second = rate.parse().ok()?,
            ["Non-2xx", .., count] => outcome.failed += count.parse::<u64>().ok()?,
            ["Socket", "errors:", ..] => {
                let numbers = line
                    .split(|c: char| !c.is_ascii_digit())
                    .filter_map(|n| n.parse::<u64>().ok());
                outcome.failed += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    (outcome.requests > 0).then_some(outcome)
}

/// `812.00us`, `1.20ms`, `2.01s`
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = match text {
        _ if text.ends_with("us") => (text.trim_end_matches("us"), 0.001),
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 1.0),
        _ => (text.trim_end_matches('s'), 1000.0),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}
