//! Requests that two readers could read in two ways: the gateway refuses them, or what it sends on
//! can be read in one way only.

use crate::support::{Gateway, Upstream, Wire, is_refused_with, requests};

/// What must never be done.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";

#[actix_web::test]
async fn framing_in_two_ways_is_refused() {
    is_refused_with(400, &requests::unclear_framing()).await;
    is_refused_with(400, &requests::BROKEN_HEADS).await;
    is_refused_with(400, &requests::UPGRADES_WITH_A_BODY).await;
}

#[actix_web::test]
async fn a_head_that_is_too_large_is_refused() {
    is_refused_with(431, &requests::large_heads()).await;
    is_refused_with(414, &requests::long_targets()).await;
}

#[actix_web::test]
async fn a_body_is_never_read_as_a_request() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for method in ["GET", "POST", "DELETE", "OPTIONS", "HEAD"] {
        let mut client = gateway.connect().await;
        let length = HIDDEN.len();
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"
            ))
            .await;
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
            ))
            .await;
        client
            .send(format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"))
            .await;
        for _ in 0..2 {
            assert_eq!(client.answer(method).await.status(), 200, "{method}");
        }
    }
    for request in upstream.requests() {
        assert_eq!(request.text(), HIDDEN);
        assert!(request.start.ends_with(" / HTTP/1.1"));
    }
    assert_eq!(upstream.count(), 10);
}

#[actix_web::test]
async fn what_the_gateway_refuses_leaves_nothing_behind_for_the_next_request() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let length = HIDDEN.len();
    for framing in [
        format!("content-length: {length}\r\n\r\n{HIDDEN}"),
        format!("content-length: 1000\r\n\r\n{HIDDEN}"),
    ] {
        for head in [
            "POST /.. HTTP/1.1",
            "TRACE / HTTP/1.1",
            "POST https://a/ HTTP/1.1",
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

/// To some readers all that follows this head belongs to the protocol it asks for, to others it has
/// a body of chunks, and to others none.
fn upgrade_with_chunks(method: &str, protocol: &str) -> String {
    format!(
        "{method} / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
}

#[actix_web::test]
async fn an_upgrade_with_chunks_is_refused_or_a_request_that_ends_with_them() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let chunks = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let next = "GET /next HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    for (protocol, status) in [("websocket", 400), ("h2c", 200), ("websocket, h2c", 200)] {
        for method in ["GET", "POST", "DELETE"] {
            let head = upgrade_with_chunks(method, protocol);
            for pieces in [
                vec![format!("{head}{chunks}{next}")],
                vec![format!("{head}{chunks}"), next.into()],
                vec![head, chunks.clone(), next.into()],
            ] {
                upstream.forget();
                let mut client = gateway.connect().await;
                for piece in &pieces {
                    let _ = client.try_send(piece).await; // it may have been refused by now
                }
                assert_eq!(client.answer(method).await.status(), status, "{pieces:?}");
                let mut wanted = vec![(format!("{method} / HTTP/1.1"), HIDDEN.to_owned())];
                wanted.retain(|_| status == 200);
                // Closing the connection is an answer to the next one, too.
                if !client.rest().await.0.is_empty() {
                    wanted.push(("GET /next HTTP/1.1".into(), String::new()));
                }
                let got = upstream.requests().into_iter();
                let got = got.map(|got| (got.start.clone(), got.text().to_owned()));
                assert_eq!(got.collect::<Vec<_>>(), wanted, "{pieces:?}");
            }
        }
    }
}

#[actix_web::test]
async fn what_follows_an_upgrade_and_is_no_chunk_is_no_request_either() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for protocol in ["websocket", "h2c", "websocket, h2c"] {
        for method in ["GET", "POST", "DELETE"] {
            for junk in [
                "",
                "\r\n",
                "zz\r\n",
                "-1\r\n",
                "5\r\nhello",
                "5\nhello\r\n0\r\n\r\n",
            ] {
                let head = upgrade_with_chunks(method, protocol);
                let mut client = gateway.connect().await;
                client.send(format!("{head}{junk}{HIDDEN}{HIDDEN}")).await;
                let answers = client.rest().await.0;
                let answers = String::from_utf8(answers).unwrap();
                assert!(
                    answers.is_empty() || answers.starts_with("HTTP/1.1 400 "),
                    "{answers}"
                );
                assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{answers}");
            }
        }
    }
    upstream.has_open(0).await;
    for request in upstream.requests() {
        assert!(!request.whole, "{request:?}");
    }
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
