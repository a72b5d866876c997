//! Which requests go to another node when one fails, and how often.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::{Full, Gateway, Message, Refusing, Upstream, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A node that reads a request and closes its connection without a word.
async fn silent() -> Upstream {
    Upstream::closing_after("").await
}

/// A gateway before these nodes; the one that is asked first changes from request to request.
async fn before(flags: &str, nodes: &[SocketAddr]) -> Gateway {
    let nodes: Vec<_> = nodes.iter().map(|address| (*address, "")).collect();
    Gateway::before(flags, &nodes).await
}

fn attempts(answer: &Message) -> usize {
    answer
        .header("x-gateway-attempts")
        .unwrap()
        .parse()
        .unwrap()
}

/// A POST whose body has no known length and is sent in two parts.
async fn streamed_post(client: &mut Wire) -> Message {
    client
        .send("POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await;
    client.send("8\r\n, second\r\n0\r\n\r\n").await;
    client.answer("POST").await
}

#[actix_web::test]
async fn a_refused_connection_costs_no_request_of_any_kind() {
    let large = "x".repeat(200_000);
    for kind in [
        "GET",
        "PUT",
        "POST",
        "large PUT",
        "large POST",
        "streamed POST",
        "PATCH",
    ] {
        let (refusing, upstream) = (Refusing::new(), Upstream::answering(OK).await);
        let gateway = before("", &[refusing.address, upstream.address]).await;
        let mut client = gateway.connect().await;
        let mut seen = BTreeSet::new();
        // Whoever refused is set aside, so a few requests are enough to meet it.
        for _ in 0..4 {
            let (method, body) = match kind.strip_prefix("large ") {
                Some(method) => (method, large.as_str()),
                None => (kind, "body"),
            };
            let (answer, body) = match kind {
                "GET" => (client.get("/x").await, ""),
                "streamed POST" => (streamed_post(&mut client).await, "first, second"),
                _ => {
                    client.send_with_body(method, "/x", body).await;
                    (client.answer(method).await, body)
                }
            };
            answer.is_ok("hi");
            seen.insert(attempts(&answer));
            assert_eq!(upstream.requests().last().unwrap().text(), body, "{kind}");
        }
        assert!(seen.contains(&2), "{kind}: {seen:?}");
        assert_eq!(upstream.count(), 4, "{kind}: no request was executed twice");
    }
}

#[actix_web::test]
async fn what_may_be_repeated_goes_to_another_node_when_a_connection_breaks() {
    for (method, body) in [
        ("GET", ""),
        ("HEAD", ""),
        ("OPTIONS", ""),
        ("DELETE", ""),
        ("PUT", "body"),
        ("PUT", &"x".repeat(64 << 10)),
        ("DELETE", "body"),
    ] {
        let (broken, upstream) = (silent().await, Upstream::answering(OK).await);
        let gateway = before("", &[broken.address, upstream.address]).await;
        let mut client = gateway.connect().await;
        let mut twice = 0;
        for _ in 0..4 {
            client.send_with_body(method, "/x", body).await;
            let answer = client.answer(method).await;
            assert_eq!(answer.status(), 200);
            twice += usize::from(attempts(&answer) == 2);
        }
        assert!(twice > 0, "{method}");
        assert_eq!((broken.count(), upstream.count()), (twice, 4), "{method}");
        for request in [broken.requests(), upstream.requests()].concat() {
            assert!(request.whole && request.text() == body, "{method}");
        }
    }
}

#[actix_web::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let large = "x".repeat((64 << 10) + 1);
    for (method, body) in [
        ("POST", ""),
        ("POST", "body"),
        ("PATCH", "body"),
        ("PUT", large.as_str()),
        ("LOCK", ""),
    ] {
        let (one, other) = (silent().await, silent().await);
        let gateway = before("", &[one.address, other.address]).await;
        let mut client = gateway.connect().await;
        for n in 1..4 {
            client.send_with_body(method, "/", body).await;
            client
                .answer(method)
                .await
                .is_refused(502, "bad_upstream", 1);
            assert_eq!(one.count() + other.count(), n, "{method}");
        }
    }
    let (one, other) = (silent().await, silent().await);
    let gateway = before("", &[one.address, other.address]).await;
    streamed_post(&mut gateway.connect().await)
        .await
        .is_refused(502, "bad_upstream", 1);
    assert_eq!(one.count() + other.count(), 1);
}

#[actix_web::test]
async fn an_answer_is_never_asked_for_again_whatever_its_status() {
    for status in [
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let answer =
            format!("HTTP/1.1 {status}\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nsick");
        let (one, other) = (
            Upstream::answering(answer.clone()).await,
            Upstream::answering(answer).await,
        );
        let gateway = before("", &[one.address, other.address]).await;
        let answer = gateway.get("/").await;
        assert_eq!(answer.start, format!("HTTP/1.1 {status}"));
        assert_eq!(
            (answer.text(), answer.header("retry-after")),
            ("sick", Some("7"))
        );
        assert_eq!(attempts(&answer), 1);
        assert_eq!(one.count() + other.count(), 1);
    }
}

