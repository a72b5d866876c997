//! What clients may take: their time, connections, requests and bytes.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{Gateway, Message, Peer, Upstream, until};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn is_overloaded(answer: &Message) {
    answer.is_refused(503, "overloaded", 0);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// A node that takes requests and says nothing.
async fn silent() -> Upstream {
    Upstream::new(|mut peer: Peer| async move {
        peer.rest().await;
    })
    .await
}

#[actix_web::test]
async fn a_slow_head_is_a_408_be_it_the_first_or_a_later_one() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--head-timeout 200ms", &[&upstream]).await;
    for requests_before in [0, 1, 3] {
        let mut client = gateway.connect().await;
        for _ in 0..requests_before {
            client.get("/").await.is_ok("hi");
            sleep(Duration::from_millis(210)).await; // idle, which is no head
        }
        for piece in ["GET ", "/ HTTP", "/1.1\r\n", "host: "] {
            client.send(piece).await;
            sleep(Duration::from_millis(20)).await;
        }
        let answer = client.answer("GET").await;
        answer.is_refused(408, "slow_request", 0);
        assert!(answer.closes());
        client.ends().await;
    }
    let cut = gateway
        .metric("gateway_connections_cut_total{reason=\"head\"}")
        .await;
    assert!((cut - 3.0).abs() < 0.5, "{cut}");
    until("no connections", async || {
        gateway.metric("gateway_connections").await < 0.5
    })
    .await;
}

#[actix_web::test]
async fn a_connection_may_be_idle_for_so_long() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--keep-alive 300ms", &[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.get("/").await.is_ok("hi");
        sleep(Duration::from_millis(100)).await;
    }
    client.ends().await;
}

#[actix_web::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let upstream = Upstream::new(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            .await;
        while peer.try_send("x".repeat(65536)).await.is_ok() {}
    })
    .await;
    let gateway = Gateway::with("--client-timeout 300ms", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send(REQUEST).await;
    upstream.has_open(1).await;
    upstream.has_open(0).await;
    let cut = gateway
        .metric("gateway_connections_cut_total{reason=\"reading\"}")
        .await;
    assert!((cut - 1.0).abs() < 0.5, "{cut}");
}

#[actix_web::test]
async fn a_slow_answer_is_no_reason_to_cut_off_its_client() {
    let upstream = Upstream::new(|mut peer: Peer| async move {
        peer.request().await;
        sleep(Duration::from_millis(500)).await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            .await;
        sleep(Duration::from_millis(500)).await;
        peer.send("hi").await;
    })
    .await;
    let flags = "--client-timeout 200ms --head-timeout 200ms --keep-alive 200ms";
    let gateway = Gateway::with(flags, &[&upstream]).await;
    gateway.get("/").await.is_ok("hi");
}

#[actix_web::test]
async fn a_body_that_pauses_or_trickles_is_a_408() {
    let upstream = silent().await;
    let gateway = Gateway::with("--client-timeout 400ms", &[&upstream]).await;
    for (framing, piece) in [
        ("content-length: 1000", "x"),
        ("transfer-encoding: chunked", "1\r\nx\r\n"),
    ] {
        for pieces in [1, 7] {
            let mut client = gateway.connect().await;
            client
                .send(format!(
                    "POST / HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n"
                ))
                .await;
            for _ in 0..pieces {
                client.send(piece).await;
                sleep(Duration::from_millis(80)).await;
            }
            let answer = client.answer("POST").await;
            answer.is_refused(408, "slow_request", 1);
            client.ends().await;
            upstream.has_open(0).await;
        }
    }
}

/// While it is read, to be thrown away, an answer is safe.
#[actix_web::test]
async fn the_rest_of_a_body_that_nobody_wants_is_not_waited_for() {
    let gateway = Gateway::with("--route /a=test", &[]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST /b HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        .await;
    client.answer("POST").await.is_refused(404, "no_route", 0);
    client.ends().await;
}

#[actix_web::test]
async fn a_body_that_is_too_large_is_a_413() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::with("--max-body 1KiB", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.post("/", &"x".repeat(1024)).await.is_ok("thanks");

    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1025\r\n\r\n")
        .await;
    client.answer("POST").await.is_refused(413, "too_large", 0);
    assert_eq!(upstream.count(), 1, "nothing of it got to the node");

    let mut client = gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let piece = "x".repeat(512);
    for _ in 0..3 {
        client.send(format!("200\r\n{piece}\r\n")).await;
    }
    client.answer("POST").await.is_refused(413, "too_large", 1);
    assert!(
        upstream
            .requests()
            .iter()
            .filter(|request| request.whole)
            .count()
            == 1
    );
}

#[actix_web::test]
async fn one_request_too_many_is_refused_at_once_and_the_next_is_not() {
    let upstream = Upstream::new(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh")
            .await;
        peer.rest().await;
    })
    .await;
    let gateway = Gateway::with("--max-in-flight 1", &[&upstream]).await;
    let mut first = gateway.connect().await;
    first.send(REQUEST).await;
    first.head().await.unwrap();
    let mut second = gateway.connect().await;
    for _ in 0..3 {
        is_overloaded(&second.get("/").await);
    }
    drop(first);
    until("the first request's end", async || {
        gateway.metric("gateway_requests_in_flight").await < 0.5
    })
    .await;
    second.send(REQUEST).await;
    assert_eq!(second.head().await.unwrap().status(), 200);
}

#[actix_web::test]
async fn one_connection_too_many_is_told_so_and_closed() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--max-connections 1", &[&upstream]).await;
    let mut first = gateway.connect().await;
    first.get("/").await.is_ok("hi");
    let mut second = gateway.connect().await;
    let answer = second.get("/").await;
    is_overloaded(&answer);
    assert!(answer.closes());
    second.ends().await;
    first.get("/").await.is_ok("hi");
    drop(first);
    until("room", async || {
        gateway.metric("gateway_connections").await < 0.5
    })
    .await;
    gateway.get("/").await.is_ok("hi");
}

#[actix_web::test]
async fn a_body_beyond_the_held_bytes_is_streamed_and_not_repeated() {
    let silent = || Upstream::new(|mut peer: Peer| async move { drop(peer.request().await) });
    for (held, attempts) in [("64KiB", 2), ("5", 2), ("4", 1), ("0", 1)] {
        let nodes = [silent().await, silent().await];
        let flags = format!("--attempts 2 --held-bodies {held}");
        let gateway = Gateway::with(&flags, &[&nodes[0], &nodes[1]]).await;
        for _ in 0..2 {
            let mut client = gateway.connect().await;
            client.send_with_body("PUT", "/", "hello").await;
            let answer = client.answer("PUT").await;
            answer.is_refused(502, "bad_upstream", attempts);
        }
        let received = nodes.iter().flat_map(Upstream::requests);
        assert!(
            received
                .into_iter()
                .all(|request| request.body == *b"hello")
        );
    }
}
