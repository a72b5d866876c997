//! Clients that speak HTTP/1.0.

use crate::support::{Gateway, Upstream};

const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n you\r\n0\r\n\r\n";

#[actix_web::test]
async fn chunks_do_not_reach_them() {
    let upstream = Upstream::answering(CHUNKED.replace("3\r\n you", "4\r\n you")).await;
    let gateway = Gateway::of(&[&upstream]).await;
    for connection in ["", "connection: keep-alive\r\n"] {
        let mut client = gateway.connect().await;
        client
            .send(format!("GET / HTTP/1.0\r\n{connection}\r\n"))
            .await;
        let answer = client.answer("GET").await; // up to the connection's end
        answer.is_ok("hi you");
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-length"), None);
        assert_ne!(answer.header("connection"), Some("keep-alive"));
    }
}

#[actix_web::test]
async fn their_connection_ends_with_the_answer_unless_they_ask_to_keep_it() {
    let upstream = Upstream::answering(SIZED).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.answer("GET").await.is_ok("hi");
    client.ends().await;

    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client
            .send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let answer = client.answer("GET").await;
        answer.is_ok("hi");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    // The node's side is HTTP/1.1 in any case.
    let requests = upstream.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.start == "GET / HTTP/1.1"),
        "{requests:?}"
    );
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn they_need_no_host_and_the_node_gets_its_own() {
    let upstream = Upstream::answering(SIZED).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.answer("GET").await.is_ok("hi");
    let request = upstream.request();
    assert_eq!(
        request.header("host"),
        Some(upstream.address.to_string().as_str())
    );
    assert_eq!(request.header("x-forwarded-host"), None);
}

#[actix_web::test]
async fn a_body_with_a_length_goes_on() {
    let upstream = Upstream::answering(SIZED).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST /x HTTP/1.0\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    client.answer("POST").await.is_ok("hi");
    assert_eq!(upstream.request().text(), "body");
}

#[actix_web::test]
async fn answers_without_a_body_keep_their_connection_usable() {
    let upstream = Upstream::answering("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for method in ["GET", "HEAD", "GET"] {
        client
            .send(format!(
                "{method} / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer(method).await.status(), 304);
    }
}

#[actix_web::test]
async fn they_get_the_gateways_own_answers_too() {
    let gateway = Gateway::of(&[]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.answer("GET").await.is_refused(503, "no_instance", 0);
    client.ends().await;
}
