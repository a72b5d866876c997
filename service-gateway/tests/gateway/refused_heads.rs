//! Heads that the parser of the proxy port refuses: answered, counted and logged like any request.

use std::collections::HashSet;

use serde_json::Value;

use crate::support::requests::{self, BROKEN_HEADS};
use crate::support::{Gateway, Message, Program, Upstream, Wire, until};

/// Heads, and the status and the reason that each is refused with.
fn heads() -> Vec<(String, u16, &'static str)> {
    let broken = BROKEN_HEADS.map(|head| (head.to_owned(), 400, "bad_request"));
    let junk = [
        "\0\0\0\0\r\n\r\n",
        "G@T / HTTP/1.1\r\n\r\n",
        "\u{1f980}\r\n\r\n",
    ];
    let junk = junk.map(|head| (head.to_owned(), 400, "bad_request"));
    let large = requests::large_heads().map(|head| (head, 431, "head_too_large"));
    let long = requests::long_targets().map(|head| (head, 414, "target_too_long"));
    [&broken[..], &junk, &large, &long].concat()
}

async fn answered(client: &mut Wire, head: &str) -> Message {
    // Of a head that is too large not all is read before the response.
    let _ = client.try_send(head).await;
    client.answer("GET").await
}

#[actix_web::test]
async fn a_refused_head_is_a_problem_with_a_request_id() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut ids = HashSet::new();
    for (head, status, reason) in heads() {
        for requests_before in [0, 2] {
            let mut client = gateway.connect().await;
            for _ in 0..requests_before {
                client.get("/").await.is_ok("hi");
            }
            let answer = answered(&mut client, &head).await;
            answer.is_refused(status, reason, 0);
            assert!(answer.closes() && answer.whole, "{head:.99?}");
            let id = answer.header("x-request-id").unwrap();
            assert!(ids.insert(id.to_owned()) && id.len() == 32, "{id}");
            client.ends().await;
        }
    }
}

/// Heads of more than 128 KiB, each with the number of bytes written at a time.
fn oversized_heads() -> impl Iterator<Item = (String, usize)> {
    let sizes = [132, 140, 145, 160, 200, 300].map(|kib| kib << 10);
    let writes = [1000, 8 << 10, 20_000, 64 << 10, usize::MAX];
    let heads = sizes.map(|size| {
        let (long, last) = ("x".repeat(size / 2), "y".repeat(size / 2));
        format!("GET / HTTP/1.1\r\nhost: test\r\nx: {long}\r\ny: {last}\r\n\r\n")
    });
    let with_writes = move |head: String| writes.map(|write| (head.clone(), write));
    heads.into_iter().flat_map(with_writes)
}

/// However its bytes arrive, also behind a request that is still being answered.
#[actix_web::test]
async fn a_head_beyond_the_limit_is_always_refused() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let good = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    for (head, write) in oversized_heads() {
        for pipelined in [0, 1, 3] {
            for _ in 0..4 {
                let mut client = gateway.connect().await;
                let bytes = good.repeat(pipelined) + &head;
                for piece in bytes.as_bytes().chunks(write) {
                    if client.try_send(piece).await.is_err() {
                        break; // the response comes before the end of the head
                    }
                }
                for _ in 0..pipelined {
                    client.answer("GET").await.is_ok("hi");
                }
                let status = client.answer("GET").await.status();
                assert_eq!(status, 431, "{} bytes by {write}", head.len());
            }
        }
    }
    assert_eq!(upstream.count(), 480, "pipelined requests only");
}

#[actix_web::test]
async fn a_head_within_the_limit_is_taken() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let long = "x".repeat(127 << 10);
    for _ in 0..20 {
        let mut client = gateway.connect().await;
        for _ in 0..2 {
            client
                .ask("GET", "/", &format!("x: {long}\r\n"))
                .await
                .is_ok("hi");
        }
    }
}

#[actix_web::test]
async fn refused_heads_are_counted() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let heads = heads();
    for (head, ..) in &heads {
        answered(&mut gateway.connect().await, head).await;
    }
    for reason in ["bad_request", "head_too_large", "target_too_long"] {
        let expected = heads.iter().filter(|(.., of)| *of == reason).count();
        let name = format!("gateway_refusals_total{{reason=\"{reason}\"}}");
        let counted = gateway.metric(&name).await;
        assert!(
            (counted - expected as f64).abs() < 0.5,
            "{reason}: {counted}"
        );
    }
    let name = "gateway_requests_total{service=\"\",version=\"\",code=\"4xx\"}";
    let counted = gateway.metric(name).await;
    assert!((counted - heads.len() as f64).abs() < 0.5, "{counted}");
}

#[actix_web::test]
async fn a_head_refused_right_behind_a_request_is_counted_too() {
    let gateway = Gateway::with("--route /a=test", &[]).await;
    let mut client = gateway.connect().await;
    client
        .send("GET /b HTTP/1.1\r\nhost: test\r\n\r\nGET /x\r\n\r\n")
        .await;
    client.answer("GET").await.is_refused(404, "no_route", 0);
    assert_eq!(client.answer("GET").await.status(), 400);
    client.ends().await;
    until("the count", async || {
        let name = "gateway_refusals_total{reason=\"bad_request\"}";
        gateway.metric(name).await > 0.5
    })
    .await;
}

#[actix_web::test]
async fn a_body_that_looks_like_a_refusal_passes() {
    let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::saying(refusal).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.get("/").await.is_ok(refusal);
    }
}

#[actix_web::test]
async fn a_refused_head_is_in_the_access_log() {
    let mut program = Program::start(&["--access-log", "--head-timeout", "200ms"]).await;
    let slow = ("GET /".to_owned(), 408, "slow_request");
    for (head, status, reason) in heads().into_iter().chain([slow]) {
        let mut client = Wire::connect(program.address).await;
        let answer = answered(&mut client, &head).await;
        answer.is_refused(status, reason, 0);
        let line: Value = serde_json::from_str(&program.writes().await).unwrap();
        let id = answer.header("x-request-id").unwrap();
        for (key, value) in [
            ("client", Value::from("127.0.0.1")),
            ("method", Value::Null),
            ("path", Value::Null),
            ("status", status.into()),
            ("service", Value::Null),
            ("attempts", 0.into()),
            ("bytes", answer.body.len().into()),
            ("request_id", id.into()),
        ] {
            assert_eq!(line[key], value, "{key} in {line}");
        }
    }
}
