//! Which nodes are set aside, which are not, and who is told.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::{Gateway, Peer, Refusing, Upstream, until};

const PROBED: &str = "--probe-path /health --probe-interval 50ms --hedge-after 50ms";

/// What the gateway has against the only node, `null` if nothing.
async fn ejected(gateway: &Gateway) -> Value {
    gateway.service().await["instances"][0]["ejected"].clone()
}

async fn counted(gateway: &Gateway, name: &str, reason: &str) -> f64 {
    let labels = format!("{{service=\"test\",reason=\"{reason}\"}}");
    gateway.metric(&(name.to_owned() + &labels)).await
}

/// A node that answers its first `answers` requests, and is silent from then on.
async fn falls_silent_after(answers: usize) -> Upstream {
    Upstream::new(move |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            if peer.seen() <= answers {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn a_node_that_answers_neither_users_nor_probes_is_set_aside_and_counted() {
    let node = falls_silent_after(1).await;
    let gateway = Gateway::with(PROBED, &[&node]).await;
    until("the newcomer's probe", async || node.count() == 1).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("the ejection", async || ejected(&gateway).await == "silent").await;
    for (name, reason, expected) in [
        ("gateway_nodes_ejected", "silent", 1.0),
        ("gateway_nodes_ejected", "failing", 0.0),
        ("gateway_ejections_total", "silent", 1.0),
        ("gateway_ejections_total", "unreachable", 0.0),
    ] {
        let number = counted(&gateway, name, reason).await;
        assert!((number - expected).abs() < 0.5, "{name} {reason}: {number}");
    }
}

#[actix_web::test]
async fn a_node_is_not_set_aside_for_a_probe_that_only_its_joining_caused() {
    let node = falls_silent_after(0).await;
    let gateway = Gateway::with("--probe-path /health --probe-interval 50ms", &[&node]).await;
    until("the probe", async || node.count() == 1).await;
    node.has_open(0).await; // it was given up
    assert_eq!(ejected(&gateway).await, Value::Null);
}

/// Users' requests are answered late, probes never.
#[actix_web::test]
async fn a_node_whose_users_get_answers_is_not_silent() {
    let node = Upstream::new(|mut peer: Peer| async move {
        while let Some(request) = peer.request().await {
            if request.start.contains("/health") {
                peer.rest().await;
                return;
            }
            sleep(Duration::from_millis(200)).await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                .await;
        }
    })
    .await;
    let gateway = Gateway::with(PROBED, &[&node]).await;
    let mut client = gateway.connect().await;
    for _ in 0..12 {
        client.get("/").await.is_ok("hi");
        assert_eq!(ejected(&gateway).await, Value::Null);
    }
    let requests = node.requests();
    let probes = requests.iter().filter(|r| r.start.contains("/health"));
    assert!(
        probes.count() >= 2,
        "the one for joining, and one for suspicion"
    );
}

#[actix_web::test]
async fn a_node_nobody_can_connect_to_is_set_aside_before_a_user_finds_out() {
    let refusing = Refusing::new();
    let gateway = Gateway::before(PROBED, &[(refusing.address, "")]).await;
    until("the ejection", async || {
        ejected(&gateway).await == "unreachable"
    })
    .await;
    assert!(gateway.metric("gateway_attempts_total").await < 0.5);
}

#[actix_web::test]
async fn a_node_that_takes_no_connections_is_not_back_for_an_answer_that_was_on_its_way() {
    let may_answer = Rc::new(Cell::new(false));
    let signal = may_answer.clone();
    let node = Upstream::new(move |mut peer: Peer| {
        let signal = signal.clone();
        async move {
            if peer.request().await.is_some() {
                until("the signal", async || signal.get()).await;
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
            }
        }
    })
    .await;
    let gateway = Gateway::with("--probe-interval 1h", &[&node]).await; // it comes back by no other way
    let mut early = gateway.connect().await;
    early.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    node.is_asked().await;
    let address = node.address;
    drop(node); // its connections stay
    until("refusals", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    let late = gateway.get("/").await;
    late.is_refused(502, "connect_failed", 1);
    assert_eq!(ejected(&gateway).await, "unreachable");
    may_answer.set(true);
    early.answer("GET").await.is_ok("hi");
    assert_eq!(ejected(&gateway).await, "unreachable");
}

#[actix_web::test]
async fn a_node_that_fails_is_set_aside_and_comes_back_when_it_is_well() {
    let node = Upstream::answering("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = Gateway::with("--probe-interval 50ms", &[&node]).await;
    let mut client = gateway.connect().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status(), 500);
    }
    assert_eq!(ejected(&gateway).await, "failing");
    until("its return", async || {
        ejected(&gateway).await == Value::Null
    })
    .await;
    assert!(counted(&gateway, "gateway_ejections_total", "failing").await > 0.5);
}

#[actix_web::test]
async fn who_breaks_off_uploads_or_is_slow_casts_no_doubt_on_the_node() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.bytes(1).await.unwrap();
        sleep(Duration::from_millis(20)).await; // and it has no more patience
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let head = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    for (number, more) in (1..=12).zip(["zz\r\n", ""].iter().cycle()) {
        let mut client = gateway.connect().await;
        client.send(format!("{head}4\r\npart\r\n")).await;
        until("the node to be asked", async || {
            upstream.connections() == number
        })
        .await;
        client.send(more).await;
        let status = client.answer("POST").await.status();
        assert!([400, 502].contains(&status), "{status}");
    }
    assert_eq!(ejected(&gateway).await, Value::Null);
}
