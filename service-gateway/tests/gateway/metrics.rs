//! What Prometheus reads.

use testing::prometheus::{follows_conventions, promtool_finds_nothing};

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
        (&*requests("nobody", "503"), 1.0),
        (&*requests("nobody", "5xx"), 0.0),
        (&*requests("nobody", "502"), 0.0),
        (&*requests("nobody", "504"), 0.0),
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
        ("gateway_nodes{service=\"test\",state=\"draining\"}", 0.0),
        ("gateway_nodes{service=\"nobody\",state=\"up\"}", 0.0),
        ("gateway_registry_connected{service=\"test\"}", 1.0),
        ("gateway_connections", 1.0),
        ("gateway_requests_in_flight", 0.0),
        ("gateway_access_log_dropped_total", 0.0),
        ("gateway_log_lines_dropped_total", 0.0),
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
async fn the_newest_of_many_versions_is_counted_apart() {
    let upstream = Upstream::saying("hi").await;
    let mut gateway = Gateway::of(&[]).await;
    let mut client = gateway.connect().await;
    let count = async |gateway: &Gateway, version: &str| {
        let metrics = gateway.admin("/metrics").await;
        let line = format!(
            "gateway_requests_total{{service=\"test\",version=\"{version}\",code=\"2xx\"}} "
        );
        let mut lines = metrics.text().lines();
        let count = lines.find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok());
        count.unwrap_or_default()
    };
    for n in 0..100 {
        let version = format!("v{n}");
        let tags = format!("version={version}");
        gateway.forget_nodes();
        gateway.join("test", upstream.address, &tags).await;
        until("the version", async || {
            let service = gateway.service().await;
            service["versions"].get(&version).is_some()
        })
        .await;
        client.get("/").await.is_ok("hi");
        assert_eq!(count(&gateway, &version).await, 1, "{version}");
    }
    assert_eq!(count(&gateway, "other").await, 0);
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
    follows_conventions(answer.text(), "gateway_", "_total");
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(gateway.metric(name).await >= 0.0, "{name}");
    }
    promtool_finds_nothing(answer.text());
    let open = accepting(&gateway, "application/openmetrics-text").await;
    let text = open.text().strip_suffix("# EOF\n").unwrap();
    follows_conventions(text, "gateway_", "");
}
