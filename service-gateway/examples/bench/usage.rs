//! What a peer has used so far, from the kernel's accounting ([proc(5)][1]).
//!
//! [1]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::peer::Peer;

/// The kernel counts in hundredths of a second, on every architecture of Linux that Rust knows.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all its processes, user and system, and the memory that is in RAM now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
}

pub(crate) fn of(peer: &Peer) -> anyhow::Result<Usage> {
    let id = peer.process_id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let mut sum = Usage::default();
    for id in std::iter::once(id.to_string()).chain(children.split_whitespace().map(str::to_owned))
    {
        let usage = of_process(&id).with_context(|| format!("{}, process {id}", peer.name))?;
        sum.cpu += usage.cpu;
        sum.resident_bytes += usage.resident_bytes;
    }
    Ok(sum)
}

fn of_process(id: &str) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<_> = stat
        .rsplit(") ")
        .next()
        .context("stat")?
        .split(' ')
        .collect();
    let ticks: u32 = fields
        .get(11..13)
        .context("stat")?
        .iter()
        .map(|f| f.parse::<u32>())
        .sum::<Result<_, _>>()?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(Usage {
        cpu: TICK * ticks,
        resident_bytes: kibibytes << 10,
    })
}
