//! What a process uses, as Linux tells it.

use std::fs;

use anyhow::Context;

#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Memory it has now, in KiB.
    pub(crate) resident: u64,
    /// The most it ever had.
    pub(crate) peak: u64,
    pub(crate) threads: u64,
    pub(crate) descriptors: u64,
}

impl Usage {
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let number = |name: &str| {
            let mut lines = status.lines();
            let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("{name} of process {process}"))
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Self {
            resident: number("VmRSS")?,
            peak: number("VmHWM")?,
            threads: number("Threads")?,
            descriptors: descriptors as u64,
        })
    }
}
