//! Pipelined requests: each gets its own response, whole, and nothing behind a close is processed.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use discovery::MemoryRegistry;
use pipelines::{Node, Options, run};

use crate::support::{Gateway, Wire, greeter};

const REQUESTS: usize = 30_000;

async fn node() -> Node {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Node::start(address).await.unwrap()
}

#[actix_web::test]
async fn random_pipelines_get_their_responses() {
    let nodes = [node().await, node().await];
    let addresses = nodes.each_ref().map(|node| (node.address, ""));
    let gateway = Gateway::before("--workers 2", &addresses).await;
    let options = Options {
        requests: REQUESTS,
        seed: pipelines::seed(),
        limit: Duration::from_secs(20),
        ..Options::default()
    };
    let summary = run(gateway.address, options).await;
    let summary = summary.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{summary:?}");
    assert!(summary.unprocessed * 4 < summary.requests, "{summary:?}");
    assert_eq!(nodes.iter().map(Node::forbidden).sum::<usize>(), 0);
}

/// Sends the pieces over a connection of its own, each in a segment.
async fn sent(gateway: &Gateway, pieces: &[&str]) -> Wire {
    let mut client = gateway.connect().await;
    for piece in pieces {
        client.send(piece).await;
    }
    client
}

#[actix_web::test]
async fn a_head_behind_a_get_leaves_its_body() {
    let registry = MemoryRegistry::default();
    greeter(&registry, "version=v1").await;
    let gateway = Gateway::following("--route /greeter=greeter", registry);
    gateway.knows(1).await;
    let get = "GET /greeter/greet/Ada HTTP/1.1\r\nHost: t\r\n\r\n";
    let head = "HEAD /greeter/greet/Bob HTTP/1.1\r\nHost: t\r\n\r\n";
    for pieces in [&[&*format!("{get}{head}")][..], &[get, head]] {
        let mut client = sent(&gateway, pieces).await;
        let greeting = client.answer("GET").await;
        assert!(greeting.text().contains("Hello, Ada!"), "{greeting:?}");
        assert_eq!(client.answer("HEAD").await.status(), 200);
    }
}

#[actix_web::test]
async fn a_head_behind_a_slow_get_leaves_its_body() {
    let node = node().await;
    let gateway = Gateway::before("", &[(node.address, "")]).await;
    for number in 0..20 {
        let get = format!("GET /slow/{number} HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = "HEAD /sized/x HTTP/1.1\r\nHost: t\r\n\r\n";
        let mut client = sent(&gateway, &[&get, head]).await;
        let response = client.answer("GET").await;
        assert!(
            response.text().starts_with(&format!("{number} GET 0 ")),
            "{response:?}"
        );
        assert_eq!(client.answer("HEAD").await.status(), 200);
    }
}

#[actix_web::test]
async fn junk_behind_a_body_follows_its_response() {
    let node = node().await;
    let gateway = Gateway::before("", &[(node.address, "")]).await;
    for junk in ["}", "}\r\n\r\n", "\0\0\r\n\r\n"] {
        let post = "POST /sized/1 HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\n{\"a\":1";
        let mut client = sent(&gateway, &[&format!("{post}{junk}")]).await;
        let response = client.answer("POST").await;
        assert_eq!(response.status(), 200, "{response:?}");
        assert!(response.text().starts_with("1 POST 6 "), "{response:?}");
        let refusal = client.answer("POST").await;
        refusal.is_refused(400, "bad_request", 0);
        assert!(refusal.closes(), "{refusal:?}");
        client.ends().await;
    }
}

#[actix_web::test]
async fn a_request_behind_a_close_is_not_processed() {
    let node = node().await;
    let gateway = Gateway::before("", &[(node.address, "")]).await;
    let closing = [
        "GET /sized/1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        "GET /sized/1 HTTP/1.1\r\nHost: t\r\nConnection: x, close\r\n\r\n",
        "GET /sized/1 HTTP/1.0\r\n\r\n",
    ];
    let next = "GET /forbidden/2 HTTP/1.1\r\nHost: t\r\n\r\n";
    for first in closing {
        for pieces in [&[&*format!("{first}{next}")][..], &[first, next]] {
            let mut client = sent(&gateway, pieces).await;
            assert_eq!(client.answer("GET").await.status(), 200, "{first}");
            client.ends().await;
        }
    }
    assert_eq!(node.forbidden(), 0);
}
