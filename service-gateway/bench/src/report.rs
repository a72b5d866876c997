//! The figures of one workload: medians over the rounds, and ratios to nginx's.

use std::fmt;

use testing::usage::Usage;

use crate::peer::Peer;
use crate::workload::Workload;
use crate::wrk::Outcome;

pub(crate) struct Report {
    pub(crate) workload: Workload,
    pub(crate) rows: Vec<Row>,
}

/// One peer's rounds.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    rounds: Vec<Round>,
}

struct Round {
    outcome: Outcome,
    cpu_micros: f64,
    memory: f64,
}

impl Report {
    pub(crate) fn new(workload: &Workload, peers: &[Peer]) -> Self {
        let row = |peer: &Peer| Row {
            name: peer.name,
            rounds: Vec::new(),
        };
        Self {
            workload: *workload,
            rows: peers.iter().map(row).collect(),
        }
    }

    pub(crate) fn add(&mut self, peer: usize, outcome: Outcome, before: Usage, after: Usage) {
        let cpu_micros = (after.cpu - before.cpu).as_secs_f64() * 1e6 / outcome.requests as f64;
        self.rows[peer].rounds.push(Round {
            outcome,
            cpu_micros,
            memory: after.memory,
        });
    }
}

impl Row {
    /// CPU time for one request, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.median(|round| round.cpu_micros)
    }

    /// At these of wrk's percentiles, in milliseconds.
    pub(crate) fn latency(&self, index: usize) -> f64 {
        self.median(|round| round.outcome.latency[index])
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let sorted = self.sorted(of);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn sorted(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        let mut figures: Vec<_> = self.rounds.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.workload.name)?;
        writeln!(
            f,
            "| | CPU µs/request | range | × nginx | × HAProxy | req/s | × nginx | p50 ms | p99 ms | × nginx | RSS MiB | failed |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|---|")?;
        let [nginx, haproxy] = [&self.rows[0], &self.rows[1]];
        let rate = |row: &Row| row.median(|round| round.outcome.per_second);
        for row in &self.rows {
            let cpus = row.sorted(|round| round.cpu_micros);
            let range = [cpus.first(), cpus.last()].map(|cpu| cpu.copied().unwrap_or_default());
            let failed: u64 = row.rounds.iter().map(|round| round.outcome.failed).sum();
            writeln!(
                f,
                "| {} | {:.1} | {:.1} to {:.1} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {failed} |",
                row.name,
                row.cpu(),
                range[0],
                range[1],
                row.cpu() / nginx.cpu(),
                row.cpu() / haproxy.cpu(),
                rate(row),
                rate(row) / rate(nginx),
                row.latency(0),
                row.latency(3),
                row.latency(3) / nginx.latency(3),
                row.median(|round| round.memory),
            )?;
        }
        Ok(())
    }
}
