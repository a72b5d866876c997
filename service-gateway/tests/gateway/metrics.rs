//! What Prometheus reads.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Gateway, Message, Upstream, Wire, until};

/// The metrics, as one who accepts this gets them.
async fn accepting(gateway: &Gateway, accept: &str) -> Message {
    let mut wire = Wire::connect(gateway.admin).await;
    let header = format!("accept: {accept}\r\n");
    wire.ask("GET", "/metrics", &header).await
}

#[track_caller]
fn kind(answer: &Message) -> &str {
    answer.header("content-type").unwrap()
}

#[actix_web::test]
async fn metrics_count_what_happens() {
    let upstream = Upstream::answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = Gateway::with("--route /a=test --route /b=nobody", &[&upstream]).await;
    let requests = |service: &str, code: &str| {
        format!("gateway_requests_total{{service=\"{service}\",version=\"\",code=\"{code}\"}}")
    };
    assert!(gateway.metric(&requests("test", "4xx")).await < 0.5);
    let mut client = gateway.connect().await;
    for target in ["/a", "/a", "/b", "/c"] {
        client.get(target).await;
    }
    for (name, number) in [
        (&*requests("test", "4xx"), 2.0),
        (&*requests("test", "2xx"), 0.0),
        (&*requests("nobody", "5xx"), 1.0),
        (&*requests("", "4xx"), 1.0),
        ("gateway_refusals_total{reason=\"no_route\"}", 1.0),
        ("gateway_refusals_total{reason=\"no_instance\"}", 1.0),
        ("gateway_refusals_total{reason=\"loop\"}", 0.0),
        ("gateway_attempts_total", 2.0),
        ("gateway_retries_total", 0.0),
        (
            "gateway_request_duration_seconds_count{service=\"test\"}",
            2.0,
        ),
        ("gateway_nodes{service=\"test\",state=\"up\"}", 1.0),
        ("gateway_nodes{service=\"nobody\",state=\"up\"}", 0.0),
        ("gateway_registry_connected{service=\"test\"}", 1.0),
        ("gateway_connections", 1.0),
        ("gateway_requests_in_flight", 0.0),
        ("gateway_access_log_dropped_total", 0.0),
    ] {
        let counted = gateway.metric(name).await;
        assert!((counted - number).abs() < 0.5, "{name}: {counted}");
    }
}

#[actix_web::test]
async fn requests_are_counted_by_the_version_that_answered() {
    let (old, new) = (Upstream::saying("1").await, Upstream::saying("2").await);
    let nodes = [(old.address, "version=v1"), (new.address, "version=v\"2")];
    let gateway = Gateway::before("--workers 3", &nodes).await;
    gateway.knows(2).await;
    for _ in 0..6 {
        gateway.get("/").await; // each over a connection of its own, so that workers take turns
    }
    for version in ["v1", "v\\\"2"] {
        let name = format!(
            "gateway_requests_total{{service=\"test\",version=\"{version}\",code=\"2xx\"}}"
        );
        let counted = gateway.metric(&name).await;
        assert!((counted - 3.0).abs() < 0.5, "{name}: {counted}");
    }
}

#[actix_web::test]
async fn every_list_of_the_registry_is_counted() {
    let upstream = Upstream::saying("hi").await;
    let mut gateway = Gateway::of(&[]).await;
    let lists = "gateway_registry_lists_total{service=\"test\"}";
    until("a list", async || gateway.metric(lists).await > 0.5).await;
    let before = gateway.metric(lists).await;
    gateway.join("test", upstream.address, "").await;
    until("another", async || {
        gateway.metric(lists).await > before + 0.5
    })
    .await;
}

#[actix_web::test]
async fn everybody_gets_the_format_that_they_read() {
    let gateway = Gateway::of(&[]).await;
    for (accept, expected) in [
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain", "text/plain; version=0.0.4"),
        ("image/png", "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            // What Prometheus 2.42 sends.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            "text/plain;version=0.0.4,application/openmetrics-text;q=0.5",
            "text/plain; version=0.0.4",
        ),
    ] {
        let answer = accepting(&gateway, accept).await;
        assert!(kind(&answer).starts_with(expected), "{accept}: {answer:?}");
        let open = expected.contains("openmetrics");
        assert_eq!(answer.text().ends_with("# EOF\n"), open);
    }
    assert!(kind(&gateway.admin("/metrics").await).starts_with("text/plain"));
}

#[actix_web::test]
async fn both_formats_follow_prometheus_conventions() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::before("", &[(upstream.address, "version=v\\\"1")]).await;
    gateway.get("/").await.is_ok("hi");
    let answer = gateway.admin("/metrics").await;
    follows_conventions(answer.text(), "_total");
    promtool_finds_nothing(answer.text());
    let open = accepting(&gateway, "application/openmetrics-text").await;
    let text = open.text().strip_suffix("# EOF\n").unwrap();
    follows_conventions(text, "");
}

/// Names, help, types, and no series twice. A counter's family is called like its series, without
/// `_total` in OpenMetrics: `counters_end`.
#[track_caller]
fn follows_conventions(text: &str, counters_end: &str) {
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
    assert!(families.iter().all(|name| name.starts_with("gateway_")));
}

/// Asks Prometheus' own checker too, where it is installed (scripts/setup.sh --all).
fn promtool_finds_nothing(text: &str) {
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
