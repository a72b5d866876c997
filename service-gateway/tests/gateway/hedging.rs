//! What becomes of a request whose node keeps silent: another node is asked beside it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::{Gateway, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A node that reads requests and never answers.
async fn silent() -> Upstream {
    Upstream::new(|mut peer| async move { while peer.request().await.is_some() {} }).await
}

#[actix_web::test]
async fn another_node_is_asked_beside_one_that_keeps_silent() {
    for method in ["GET", "OPTIONS"] {
        let (silent, upstream) = (silent().await, Upstream::answering(OK).await);
        let gateway = Gateway::with("--hedge-after 100ms", &[&silent, &upstream]).await;
        let mut client = gateway.connect().await;
        let mut twice = 0;
        for _ in 0..4 {
            let began = Instant::now();
            client.send_with_body(method, "/", "body").await;
            let answer = client.answer(method).await;
            answer.is_ok("hi");
            if answer.header("x-gateway-attempts") == Some("2") {
                assert!(began.elapsed() >= Duration::from_millis(100), "too soon");
                twice += 1;
            }
        }
        assert!(twice > 0, "{method}");
        assert_eq!((silent.count(), upstream.count()), (twice, 4), "{method}");
        for request in [silent.requests(), upstream.requests()].concat() {
            assert_eq!(request.text(), "body");
        }
        let counted = gateway.metric("gateway_hedges_total").await;
        assert!((counted - twice as f64).abs() < 0.5, "{counted}");
        silent.has_open(0).await; // nobody waits for its answer any more
    }
}

#[actix_web::test]
async fn a_slow_answer_is_not_cut_off_for_the_node_that_was_asked_beside() {
    let silent = silent().await;
    let slow = Upstream::new(|mut peer| async move {
        while peer.request().await.is_some() {
            sleep(Duration::from_millis(300)).await;
            peer.send(OK).await;
        }
    })
    .await;
    let gateway = Gateway::with("--hedge-after 100ms", &[&slow, &silent]).await;
    let mut client = gateway.connect().await;
    for n in 1..=2 {
        let answer = client.get("/").await;
        answer.is_ok("hi");
        assert_eq!(answer.header("x-gateway-attempts"), Some("2"));
        assert_eq!(
            (slow.count(), silent.count()),
            (n, n),
            "each was first once"
        );
    }
}

#[actix_web::test]
async fn what_is_not_safe_is_never_hedged() {
    let large = "x".repeat((64 << 10) + 1);
    let nodes = [silent().await, silent().await];
    let flags = "--hedge-after 50ms --timeout 300ms";
    let gateway = Gateway::with(flags, &nodes.each_ref()).await;
    for (method, body) in [
        ("POST", "body"),
        ("PATCH", ""),
        ("PUT", "body"),
        ("PUT", large.as_str()),
        ("DELETE", ""),
        ("GET", large.as_str()),
    ] {
        let before = nodes[0].count() + nodes[1].count();
        let mut client = gateway.connect().await;
        client.send_with_body(method, "/", body).await;
        let answer = client.answer(method).await;
        answer.is_refused(504, "timeout", 1);
        assert_eq!(nodes[0].count() + nodes[1].count(), before + 1, "{method}");
    }
}

#[actix_web::test]
async fn a_websocket_handshake_is_never_hedged() {
    let nodes = [silent().await, silent().await];
    let flags = "--hedge-after 50ms --timeout 300ms";
    let gateway = Gateway::with(flags, &nodes.each_ref()).await;
    let mut client = gateway.connect().await;
    let fields = "host: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.send(format!("GET / HTTP/1.1\r\n{fields}")).await;
    let answer = client.answer("GET").await;
    answer.is_refused(504, "timeout", 1);
    assert_eq!(nodes[0].count() + nodes[1].count(), 1);
}

#[actix_web::test]
async fn a_request_has_one_hedge_at_most() {
    for (attempts, sent) in [(1, 1), (2, 2), (3, 2), (9, 2)] {
        let nodes = [silent().await, silent().await, silent().await];
        let flags = format!("--attempts {attempts} --hedge-after 50ms --timeout 500ms");
        let gateway = Gateway::with(&flags, &nodes.each_ref()).await;
        let answer = gateway.get("/").await;
        answer.is_refused(504, "timeout", sent);
        let asked = nodes.iter().filter(|node| node.count() == 1).count();
        assert_eq!(asked as u64, sent, "each of them once");
    }
}
