//! Requests behind others on one connection, and what is none.

use crate::support::{Gateway, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

#[actix_web::test]
async fn pipelined_methods_do_not_mix() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let head = GET.replace("GET", "HEAD");
    client
        .send([GET, &head, GET, &head, &head, GET].concat())
        .await;
    for method in ["GET", "HEAD", "GET", "HEAD", "HEAD", "GET"] {
        let answer = client.answer(method).await;
        assert_eq!(answer.header("content-length"), Some("2"));
        answer.is_ok(if method == "GET" { "hi" } else { "" });
    }
}

#[actix_web::test]
async fn nothing_is_served_behind_close() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for last in [
        GET.replace("\r\n\r\n", "\r\nconnection: x, close\r\n\r\n"),
        GET.replace("1.1", "1.0"),
    ] {
        upstream.forget();
        let mut client = gateway.connect().await;
        client.send([GET, &last, GET, GET].concat()).await;
        client.answer("GET").await.is_ok("hi");
        client.answer("GET").await.is_ok("hi");
        client.ends().await;
        assert_eq!(upstream.count(), 2);
    }
}

#[actix_web::test]
async fn junk_costs_no_response_that_is_due() {
    let body = "x".repeat(3_000_000);
    let upstream = Upstream::saying(&body).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\n{\"a\":1}";
    for (request, junk) in [
        (post, ""), // one byte more than its length
        (GET, "}"),
        (GET, "\0\0\0\r\n"),
        (GET, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        (
            GET,
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 2\r\n\r\n",
        ),
    ] {
        let mut client = gateway.connect().await;
        client.send([request, junk].concat()).await;
        client.answer("GET").await.is_ok(&body);
        let refused = client.answer("GET").await;
        refused.is_refused(400, "bad_request", 0);
        assert!(refused.closes(), "{junk:?}");
        client.ends().await;
    }
}

#[actix_web::test]
async fn a_silent_connection_gets_no_response() {
    let gateway = Gateway::with("--head-timeout 200ms", &[]).await;
    gateway.connect().await.ends().await;
}
