//! The access log of the program, on standard output.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::support::{Program, Wire, within_limit};

#[actix_web::test]
async fn each_request_is_a_line_with_its_ids_and_without_its_query() {
    let flags = ["--access-log", "--route", "/a=test"];
    let mut program = Program::start(&flags).await;
    let mut client = Wire::connect(program.address).await;
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let headers = format!("{trace}x-request-id: mine\r\n");
    let answer = client.ask("GET", "/b/c?password=1", &headers).await;
    let line: Value = serde_json::from_str(&program.writes().await).unwrap();
    for (key, value) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "GET".into()),
        ("path", "/b/c".into()),
        ("status", 404.into()),
        ("service", Value::Null),
        ("instance", Value::Null),
        ("version", Value::Null),
        ("attempts", 0.into()),
        ("bytes", answer.body.len().into()),
        ("request_id", "mine".into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    assert_eq!(line.as_object().unwrap().len(), 13, "{line}");
    let answer = client.ask("POST", "/a", "content-length: 0\r\n").await;
    let line: Value = serde_json::from_str(&program.writes().await).unwrap();
    assert_eq!(line["service"], "test");
    assert_eq!(
        line["request_id"].as_str(),
        answer.header("x-request-id"),
        "{line}"
    );
    assert_eq!(line["trace_id"], Value::Null, "none came in");
}

#[actix_web::test]
async fn what_was_logged_is_written_before_it_ends() {
    let mut program = Program::start(&["--access-log"]).await;
    let mut client = Wire::connect(program.address).await;
    for _ in 0..100 {
        client.get("//..").await;
    }
    program.signal("TERM").await;
    assert!(program.ends().await.success());
    for _ in 0..100 {
        program.writes().await;
    }
}

#[actix_web::test]
async fn nothing_is_written_unless_it_is_asked_for() {
    let mut program = Program::start(&[]).await;
    Wire::connect(program.address).await.get("/").await;
    program.signal("TERM").await;
    assert!(program.ends().await.success());
    assert_eq!(program.next_written().await, None);
}

/// A named pipe, removed with its owner.
struct NamedPipe(PathBuf);

impl NamedPipe {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("access-log-{}", fastrand::u64(..)));
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        Self(path)
    }

    fn reader(&self) -> Receiver {
        OpenOptions::new().open_receiver(&self.0).unwrap()
    }

    /// Needs a reader.
    fn writer(&self) -> Stdio {
        let sender = OpenOptions::new().open_sender(&self.0).unwrap();
        sender.into_blocking_fd().unwrap().into()
    }
}

impl Drop for NamedPipe {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The request ids of this many lines.
async fn request_ids(reader: Receiver, count: usize) -> Vec<String> {
    let mut lines = BufReader::new(reader).lines();
    let mut ids = Vec::new();
    while ids.len() < count {
        let line = within_limit("a line", lines.next_line()).await.unwrap();
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        ids.push(line["request_id"].as_str().unwrap().to_owned());
    }
    ids
}

#[actix_web::test]
async fn an_access_log_whose_output_fails_for_a_while_goes_on() {
    let pipe = NamedPipe::new();
    let reader = pipe.reader();
    let mut program = Program::start_with(&[], &["--access-log"], pipe.writer()).await;
    let mut client = Wire::connect(program.address).await;
    let ask = async |client: &mut Wire, id: &str| {
        client
            .ask("GET", "/", &format!("x-request-id: {id}\r\n"))
            .await
            .is_refused(404, "no_route", 0);
    };
    ask(&mut client, "before").await;
    assert_eq!(request_ids(reader, 1).await, ["before"]);
    for id in ["one", "two", "three"] {
        ask(&mut client, id).await; // every write ends in EPIPE
    }
    let warning = program.says("output cannot be written").await;
    assert!(
        warning.contains("WARN") && warning.contains("output=access-log error=Broken pipe"),
        "{warning}"
    );
    let reader = pipe.reader();
    ask(&mut client, "after").await;
    assert_eq!(
        request_ids(reader, 4).await,
        ["one", "two", "three", "after"]
    );
    let end = program.says("output").await;
    assert!(
        end.contains("output is written again output=access-log lines_dropped=0"),
        "{end}"
    );
}
