//! The conventions of Prometheus for a page of metrics.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

/// Checks names with a common prefix, help, types, and that no series occurs twice. A counter's family
/// ends with `counters_end`: `_total`, or nothing in OpenMetrics.
#[track_caller]
pub fn follows_conventions(text: &str, names_begin: &str, counters_end: &str) {
    let (mut name, mut kind) = ("", "");
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    for line in text.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", family, help] => {
                assert!(families.insert(family), "{family} comes twice");
                assert!(!help.is_empty());
                name = family;
            }
            ["#", "TYPE", family, of] => {
                assert_eq!(family, name);
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                assert_eq!(
                    family.ends_with("_total"),
                    of == "counter" && !counters_end.is_empty(),
                    "{line}"
                );
                kind = of;
            }
            _ => {
                let (left, value) = line.rsplit_once(' ').unwrap();
                let suffix = left.split('{').next().unwrap().strip_prefix(name).unwrap();
                let suffixes: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "counter" if counters_end.is_empty() => &["_total"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line} below {name}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(left), "{left} comes twice");
            }
        }
    }
    let base_units = ["milli", "micro", "_ms", "minutes", "kilo", "mega"];
    let odd = |name: &&&str| base_units.iter().any(|unit| name.contains(unit));
    assert_eq!(families.iter().find(odd), None);
    let is_ours = |name: &&str| name.starts_with(names_begin) || name.starts_with("process_");
    assert!(families.iter().all(is_ours));
}

/// Runs `promtool check metrics`, where it is installed (scripts/setup.sh --all).
pub fn promtool_finds_nothing(text: &str) {
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        return eprintln!("promtool is not installed: see scripts/setup.sh --all");
    };
    let mut stdin = check.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
