//! Requests that two readers could read in two ways: the gateway refuses them, or what it sends on
//! can be read in one way only.

use crate::support::{Gateway, Upstream, Wire, is_refused_with, requests};

#[actix_web::test]
async fn framing_in_two_ways_is_refused() {
    is_refused_with(400, &requests::unclear_framing()).await;
    is_refused_with(400, &requests::BROKEN_HEADS).await;
    is_refused_with(400, &requests::UPGRADES_WITH_A_BODY).await;
}

#[actix_web::test]
async fn a_head_that_is_too_large_is_refused() {
    is_refused_with(431, &requests::large_heads()).await;
}

#[actix_web::test]
async fn a_body_is_never_read_as_a_request() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";
    for method in ["GET", "POST", "DELETE", "OPTIONS", "HEAD"] {
        let mut client = gateway.connect().await;
        let length = hidden.len();
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ))
            .await;
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
            ))
            .await;
        client
            .send(format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"))
            .await;
        for _ in 0..2 {
            assert_eq!(client.answer(method).await.status(), 200, "{method}");
        }
    }
    for request in upstream.requests() {
        assert_eq!(request.text(), hidden);
        assert!(request.start.ends_with(" / HTTP/1.1"));
    }
    assert_eq!(upstream.count(), 10);
}

#[actix_web::test]
async fn what_the_gateway_refuses_leaves_nothing_behind_for_the_next_request() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";
    let length = hidden.len();
    for framing in [
        format!("content-length: {length}\r\n\r\n{hidden}"),
        format!("content-length: 1000\r\n\r\n{hidden}"),
    ] {
        for head in [
            "POST /.. HTTP/1.1",
            "TRACE / HTTP/1.1",
            "POST http://a/ HTTP/1.1",
        ] {
            let mut client: Wire = gateway.connect().await;
            client
                .send(format!("{head}\r\nhost: test\r\n{framing}"))
                .await;
            assert!(client.answer("POST").await.status() >= 400);
            let _ = client
                .try_send("GET /second HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
                .await;
            client.rest().await;
        }
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.start == "GET /second HTTP/1.1")
    );
}

#[actix_web::test]
async fn odd_but_clear_requests_have_one_reading_for_the_node() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for (request, start, body) in requests::CLEAR {
        upstream.forget();
        let mut client = gateway.connect().await;
        client.send(request).await;
        client.answer("GET").await.is_ok("hi");
        let got = upstream.request();
        assert_eq!(
            (got.start.as_str(), got.text()),
            (start, body),
            "{request:.99?}"
        );
    }
}

#[actix_web::test]
async fn the_largest_length_is_just_a_long_body() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send(
            "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        peer.rest().await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    for length in [
        "18446744073709551615",
        "18446744073709551614",
        "9223372036854775808",
    ] {
        let mut client = gateway.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\nhi"
            ))
            .await;
        let status = client.answer("POST").await.status();
        assert!([400, 413].contains(&status), "{length}: {status}");
    }
    gateway.get("/").await;
}
