//! The resource usage of a process, from Linux' `/proc` ([proc(5)][1]).
//!
//! [1]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// The unit of CPU times: hundredths of a second on every platform of Rust.
const TICK: Duration = Duration::from_millis(10);

/// The usage of one process.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Resident memory in MiB.
    pub memory: f64,
    /// The maximum of `memory` so far.
    pub peak: f64,
    /// The number of threads.
    pub threads: usize,
    /// The number of open files.
    pub descriptors: usize,
    /// Connections in the state `CLOSE_WAIT`: closed by the peer only.
    pub close_wait: usize,
    /// User and system time of all its threads.
    pub cpu: Duration,
}

impl Usage {
    /// Reads the usage of a process, given its id.
    pub fn of(process: u32) -> anyhow::Result<Self> {
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

/// Counts the sockets that are in the state 08, `CLOSE_WAIT`, in Linux' table of connections.
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
