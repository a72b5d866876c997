//! The log of a process that panics: this test runs itself as another process.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::process::{Command, Output};
use std::{env, thread};

use service_runtime::logging::{self, LogFormat};

const CHILD: &str = "LOGGING_TEST_CHILD";

/// Runs [`child`] as a process: its exit code, and what it wrote to standard error.
fn run(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env_clear().envs(variables.iter().copied()).output();
    let Output { status, stderr, .. } = output.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// No test of its own: what the others run.
#[test]
fn child() {
    let Ok(format) = env::var(CHILD) else {
        return;
    };
    logging::start("info", format.parse().unwrap()).unwrap();
    log::info!(key = "a\nb"; "begun");
    let panicked = thread::spawn(|| panic!("first line\nsecond \u{1b}[31mline")).join();
    assert!(panicked.is_err());
    logging::print_error("all is over");
    logging::exit(3);
}

#[test]
fn every_record_and_a_panic_are_one_line_each() {
    let (code, text) = run(&[(CHILD, "text")]);
    assert_eq!(code, Some(3));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].ends_with("INFO  logging] begun key=a\\nb"),
        "{text}"
    );
    let panicked =
        r"ERROR panic] panicked: first line\nsecond \u{1b}[31mline thread=unnamed location=";
    assert!(lines[1].contains(panicked), "{text}");
    assert_eq!(lines[2], "error: all is over");
}

#[test]
fn a_panic_is_written_whatever_the_filter_selects() {
    let (_, text) = run(&[(CHILD, "json"), ("RUST_LOG", "off")]);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        lines[0]["msg"],
        "panicked: first line\nsecond \u{1b}[31mline"
    );
    assert_eq!(lines[0]["target"], "panic");
    assert_eq!(lines[1]["msg"], "all is over");
}

#[test]
fn a_backtrace_is_in_the_same_line_if_it_is_wanted() {
    let (_, text) = run(&[
        (CHILD, "json"),
        ("RUST_LOG", "off"),
        ("RUST_BACKTRACE", "1"),
    ]);
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(
        line["backtrace"]
            .as_str()
            .unwrap()
            .contains("logging::child"),
        "{text}"
    );
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let (_, plain) = run(&[(CHILD, "text")]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let (_, coloured) = run(&[(CHILD, "text"), ("RUST_LOG_STYLE", "always")]);
    assert!(coloured.contains("\u{1b}[32mINFO "), "{coloured}");
    let (_, json) = run(&[(CHILD, "json"), ("RUST_LOG_STYLE", "always")]);
    assert!(!json.contains('\u{1b}'), "{json}");
}

#[test]
fn formats_have_names() {
    for format in [LogFormat::Text, LogFormat::Json] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!("JSON ".parse::<LogFormat>().is_err());
}
