//! Pipelined requests: each gets its own response, whole, and nothing behind a close is processed.

use std::time::Duration;

use pipelines::{Options, Profile, run};
use testing::http::Wire;

use crate::started::Started;

const REQUESTS: usize = 30_000;

#[actix_web::test]
async fn random_pipelines_get_their_responses() {
    let greeter = Started::new(&[]);
    let options = Options {
        requests: REQUESTS,
        seed: pipelines::seed(),
        profile: Profile::Greeter,
        limit: Duration::from_secs(20),
        ..Options::default()
    };
    let summary = run(greeter.address, options).await;
    let summary = summary.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{summary:?}");
    assert!(summary.unprocessed * 3 < summary.requests, "{summary:?}");
}

#[actix_web::test]
async fn a_head_behind_a_slow_get_leaves_its_body() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    wire.send(
        "GET /slow?ms=50 HTTP/1.1\r\nHost: t\r\n\r\nHEAD /greet/Bob HTTP/1.1\r\nHost: t\r\n\r\n",
    )
    .await;
    wire.read_to("\r\n\r\n").await;
    let body = wire.read_to("}").await;
    assert_eq!(body, r#"{"waited_ms":50}"#);
    assert!(wire.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
}

#[actix_web::test]
async fn junk_behind_a_body_follows_its_response() {
    for junk in ["}", "}\r\n\r\n", "\0\0\r\n\r\n"] {
        let greeter = Started::new(&[]);
        let mut wire = Wire::connect(greeter.address).await;
        let post = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\n{\"a\":1";
        wire.send(&format!("{post}{junk}")).await;
        assert!(wire.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(
            wire.read_to("0\r\n\r\n").await,
            "6\r\n{\"a\":1\r\n0\r\n\r\n"
        );
        let refusal = wire.read_to_close().await;
        assert!(refusal.starts_with("HTTP/1.1 400 "), "{refusal}");
        let refusal = refusal.to_ascii_lowercase();
        assert!(refusal.contains("\r\nconnection: close\r\n"), "{refusal}");
    }
}

#[actix_web::test]
async fn a_request_behind_a_close_is_not_processed() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    let get = "GET /greet/Ada HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    wire.send(&format!("{get}GET /greet/Bob HTTP/1.1\r\nHost: t\r\n\r\n"))
        .await;
    let responses = wire.read_to_close().await;
    assert!(responses.contains("Hello, Ada!"), "{responses}");
    assert_eq!(responses.matches("HTTP/1.1 ").count(), 1, "{responses}");
}
