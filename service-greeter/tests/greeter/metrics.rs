//! `/metrics`, for Prometheus.

use std::io::Write;
use std::process::{Command, Stdio};

use awc::Client;

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
async fn every_series_has_its_help_and_type_and_comes_once() {
    let text = metrics(&Started::new(&[])).await;
    let (mut help, mut kind, mut series) = (String::new(), "", Vec::new());
    for line in text.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, _] => help = name.to_owned(),
            ["#", "TYPE", name, of] => {
                assert_eq!(name, help);
                assert_eq!(of == "counter", name.ends_with("_total"), "{name}");
                kind = of;
            }
            [name, value] => {
                let suffixes: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let bare = name.split('{').next().unwrap();
                assert!(
                    suffixes.iter().any(|suffix| bare == help.clone() + suffix),
                    "{line}"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
                series.push(name);
            }
            _ => panic!("{line}"),
        }
    }
    let count = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), count);
    promtool_finds_nothing(&text);
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
    assert!(output.status.success() && said.is_empty(), "{said:?}");
}
