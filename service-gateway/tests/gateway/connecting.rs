//! Nodes that cannot be connected to in time, because connections to them are dropped.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Full, Gateway, Message, Upstream, Wire, until};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

const UPGRADE: &str =
    "GET /x HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// A gateway before a node with a full backlog and another one.
async fn before(flags: &str, full: &Full, upstream: &Upstream) -> Gateway {
    Gateway::before(flags, &[(full.address, ""), (upstream.address, "")]).await
}

/// What the admin port shows of the node at this address.
async fn instance(gateway: &Gateway, address: impl ToString) -> Value {
    let service = gateway.service().await;
    let mut instances = service["instances"].as_array().unwrap().iter();
    let address = address.to_string();
    let instance = instances.find(|instance| instance["instance"] == address.as_str());
    instance.unwrap().clone()
}

/// Sends POSTs until one had a second attempt. Returns how many.
async fn post_until_retried(client: &mut Wire) -> usize {
    for number in 1..=4 {
        let response = client.post("/", "body").await;
        response.is_ok("hi");
        if response.header("x-gateway-attempts") == Some("2") {
            return number;
        }
    }
    panic!("the full node has its turn");
}

#[actix_web::test]
async fn a_full_backlog_fails_no_request() {
    let full = Full::new().await;
    let large = "x".repeat(200_000);
    let streamed = "POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nfirst\r\n0\r\n\r\n";
    for (method, body) in [
        ("GET", ""),
        ("PUT", "body"),
        ("POST", "body"),
        ("POST", &large),
        ("STREAMED", "first"),
    ] {
        let upstream = Upstream::answering(OK).await;
        let gateway = before("--connect-timeout 1h --timeout 5s", &full, &upstream).await;
        let mut client = gateway.connect().await;
        let mut retried = 0;
        for _ in 0..4 {
            match method {
                "STREAMED" => client.send(streamed).await,
                _ => client.send_with_body(method, "/x", body).await,
            }
            let response = client.answer(method).await;
            response.is_ok("hi");
            retried += usize::from(response.header("x-gateway-attempts") == Some("2"));
        }
        assert!(retried > 0, "{method}");
        assert_eq!(upstream.count(), 4, "{method}: none is executed twice");
        let requests = upstream.requests();
        assert!(
            requests.iter().all(|request| request.text() == body),
            "{method}"
        );
    }
}

#[actix_web::test]
async fn a_full_backlog_fails_no_upgrade() {
    let full = Full::new().await;
    let upstream = Upstream::answering(SWITCHING).await;
    let gateway = before("--connect-timeout 1h --timeout 5s", &full, &upstream).await;
    let upgrades = (0..8).map(async |_| {
        let mut client = gateway.connect().await;
        client.send(UPGRADE).await;
        let response: Message = client.answer("GET").await;
        assert_eq!(response.status(), 101, "{response:?}");
    });
    join_all(upgrades).await;
    assert_eq!(upstream.count(), 8);
}

/// The connection is made when its SYN is sent again, a second later.
#[actix_web::test]
async fn a_lost_syn_fails_no_upgrade() {
    let full = Full::new().await;
    let gateway = Gateway::before("", &[(full.address, "")]).await;
    let mut client = gateway.connect().await;
    client.send(UPGRADE).await;
    until("the attempt", async || {
        gateway.metric("gateway_attempts_total").await > 0.5
    })
    .await;
    let (_node, _) = full.open(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(SWITCHING).await;
        }
    });
    assert_eq!(client.answer("GET").await.status(), 101);
}

#[actix_web::test]
async fn one_connect_timeout_does_not_eject() {
    let (full, upstream) = (Full::new().await, Upstream::answering(OK).await);
    let gateway = before("--connect-timeout 400ms", &full, &upstream).await;
    post_until_retried(&mut gateway.connect().await).await;
    until("the connect timeout", async || {
        instance(&gateway, full.address).await["failures"] == 1
    })
    .await;
    let instance = instance(&gateway, full.address).await;
    assert_eq!(instance["ejected"], Value::Null);
}

#[actix_web::test]
async fn five_connect_timeouts_in_a_row_eject() {
    let full = Full::new().await;
    let gateway = Gateway::before("--connect-timeout 50ms", &[(full.address, "")]).await;
    gateway.knows(1).await;
    for _ in 0..5 {
        let ejected = instance(&gateway, full.address).await["ejected"].clone();
        assert_eq!(ejected, Value::Null);
        gateway.get("/").await.is_refused(502, "connect_failed", 1);
    }
    let ejected = instance(&gateway, full.address).await["ejected"].clone();
    assert_eq!(ejected, "unreachable");
}

#[actix_web::test]
async fn a_slow_connection_has_the_health_checked() {
    let (full, upstream) = (Full::new().await, Upstream::answering(OK).await);
    let flags = "--connect-timeout 1h --probe-path /health --probe-interval 1h";
    let gateway = before(flags, &full, &upstream).await;
    let mut client = gateway.connect().await;
    until("the ejection", async || {
        client.post("/", "body").await.is_ok("hi");
        instance(&gateway, full.address).await["ejected"] == "silent"
    })
    .await;
}

#[actix_web::test]
async fn a_late_connection_is_kept_for_the_next_request() {
    let (full, upstream) = (Full::new().await, Upstream::answering(OK).await);
    let gateway = before("", &full, &upstream).await;
    let mut client = gateway.connect().await;
    let sent = post_until_retried(&mut client).await;
    let (late, waiting) = full.open(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(OK).await;
        }
    });
    until("the late connection", async || late.connections() > waiting).await;
    assert_eq!((late.count(), upstream.count()), (0, sent));
    for _ in 0..2 {
        client.post("/", "body").await.is_ok("hi");
    }
    assert_eq!((late.count(), upstream.count()), (1, sent + 1));
    assert_eq!(late.connections(), waiting + 1);
}

#[actix_web::test]
async fn a_lone_node_takes_nothing_from_the_budget() {
    let full = Full::new().await;
    let flags = "--connect-timeout 1h --timeout 500ms";
    let gateway = Gateway::before(flags, &[(full.address, "")]).await;
    let began = Instant::now();
    join_all((0..20).map(async |_| gateway.get("/").await.is_refused(504, "timeout", 1))).await;
    assert!(began.elapsed() >= Duration::from_millis(500));
    for (name, expected) in [
        ("gateway_attempts_total", 20.0),
        ("gateway_retries_total", 0.0),
        ("gateway_budget_refusals_total", 0.0),
    ] {
        let counted = gateway.metric(name).await;
        assert!((counted - expected).abs() < 0.5, "{name}: {counted}");
    }
}
