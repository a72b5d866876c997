//! Where a message ends, both ways.

use crate::support::{Gateway, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A node whose answers are these, one after the other, on however many connections.
async fn in_turn(answers: &'static [&'static str]) -> Upstream {
    let turn = std::rc::Rc::new(std::cell::Cell::new(0));
    Upstream::new(move |mut peer| {
        let turn = turn.clone();
        async move {
            while peer.request().await.is_some() {
                let answer = answers[turn.replace(turn.get() + 1) % answers.len()];
                peer.send(answer).await;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn head_keeps_its_length_and_has_no_body() {
    let upstream = in_turn(&["HTTP/1.1 200 OK\r\ncontent-length: 5000000000\r\n\r\n", OK]).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        let answer = client.ask("HEAD", "/", "").await;
        assert_eq!(answer.header("content-length"), Some("5000000000"));
        client.get("/").await.is_ok("hi");
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn head_without_a_length_gets_none() {
    for framing in ["", "transfer-encoding: chunked\r\n"] {
        let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\n{framing}\r\n")).await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        for _ in 0..3 {
            let answer = client.ask("HEAD", "/", "").await;
            assert_eq!(answer.header("content-length"), None);
            assert!(!answer.closes());
        }
    }
}

#[actix_web::test]
async fn a_204_has_neither_length_nor_body() {
    let upstream = in_turn(&[
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        OK,
    ])
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..4 {
        let answer = client.get("/").await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-type"), None);
    }
    client.get("/").await.is_ok("hi");
}

#[actix_web::test]
async fn a_304_keeps_the_length_it_tells_and_gets_none_it_does_not() {
    let upstream = in_turn(&[
        "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 5000\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 7\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
        OK,
    ])
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for length in [Some("5000"), Some("7"), None] {
        let answer = client.get("/").await;
        assert_eq!(
            (answer.status(), answer.header("etag")),
            (304, Some("\"x\""))
        );
        assert_eq!(answer.header("content-length"), length);
    }
    client.get("/").await.is_ok("hi");
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn an_interim_answer_is_not_taken_for_the_answer() {
    let upstream = Upstream::new(|mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\ncontent-length: 9\r\n\r\n")
                .await;
            tokio::task::yield_now().await;
            let path = request.start.split(' ').nth(1).unwrap();
            let length = path.len();
            peer.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}"
            ))
            .await;
        }
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for n in 0..20 {
        let target = format!("/{n}");
        let answer = client.get(&target).await;
        answer.is_ok(&target);
        assert_eq!(answer.header("link"), None);
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn who_waits_for_100_continue_gets_it_and_then_the_answer() {
    let upstream = Upstream::answering(OK).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for method in ["POST", "PUT"] {
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-Continue\r\n\r\n"))
            .await;
        assert_eq!(client.answer(method).await.status(), 100);
        client.send("body").await;
        client.answer(method).await.is_ok("hi");
    }
    for request in upstream.requests() {
        assert_eq!((request.text(), request.header("expect")), ("body", None));
    }
}

#[actix_web::test]
async fn chunks_go_both_ways() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\ntrailer: x-sum\r\n\r\n\
         5;ext=1\r\nhello\r\n00A\r\n, chunks!\n\r\n0\r\nx-sum: 1\r\n\r\n",
    )
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for method in ["POST", "PUT", "GET", "DELETE", "PATCH"] {
        let head =
            format!("{method} / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        client
            .send(head + "3;a=\"b\"\r\nabc\r\nB\r\ndefghijklmn\r\n0\r\nx-trailer: 1\r\n\r\n")
            .await;
        let answer = client.answer(method).await;
        answer.is_ok("hello, chunks!\n");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 5);
    for request in requests {
        assert_eq!(request.text(), "abcdefghijklmn", "{request:?}");
        assert_eq!(request.header("transfer-encoding"), Some("chunked"));
        assert_eq!(request.header("x-trailer"), None);
    }
}

#[actix_web::test]
async fn a_body_without_bytes_stays_what_it_is() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for (framing, length, coding) in [
        ("", None, None),
        ("content-length: 0\r\n\r\n", Some("0"), None),
        (
            "transfer-encoding: chunked\r\n\r\n0\r\n",
            None,
            Some("chunked"),
        ),
    ] {
        let count = upstream.count();
        client
            .send(format!("POST / HTTP/1.1\r\nhost: test\r\n{framing}\r\n"))
            .await;
        let answer = client.answer("POST").await;
        answer.is_ok("");
        assert_eq!(answer.header("content-length"), Some("0"));
        let request = &upstream.requests()[count];
        assert_eq!(request.header("content-length"), length);
        assert_eq!(request.header("transfer-encoding"), coding);
        assert_eq!(request.text(), "");
    }
}

#[actix_web::test]
async fn an_empty_chunked_answer_is_empty_and_chunked() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.get("/").await.is_ok("");
    }
}

#[actix_web::test]
async fn a_body_that_ends_with_the_nodes_connection_arrives_in_chunks() {
    for version in ["1.0", "1.1"] {
        let upstream =
            Upstream::closing_after(format!("HTTP/{version} 200 OK\r\n\r\nto the end")).await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            answer.is_ok("to the end");
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        }
        assert_eq!(upstream.connections(), 3);
    }
}

#[actix_web::test]
async fn a_node_that_speaks_http_1_0_is_understood() {
    let upstream = Upstream::answering(
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.get("/").await.is_ok("hi");
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn requests_sent_in_one_go_are_answered_in_their_order() {
    let upstream = Upstream::new(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let text = format!("{}{}", request.start, request.text());
            let length = text.len();
            peer.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
            ))
            .await;
        }
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let mut all = String::new();
    for n in 0..40 {
        all += &format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n");
        all += &format!("PUT /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi");
    }
    client.send(all).await;
    for n in 0..40 {
        client
            .answer("GET")
            .await
            .is_ok(format!("GET /{n} HTTP/1.1"));
        client
            .answer("PUT")
            .await
            .is_ok(format!("PUT /{n} HTTP/1.1hi"));
    }
}

#[actix_web::test]
async fn a_client_that_closes_is_told_that_the_connection_closes() {
    let upstream = Upstream::answering(OK).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let answer = client.ask("GET", "/", "connection: close\r\n").await;
    answer.is_ok("hi");
    assert!(answer.closes());
    client.ends().await;
    gateway.get("/").await.is_ok("hi");
    assert_eq!(
        upstream.connections(),
        1,
        "the node's connection is another one"
    );
}

#[actix_web::test]
async fn a_node_that_closes_does_not_close_the_clients_connection() {
    let upstream = Upstream::closing_after(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..20 {
        let answer = client.get("/").await;
        answer.is_ok("hi");
        assert!(!answer.closes());
    }
    assert_eq!(upstream.connections(), 20);
}

#[actix_web::test]
async fn a_reason_phrase_passes_on() {
    for line in ["600 Custom", "200 Fine by me", "404 Not Found", "299 "] {
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\nhi");
        let upstream = Upstream::answering(&answer).await;
        let answer = Gateway::of(&[&upstream]).await.get("/").await;
        assert_eq!(answer.start, format!("HTTP/1.1 {line}"));
    }
}
