//! The `process_*` metrics that [Prometheus client libraries][1] give: processor time, memory, file
//! descriptors and start. Read from `/proc`; where there is none, or a number is missing in it, the
//! metric is missing too. The names and units are those of the client libraries.
//!
//! [1]: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics

use std::fs::{read_dir, read_to_string};

/// Unit of times in `/proc`, the same on all common processors.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the metrics of this process, in the text format 0.0.4 or in OpenMetrics.
pub fn metrics(is_open_metrics: bool) -> String {
    let counter = if is_open_metrics {
        "process_cpu_seconds"
    } else {
        "process_cpu_seconds_total"
    };
    let mut text = String::new();
    let mut add = |family: &str, name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let lines = format!("# HELP {family} {help}\n# TYPE {family} {kind}\n{name} {value}\n");
            text.push_str(&lines);
        }
    };
    add(
        counter,
        "process_cpu_seconds_total",
        "counter",
        "User and system processor time spent",
        cpu_seconds(),
    );
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory",
            resident_bytes(),
        ),
        ("process_open_fds", "Open file descriptors", open_fds()),
        (
            "process_max_fds",
            "The limit of open file descriptors",
            max_fds(),
        ),
        (
            "process_start_time_seconds",
            "Start of the process since the Unix epoch",
            start_seconds(),
        ),
    ];
    for (name, help, value) in gauges {
        add(name, name, "gauge", help, value);
    }
    text
}

/// Returns a field of `/proc/self/stat`, numbered from 1 as in proc(5). The fields after the program's name,
/// which may contain anything, start with the third.
fn stat(field: usize) -> Option<f64> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(field - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn start_seconds() -> Option<f64> {
    let boot = number("/proc/stat", "btime ")?;
    Some(boot + stat(22)? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    Some(number("/proc/self/status", "VmRSS:")? * 1024.0)
}

fn open_fds() -> Option<f64> {
    let entries = read_dir("/proc/self/fd").ok()?.count();
    Some(entries.saturating_sub(1) as f64) // one is that of the directory itself
}

/// Returns the limit of open files, `None` also if there is none.
fn max_fds() -> Option<f64> {
    number("/proc/self/limits", "Max open files")
}

/// Returns the number after the beginning of a line.
fn number(file: &str, beginning: &str) -> Option<f64> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(beginning))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_types, reason = "what is tested is a point in time")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn value(name: &str) -> f64 {
        let text = metrics(false);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().parse().unwrap()
    }

    #[test]
    fn a_process_has_all_metrics() {
        assert_eq!(metrics(false).lines().count(), 15);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds ");
        assert!((-5.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn open_files_are_counted() {
        let files: Vec<_> = (0..100).map(|_| File::open("/proc/self/stat")).collect();
        assert!(value("process_open_fds ") >= files.len() as f64);
    }

    #[test]
    fn a_counters_family_is_named_as_the_format_wants() {
        assert!(metrics(false).contains("# TYPE process_cpu_seconds_total counter\n"));
        assert!(metrics(true).contains("# TYPE process_cpu_seconds counter\n"));
    }
}
