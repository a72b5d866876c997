//! What a process uses of the machine, as Linux tells it ([proc(5)][1]).
//!
//! [1]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Linux counts CPU time in hundredths of a second, wherever Rust runs on it.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// In RAM, in MiB: now, and at most so far.
    pub(crate) memory: f64,
    pub(crate) peak: f64,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Connections that the other side has closed, and this one has not.
    pub(crate) close_wait: usize,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let file = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.filter_map(|entry| {
            fs::read_link(entry.ok()?.path())
                .ok()?
                .into_os_string()
                .into_string()
                .ok()
        });
        let descriptors: HashSet<String> = descriptors.collect();
        let status = file("status")?;
        let number = |name: &str| {
            let mut lines = status.lines();
            let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
            number.with_context(|| format!("{name} of process {process}"))
        };
        let mebibytes = |name: &str| anyhow::Ok(f64::from(number(name)?) / 1024.0);
        Ok(Self {
            memory: mebibytes("VmRSS")?,
            peak: mebibytes("VmHWM")?,
            threads: number("Threads")? as usize,
            close_wait: close_wait(&file("net/tcp")?, &descriptors),
            descriptors: descriptors.len(),
            cpu: cpu(&file("stat")?).with_context(|| format!("times of process {process}"))?,
        })
    }
}

/// How many of these sockets are in the state 08 of Linux' table of connections.
fn close_wait(table: &str, descriptors: &HashSet<String>) -> usize {
    let waits = |line: &&str| {
        let mut fields = line.split_whitespace();
        let (state, inode) = (fields.nth(3), fields.nth(5));
        state == Some("08")
            && inode.is_some_and(|inode| descriptors.contains(&format!("socket:[{inode}]")))
    };
    table.lines().filter(waits).count()
}

fn cpu(stat: &str) -> Option<Duration> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(str::parse::<u32>);
    Some(TICK * (times.next()?.ok()? + times.next()?.ok()?))
}
