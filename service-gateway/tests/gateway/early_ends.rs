//! Answers that come before their request has ended, and clients that do not wait for theirs.

use std::future::pending;
use std::time::{Duration, Instant};

use crate::support::{Gateway, Peer, Upstream, within_limit};

const TOO_LARGE: &str =
    "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\ntoo large";

/// No limit of the gateway's ends anything here: what ends does so because the client has gone.
const PATIENT: &str = "--timeout 1h --idle-timeout 1h --client-timeout 1h";

const MANY: usize = 100 << 20;

#[actix_web::test]
async fn a_413_in_the_middle_of_an_upload_arrives() {
    for framing in [
        &format!("content-length: {MANY}"),
        "transfer-encoding: chunked",
    ] {
        let upstream = Upstream::new(|mut peer| async move {
            let request = peer.head().await.unwrap();
            assert_eq!(request.start, "POST / HTTP/1.1");
            peer.bytes(1000).await.unwrap();
            peer.send(TOO_LARGE).await;
        })
        .await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n"
            ))
            .await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
        let sent = client.send_until_answered(&piece, MANY).await;
        let answer = client.answer("POST").await;
        assert_eq!((answer.status(), answer.text()), (413, "too large"));
        assert!(answer.whole && sent < MANY);
        upstream.has_open(0).await;
    }
}

/// As simple clients do.
#[actix_web::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_early_answer() {
    let refusing = Upstream::new(|mut peer| async move {
        peer.bytes(300_000).await.unwrap(); // until actix has stopped reading, and begun again
        peer.send(TOO_LARGE).await;
    })
    .await;
    let silent = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        pending::<()>().await;
    })
    .await;
    for (node, flags, status) in [(&refusing, "", 413), (&silent, "--timeout 300ms", 504)] {
        let gateway = Gateway::with(flags, &[node]).await;
        let mut client = gateway.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
        for _ in 0..128 {
            client.send(&piece).await;
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.answer("POST").await.status(), status);
    }
}

/// What is left of a body with a length is read for a second and no longer, so a client that took
/// longer tries again.
#[actix_web::test]
async fn a_client_that_sends_all_of_a_length_at_once_gets_its_early_answer() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.bytes(300_000).await.unwrap();
        peer.send(TOO_LARGE).await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let (size, body) = (1 << 20, "x".repeat(1 << 20));
    let request = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n{body}");
    within_limit("a quick client", async {
        loop {
            let mut client = gateway.connect().await;
            let began = Instant::now();
            let sent = client.try_send(&request).await;
            if began.elapsed() < Duration::from_secs(1) {
                sent.unwrap();
                return assert_eq!(client.answer("POST").await.status(), 413);
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn an_early_answer_arrives_while_the_client_says_nothing_more() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
            .await;
        peer.rest().await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\npart")
        .await;
    let answer = client.answer("POST").await;
    assert_eq!((answer.status(), answer.text()), (403, "no"));
    assert!(
        answer.closes(),
        "the rest of the body must not be taken for a request"
    );
    upstream.has_open(0).await;
    client.ends().await;
}

#[actix_web::test]
async fn an_answer_that_begins_early_may_go_on_after_the_upload() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
            .await;
        let body = peer.bytes(8).await.unwrap();
        peer.send(body).await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\npart")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    client.send("part").await;
    assert_eq!(client.bytes(8).await.unwrap(), b"partpart");
}

/// A node that tells when a request's head has arrived, and sends `answer` then.
async fn node(answer: &'static str) -> Upstream {
    Upstream::new(move |mut peer: Peer| async move {
        peer.head().await.unwrap();
        peer.send(answer).await;
        peer.rest().await;
    })
    .await
}

#[actix_web::test]
async fn a_client_that_goes_while_waiting_frees_the_node() {
    let upstream = node("").await;
    let gateway = Gateway::with(PATIENT, &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    upstream.has_open(1).await;
    drop(client);
    upstream.has_open(0).await;
    within_limit("the count", async {
        while gateway.service().await["instances"][0]["in_flight"] != 0 {}
    })
    .await;
}

#[actix_web::test]
async fn a_client_that_closes_its_side_only_has_gone_too() {
    let upstream = node("").await;
    let gateway = Gateway::with(PATIENT, &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    upstream.has_open(1).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    upstream.has_open(0).await;
    client.ends().await;
}

#[actix_web::test]
async fn a_client_that_goes_in_the_middle_of_its_upload_frees_the_node() {
    for framing in [
        "content-length: 1000\r\n\r\npart",
        "transfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let upstream = Upstream::new(|mut peer| async move {
            peer.request().await; // what arrived of it
        })
        .await;
        let gateway = Gateway::with(PATIENT, &[&upstream]).await;
        let mut client = gateway.connect().await;
        client
            .send(format!("POST / HTTP/1.1\r\nhost: test\r\n{framing}"))
            .await;
        upstream.is_asked().await;
        drop(client);
        upstream.has_open(0).await;
        assert!(
            !upstream.request().whole,
            "half a body must not look like a whole one"
        );
    }
}

#[actix_web::test]
async fn a_client_that_goes_in_the_middle_of_its_download_frees_the_node() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        "HTTP/1.1 200 OK\r\n\r\npart",
    ] {
        let upstream = node(answer).await;
        let gateway = Gateway::with(PATIENT, &[&upstream]).await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        client.head().await.unwrap();
        drop(client);
        upstream.has_open(0).await;
    }
}

#[actix_web::test]
async fn a_client_that_goes_while_the_node_sends_all_it_can_frees_the_node() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
        while peer.try_send(&piece).await.is_ok() {}
    })
    .await;
    let gateway = Gateway::with(PATIENT, &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.bytes(1 << 20).await.unwrap();
    drop(client);
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn a_body_in_broken_chunks_is_never_a_whole_one_for_the_node() {
    for (method, piece) in [
        ("POST", "zz\r\n"),
        ("PUT", "4\r\nparty"),
        ("POST", "ffffffffffffffffff\r\n"),
    ] {
        let upstream = Upstream::new(|mut peer| async move {
            peer.request().await;
        })
        .await;
        let gateway = Gateway::with(PATIENT, &[&upstream]).await;
        let mut client = gateway.connect().await;
        let head =
            format!("{method} / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(head + "4\r\npart\r\n").await;
        upstream.is_asked().await;
        client.send(piece).await;
        client
            .answer(method)
            .await
            .is_refused(400, "bad_request", 1);
        client.ends().await;
        upstream.has_open(0).await;
        assert!(!upstream.request().whole);
    }
}

#[actix_web::test]
async fn a_held_body_that_does_not_arrive_in_time_is_a_408_without_an_attempt() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--client-timeout 300ms", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\npart")
        .await;
    client
        .answer("PUT")
        .await
        .is_refused(408, "slow_request", 0);
    assert_eq!(upstream.connections(), 0);
}

#[actix_web::test]
async fn an_upload_that_goes_on_may_take_longer_than_the_timeout() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::with("--timeout 1s", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 12\r\n\r\n")
        .await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send("x").await;
    }
    client.answer("POST").await.is_ok("thanks");
}
