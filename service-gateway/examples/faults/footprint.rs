//! What a process has of the machine, as Linux tells in `/proc`.

use std::collections::HashSet;
use std::fs;

use anyhow::Context;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) descriptors: usize,
    /// Connections that the other side has closed, and this one has not.
    pub(crate) close_wait: usize,
    /// In MB, now and at most so far.
    pub(crate) memory: f64,
    pub(crate) peak: f64,
    /// Of all its threads, in seconds.
    pub(crate) cpu: f64,
}

impl Footprint {
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
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes =
                line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            kilobytes.map(|kb| kb / 1024.0).context(name.to_owned())
        };
        Ok(Self {
            close_wait: close_wait(&file("net/tcp")?, &descriptors),
            descriptors: descriptors.len(),
            memory: megabytes("VmRSS")?,
            peak: megabytes("VmHWM")?,
            cpu: cpu(&file("stat")?).context("times in stat")?,
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

/// User and system time, in hundredths of a second on every Linux there is.
fn cpu(stat: &str) -> Option<f64> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / 100.0)
}
