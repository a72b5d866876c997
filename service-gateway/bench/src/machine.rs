//! What the figures were measured on.

use std::process::Command;

/// Processor, cores, kernel and the programs' versions, in a line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let versions = ["nginx", "haproxy", "wrk"].map(version).join(", ");
    format!(
        "{}, {cores} cores, Linux {}; {versions}",
        processor(),
        kernel.trim()
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

/// Returns a program's name, and the first word with a digit in the output of `-v`.
fn version(program: &str) -> String {
    let Ok(output) = Command::new(program).arg("-v").output() else {
        return format!("{program}: not there");
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let word = text
        .split([' ', '/'])
        .find(|word| word.contains(|c: char| c.is_ascii_digit()));
    format!("{program} {}", word.unwrap_or_default().trim())
}
