//! The access log of the program, on standard output.

use serde_json::Value;

use crate::support::{Program, Wire};

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
