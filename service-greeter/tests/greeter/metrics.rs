//! `/metrics`, for Prometheus.

use awc::Client;
use testing::prometheus::{follows_conventions, promtool_finds_nothing};

use crate::started::{Started, listed};

async fn metrics(greeter: &Started) -> String {
    let request = Client::new().get(greeter.url("/metrics"));
    let mut response = request.send().await.unwrap();
    let kind = response.headers().get("content-type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(response.body().await.unwrap().to_vec()).unwrap()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "{line}\n{text}");
}

#[actix_web::test]
async fn metrics_count_what_was_answered() {
    let greeter = Started::new(&[]);
    listed(&greeter.registry, 1).await;
    for target in [
        "/greet/Ada",
        "/greet/Bob",
        "/status/404",
        "/nope",
        "/slow?ms=2",
    ] {
        let request = Client::new().get(greeter.url(target));
        request.send().await.unwrap();
    }
    let text = metrics(&greeter).await;
    has(&text, "greeter_requests_total{code=\"2xx\"} 3");
    has(&text, "greeter_requests_total{code=\"4xx\"} 2");
    has(&text, "greeter_requests_total{code=\"5xx\"} 0");
    has(&text, "greeter_request_duration_seconds_count 5");
    has(
        &text,
        "greeter_request_duration_seconds_bucket{le=\"+Inf\"} 5",
    );
    has(&text, "greeter_registered 1");
    let fast = text.lines().find_map(|line| {
        line.strip_prefix("greeter_request_duration_seconds_bucket{le=\"0.001\"} ")
    });
    assert!(fast.unwrap().parse::<u64>().unwrap() <= 4, "{text}");
}

#[actix_web::test]
async fn an_instance_that_leaves_is_not_registered() {
    let greeter = Started::new(&["--drain", "5s"]);
    listed(&greeter.registry, 1).await;
    let (registry, url) = (greeter.registry.clone(), greeter.url("/metrics"));
    let _ended = greeter.stop();
    listed(&registry, 0).await;
    let mut response = Client::new().get(url).send().await.unwrap();
    let text = String::from_utf8(response.body().await.unwrap().to_vec()).unwrap();
    has(&text, "greeter_registered 0");
}

#[actix_web::test]
async fn metrics_follow_prometheus_conventions() {
    let text = metrics(&Started::new(&[])).await;
    follows_conventions(&text, "greeter_", "_total");
    promtool_finds_nothing(&text);
}
