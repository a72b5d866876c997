//! The log of the program: its formats, and a standard error that nothing reads.

use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Program, Wire, run, until};

/// A gateway whose log nothing reads, after more requests than its pipe and its queue take lines.
async fn unread(flags: &[&str]) -> Program {
    let program = Program::start_with(&[("RUST_LOG", "debug")], flags, Stdio::null()).await;
    let mut client = Wire::connect(program.address).await;
    let path = format!("/{}", "x".repeat(4000));
    for _ in 0..1300 {
        client.get(&path).await.is_refused(404, "no_route", 0);
    }
    assert!(dropped_lines(&program).await > 0);
    program
}

async fn dropped_lines(program: &Program) -> u64 {
    let page = Wire::connect(program.admin).await.get("/metrics").await;
    let value = page
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("gateway_log_lines_dropped_total "));
    value.unwrap().parse().unwrap()
}

#[actix_web::test]
async fn an_unread_log_delays_neither_requests_nor_the_end() {
    let mut program = unread(&[]).await;
    program.signal("TERM").await;
    assert_eq!(program.ends().await.code(), Some(0));
}

#[actix_web::test]
async fn an_unread_log_does_not_delay_a_second_signal() {
    let mut program = unread(&["--drain", "10m"]).await;
    program.signal("TERM").await;
    until("the drain to begin", async || {
        let ready = Wire::connect(program.admin).await.get("/ready").await;
        ready.text().contains("draining")
    })
    .await;
    program.signal("TERM").await;
    assert_eq!(program.ends().await.code(), Some(143));
}

#[actix_web::test]
async fn a_log_that_is_read_again_reports_how_many_lines_were_dropped() {
    let mut program = unread(&[]).await;
    let dropped = dropped_lines(&program).await;
    let line = program.says("output is written again").await;
    assert!(
        line.contains(&format!("output=log lines_dropped={dropped}")),
        "{line}"
    );
    program.signal("TERM").await;
    program.says("stopped").await;
}

#[actix_web::test]
async fn a_json_log_is_one_object_for_each_line() {
    for (variables, flags) in [
        (&[][..], &["--log-format", "json"][..]),
        (&[("LOG_FORMAT", "json")], &[]),
    ] {
        let mut program = Program::start_with(variables, flags, Stdio::null()).await;
        program.signal("TERM").await;
        let lines = program.last_words().await;
        for line in &lines {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(record["ts"].as_str().unwrap().ends_with('Z'), "{line}");
            assert_eq!(record["level"], "INFO", "{line}");
            assert!(record["target"].is_string(), "{line}");
        }
        assert!(
            lines.last().unwrap().contains(r#""msg":"stopped""#),
            "{lines:?}"
        );
    }
}

#[actix_web::test]
async fn the_error_of_a_json_log_is_json_too() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = [
        "--registry",
        "memory:",
        "--listen",
        &address,
        "--log-format",
        "json",
    ];
    let (code, text) = run(&flags).await;
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["level"], "ERROR");
    assert!(
        record["msg"]
            .as_str()
            .unwrap()
            .starts_with(&format!("cannot listen on {address}: ")),
        "{text}"
    );
}

#[actix_web::test]
async fn the_error_of_a_flag_has_no_control_character() {
    let (code, text) = run(&["--balancer", "\u{1b}[31mred\u{9b}\u{202e}"]).await;
    assert_eq!((code, text.lines().count()), (2, 1), "{text:?}");
    let line = text.trim_end_matches('\n');
    assert!(
        !line.chars().any(char::is_control) && !line.contains('\u{202e}'),
        "{line:?}"
    );
}
