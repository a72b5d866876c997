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

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A node that responds to requests while `responds` is set, and to `/health` with this status always.
async fn hangs_unless(responds: Rc<Cell<bool>>, health: &'static str) -> Upstream {
    Upstream::new(move |mut peer: Peer| {
        let responds = responds.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.start.contains("/health") {
                    let head = format!("HTTP/1.1 {health}\r\ncontent-length: 0\r\n\r\n");
                    if peer.try_send(head).await.is_err() {
                        return;
                    }
                } else if responds.get() {
                    peer.send(OK).await;
                }
            }
        }
    })
    .await
}

/// What the gateway has against the node at this address.
async fn ejected_at(gateway: &Gateway, node: &Upstream) -> Value {
    let service = gateway.service().await;
    let mut instances = service["instances"].as_array().unwrap().iter();
    let address = node.address.to_string();
    let instance = instances.find(|instance| instance["instance"] == address.as_str());
    instance.unwrap()["ejected"].clone()
}

#[actix_web::test]
async fn lost_hedges_eject_a_node_whose_health_check_passes_and_a_request_unejects_it() {
    for path in ["/health", "off"] {
        let flags = format!("--hedge-after 300ms --probe-path {path} --probe-interval 50ms");
        let responds = Rc::new(Cell::new(false));
        let hung = hangs_unless(responds.clone(), "200 OK").await;
        let well = Upstream::answering(OK).await;
        let gateway = Gateway::with(&flags, &[&hung, &well]).await;
        gateway.knows(2).await;
        let mut client = gateway.connect().await;
        let mut sent = 0;
        while ejected_at(&gateway, &hung).await == Value::Null {
            client.get("/").await.is_ok("hi");
            sent += 1;
            assert!(sent <= 40);
        }
        assert_eq!(ejected_at(&gateway, &hung).await, "timeout");
        // Probes are hedged, so that none costs a request.
        until("two failed probes", async || {
            client.get("/").await.is_ok("hi");
            let service = gateway.service().await;
            let mut instances = service["instances"].as_array().unwrap().iter();
            instances.any(|instance| instance["failures"].as_u64() >= Some(7))
        })
        .await;
        assert_eq!(ejected_at(&gateway, &hung).await, "timeout");
        responds.set(true);
        until("its return", async || {
            client.get("/").await.is_ok("hi");
            ejected_at(&gateway, &hung).await == Value::Null
        })
        .await;
        assert_eq!(ejected_at(&gateway, &well).await, Value::Null);
    }
}

#[actix_web::test]
async fn timeouts_eject_where_nothing_can_be_hedged() {
    let hung = hangs_unless(Rc::default(), "200 OK").await;
    let well = Upstream::answering(OK).await;
    let flags = "--timeout 200ms --probe-path /health";
    let gateway = Gateway::with(flags, &[&hung, &well]).await;
    gateway.knows(2).await;
    let mut client = gateway.connect().await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(client.post("/", "body").await.status() == 504);
    }
    assert_eq!(failed, 5);
    assert_eq!(ejected_at(&gateway, &hung).await, "timeout");
}

/// A node that is as slow as every other one responds before its hedge does.
#[actix_web::test]
async fn hedges_that_are_lost_eject_no_node() {
    let slow = async || {
        Upstream::new(|mut peer| async move {
            while peer.request().await.is_some() {
                sleep(Duration::from_millis(500)).await;
                if peer.try_send(OK).await.is_err() {
                    return;
                }
            }
        })
        .await
    };
    let nodes = [slow().await, slow().await];
    let flags = "--hedge-after 250ms --timeout 10s";
    let gateway = Gateway::with(flags, &nodes.each_ref()).await;
    let mut client = gateway.connect().await;
    for _ in 0..12 {
        client.get("/").await.is_ok("hi");
    }
    for node in &nodes {
        assert_eq!(ejected_at(&gateway, node).await, Value::Null);
    }
}

#[actix_web::test]
async fn clients_that_leave_eject_no_node() {
    let hung = hangs_unless(Rc::default(), "200 OK").await;
    let gateway = Gateway::of(&[&hung]).await;
    for number in 1..=7 {
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        until("the request", async || hung.count() == number).await;
        drop(client);
        hung.has_open(0).await;
    }
    assert_eq!(ejected(&gateway).await, Value::Null);
}

/// The requests that probe the node get 500 from it, and their clients 200 from the other one.
#[actix_web::test]
async fn a_node_whose_health_check_fails_returns_by_a_request() {
    let works = Rc::new(Cell::new(false));
    let signal = works.clone();
    let liar = Upstream::new(move |mut peer: Peer| {
        let works = signal.clone();
        async move {
            while let Some(request) = peer.request().await {
                let status = match works.get() && !request.start.contains("/health") {
                    true => "200 OK",
                    false => "503 Unwell",
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi");
                if peer.try_send(head).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let well = Upstream::answering(OK).await;
    let flags = "--probe-path /health --probe-interval 50ms";
    let gateway = Gateway::with(flags, &[&liar, &well]).await;
    gateway.knows(2).await;
    let mut client = gateway.connect().await;
    let mut failed = 0;
    while ejected_at(&gateway, &liar).await == Value::Null {
        failed += usize::from(client.get("/").await.status() == 503);
    }
    assert_eq!(
        (failed, ejected_at(&gateway, &liar).await),
        (5, "failing".into())
    );
    until("a probe", async || {
        let answer = client.get("/").await;
        answer.is_ok("hi");
        answer.header("x-gateway-attempts") == Some("2")
    })
    .await;
    works.set(true);
    until("its return", async || {
        client.get("/").await.is_ok("hi");
        ejected_at(&gateway, &liar).await == Value::Null
    })
    .await;
}