#[actix_web::test]
async fn no_node_is_asked_twice_for_one_request() {
    let nodes = [silent().await, silent().await, silent().await];
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let gateway = before("--attempts 9", &addresses).await;
    gateway.get("/").await.is_refused(502, "bad_upstream", 3);
    assert_eq!(nodes.each_ref().map(Upstream::count), [1, 1, 1]);

    let refusing = [Refusing::new(), Refusing::new(), Refusing::new()];
    let gateway = before(
        "--attempts 9",
        &refusing.each_ref().map(|node| node.address),
    )
    .await;
    gateway
        .connect()
        .await
        .post("/", "body")
        .await
        .is_refused(502, "connect_failed", 3);
}

#[actix_web::test]
async fn no_request_has_more_attempts_than_allowed() {
    for (flags, limit) in [
        ("", 3),
        ("--attempts 1", 1),
        ("--attempts 2", 2),
        ("--attempts 4", 4),
    ] {
        let refusing: Vec<_> = (0..5).map(|_| Refusing::new()).collect();
        let addresses: Vec<_> = refusing.iter().map(|node| node.address).collect();
        let gateway = before(flags, &addresses).await;
        gateway
            .get("/")
            .await
            .is_refused(502, "connect_failed", limit);
        let counted = gateway.metric("gateway_attempts_total").await;
        assert!((counted - limit as f64).abs() < 0.5, "{counted}");
    }
}

#[actix_web::test]
async fn further_attempts_end_with_the_budget_and_that_is_counted_once() {
    let refusing: Vec<_> = (0..100).map(|_| Refusing::new()).collect();
    let addresses: Vec<_> = refusing.iter().map(|node| node.address).collect();
    let gateway = before("--attempts 100", &addresses).await;
    gateway.knows(100).await;
    let answer = gateway.get("/").await;
    let made = attempts(&answer); // one, ten that it may have in any case, and what time has added
    assert!((11..100).contains(&made), "{made}");
    answer.is_refused(502, "connect_failed", made as u64);
    for (name, number) in [
        ("gateway_attempts_total", made),
        ("gateway_retries_total", made - 1),
        ("gateway_budget_refusals_total", 1),
    ] {
        let counted = gateway.metric(name).await;
        assert!((counted - number as f64).abs() < 0.5, "{name}: {counted}");
    }
}

#[actix_web::test]
async fn each_service_has_a_budget_of_its_own() {
    let refusing: Vec<_> = (0..60).map(|_| Refusing::new()).collect();
    let nodes: Vec<_> = refusing.iter().map(|node| (node.address, "")).collect();
    let flags = "--attempts 100 --route /one=test,/other=other";
    let mut gateway = Gateway::before(flags, &nodes[..30]).await;
    for (address, _) in &nodes[30..] {
        gateway.join("other", *address, "").await;
    }
    gateway.knows(60).await;
    let mut made = Vec::new();
    for target in ["/one", "/other"] {
        made.push(attempts(&gateway.get(target).await));
    }
    assert!(made.iter().all(|made| *made >= 11), "{made:?}");
}

#[actix_web::test]
async fn a_node_that_cannot_be_reached_in_time_counts_as_refusing() {
    let (full, upstream) = (Full::new().await, Upstream::answering(OK).await);
    let nodes = [full.address, upstream.address];
    let gateway = before("--connect-timeout 200ms", &nodes).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.post("/", "body").await.is_ok("hi");
    }
    let gateway = before("--connect-timeout 200ms", &[full.address]).await;
    gateway.get("/").await.is_refused(502, "connect_failed", 1);
}

#[actix_web::test]
async fn a_node_that_left_is_not_asked_any_more_and_one_that_joined_is() {
    let (one, other) = (Upstream::answering(OK).await, Upstream::answering(OK).await);
    let mut gateway = before("", &[one.address]).await;
    let mut client = gateway.connect().await;
    client.get("/").await.is_ok("hi");
    gateway.forget_nodes();
    gateway.knows(0).await;
    client.get("/").await.is_refused(503, "no_instance", 0);
    gateway.join("test", other.address, "").await;
    gateway.knows(1).await;
    client.get("/").await.is_ok("hi");
    assert_eq!((one.count(), other.count()), (1, 1));
}

#[actix_web::test]
async fn nodes_take_turns() {
    let nodes = [
        Upstream::answering(OK).await,
        Upstream::answering(OK).await,
        Upstream::answering(OK).await,
    ];
    let gateway = Gateway::of(&nodes.each_ref()).await;
    let mut client = gateway.connect().await;
    for _ in 0..30 {
        client.get("/").await.is_ok("hi");
    }
    assert_eq!(nodes.each_ref().map(Upstream::count), [10, 10, 10]);
}
