//! What the figures were measured on.

use std::process::Command;

/// Processor, cores, kernel and the programs' versions, in a line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (nginx, haproxy) = (
        version("nginx", "nginx version: "),
        version("haproxy", "HAProxy version "),
    );
    format!(
        "{}, {cores} cores, Linux {}; {nginx}; HAProxy {haproxy}; {}",
        processor(),
        kernel.trim(),
        version("wrk", "")
    )
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    name.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |name| name.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

/// The first word behind these of what a program says to `-v`, or its first two words.
fn version(program: &str, behind: &str) -> String {
    let Ok(output) = Command::new(program).arg("-v").output() else {
        return format!("{program}: not there");
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let rest = text
        .split(behind)
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let words = if behind.is_empty() { 2 } else { 1 };
    rest.split_whitespace()
        .take(words)
        .collect::<Vec<_>>()
        .join(" ")
}
