//! Upgrades to WebSocket, those that are refused, and those that only look like one.

use discovery::MemoryRegistry;
use futures_util::future::join_all;

use crate::support::{Gateway, Message, Peer, Upstream, Wire, greeter};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A node that agrees to every upgrade and goes on like this.
async fn agreeing<F: Future<Output = ()>>(then: impl Fn(Peer) -> F + Copy + 'static) -> Upstream {
    Upstream::new(move |mut peer| async move {
        peer.request().await.unwrap();
        peer.send(AGREED).await;
        then(peer).await;
    })
    .await
}

async fn upgraded(gateway: &Gateway) -> (Wire, Message) {
    let mut client = gateway.connect().await;
    client.send(UPGRADE).await;
    let answer = client.answer("GET").await;
    assert_eq!(answer.status(), 101, "{answer:?}");
    (client, answer)
}

#[actix_web::test]
async fn an_upgrade_passes_through_and_then_bytes_do_both_ways() {
    let upstream = agreeing(|mut peer| async move {
        peer.send("first").await; // nobody asked
        for n in 0..100_usize {
            let bytes = peer.bytes(n + 1).await.unwrap();
            peer.send(bytes).await;
        }
        peer.ends().await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let (mut client, answer) = upgraded(&gateway).await;
    for (name, value) in [
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("x-gateway-attempts", "1"),
        ("x-served-by", &upstream.address.to_string()),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(
        answer
            .header("connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(
        (
            answer.header("content-length"),
            answer.header("transfer-encoding")
        ),
        (None, None)
    );
    assert_eq!(client.bytes(5).await.unwrap(), b"first");
    for n in 0..100 {
        let bytes: Vec<u8> = (0..=n).collect();
        client.send(&bytes).await;
        assert_eq!(client.bytes(bytes.len()).await.unwrap(), bytes);
    }
    let request = upstream.request();
    assert_eq!(request.start, "GET /chat HTTP/1.1");
    assert_eq!(request.header("connection"), Some("upgrade"));
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert_eq!(
        request.header("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[actix_web::test]
async fn an_upgrade_as_firefox_sends_it_passes_through() {
    let upstream = agreeing(|mut peer| async move { peer.send("hi").await }).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let connection = "connection: keep-alive, Upgrade";
    client
        .send(UPGRADE.replace("connection: Upgrade", connection))
        .await;
    assert_eq!(client.answer("GET").await.status(), 101);
    assert_eq!(client.bytes(2).await.unwrap(), b"hi");
}

#[actix_web::test]
async fn megabytes_pass_through_both_ways_at_once() {
    let upstream = agreeing(|mut peer| async move {
        let (mut reader, mut writer) = peer.stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let (mut client, _) = upgraded(&gateway).await;
    let sent: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let (mut reader, mut writer) = client.stream.split();
    let mut got = vec![0; sent.len()];
    let sending = tokio::io::AsyncWriteExt::write_all(&mut writer, &sent);
    let reading = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut got);
    let (written, read) =
        crate::support::within_limit("the echo", async { tokio::join!(sending, reading) }).await;
    written.unwrap();
    read.unwrap();
    assert!(got == sent);
}

#[actix_web::test]
async fn a_client_that_closes_ends_the_nodes_connection() {
    let upstream = agreeing(|mut peer| async move {
        assert_eq!(peer.rest().await.0, b"bye");
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let (mut client, _) = upgraded(&gateway).await;
    upstream.has_open(1).await;
    client.send("bye").await;
    drop(client);
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn a_node_that_closes_ends_the_clients_connection() {
    let upstream = agreeing(|mut peer| async move { peer.send("bye").await }).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let (mut client, _) = upgraded(&gateway).await;
    assert_eq!(client.rest().await.0, b"bye");
    let in_flight = async || gateway.service().await["instances"][0]["in_flight"] == 0;
    crate::support::until("the end of the tunnel", in_flight).await;
}

#[actix_web::test]
async fn a_gateway_that_leaves_hangs_up_when_the_node_is_quiet() {
    let upstream = agreeing(|mut peer| async move {
        peer.bytes(1).await.unwrap();
        peer.send("yes").await;
        peer.ends().await;
    })
    .await;
    let mut gateway = Gateway::with("--shutdown-timeout 1h", &[&upstream]).await;
    let (mut client, _) = upgraded(&gateway).await;
    gateway.stop();
    client.send("?").await;
    assert_eq!(client.rest().await.0, b"yes");
    gateway.ended().await;
    upstream.has_open(0).await;
}

async fn is_refused_whole(answer: &str, status: u16, body: &str) {
    let upstream = Upstream::closing_after(answer).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send(UPGRADE).await;
    // What a client may not send before the node agreed is not taken for a request.
    client
        .send("GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    let answer = client.answer("GET").await;
    assert_eq!(
        (answer.status(), answer.text()),
        (status, body),
        "{answer:?}"
    );
    assert_eq!(
        (answer.whole, answer.header("upgrade")),
        (true, None),
        "{answer:?}"
    );
    assert!(answer.closes(), "{answer:?}");
    assert_eq!(client.rest().await.0, b"");
    assert_eq!(upstream.count(), 1);
}

#[actix_web::test]
async fn a_refused_upgrade_arrives_whole_and_ends_the_connection() {
    // At once, for each connection goes on for a second: who still sends is to read the answer first.
    join_all([
        is_refused_whole(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
            403,
            "no",
        ),
        is_refused_whole(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
            200,
            "yes",
        ),
        is_refused_whole(
            "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
            426,
            "",
        ),
        is_refused_whole(
            "HTTP/1.1 404 Not Found\r\n\r\nto the end",
            404,
            "to the end",
        ),
        is_refused_whole("HTTP/1.1 304 Not Modified\r\n\r\n", 304, ""),
    ])
    .await;
}

#[actix_web::test]
async fn an_upgrade_that_others_would_not_take_for_one_is_a_400() {
    let upstream = Upstream::answering(AGREED).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let is_refused = async |request: String| {
        let mut client = gateway.connect().await;
        let hidden = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";
        client.send(request.clone() + hidden).await;
        let method = request.split(' ').next().unwrap();
        let answer = client.answer(method).await;
        assert_eq!(answer.status(), 400, "{request}");
        assert_eq!(client.rest().await.0, b"", "{request}");
    };
    join_all([
        is_refused(UPGRADE.replace("connection: Upgrade", "connection: upgrade, close")),
        is_refused(UPGRADE.replace("GET", "POST")),
        is_refused(UPGRADE.replace("GET", "HEAD")),
        is_refused(UPGRADE.replace("HTTP/1.1", "HTTP/1.0")),
        is_refused(UPGRADE.replace("host:", "content-length: 37\r\nhost:")),
        is_refused(UPGRADE.replace("host:", "content-length: 0\r\nhost:")),
        is_refused(UPGRADE.replace("host:", "upgrade: h2c\r\nhost:")),
    ])
    .await;
    assert_eq!(upstream.count(), 0);
}

#[actix_web::test]
async fn upgrade_without_connection_is_not_passed_on() {
    let upstream = Upstream::new(|mut peer| async move {
        let head = peer.head().await.unwrap();
        for name in ["upgrade", "connection"] {
            assert_eq!(head.header(name), None);
        }
        if head.start.starts_with("POST") {
            assert_eq!(peer.bytes(2).await.unwrap(), b"hi");
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nplain")
            .await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let without = UPGRADE.replace("connection: Upgrade\r\n", "");
    for request in [
        without.clone(),
        UPGRADE.replace("connection: Upgrade", "connection: keep-alive"),
        UPGRADE.replace("connection: Upgrade", "connection: x-upgrade"),
        without
            .replace("GET", "POST")
            .replace("host:", "content-length: 2\r\nhost:")
            + "hi",
    ] {
        let mut client = gateway.connect().await;
        client.send(&request).await;
        client.answer("GET").await.is_ok("plain");
    }
    assert_eq!(upstream.connections(), 4);
}

#[actix_web::test]
async fn an_upgrade_to_something_else_is_an_ordinary_request() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::of(&[&upstream]).await;
        for upgrade in ["h2c", "websocket, h2c", "TLS/1.0", "websocket/13"] {
            let headers = format!(
                "connection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\nhttp2-settings: x\r\n"
            );
            let answer = gateway.connect().await.ask("GET", "/", &headers).await;
            answer.is_ok("hi");
            let request = upstream.requests().pop().unwrap();
            for name in ["upgrade", "connection", "http2-settings"] {
                assert_eq!(request.header(name), None);
            }
        }
        let headers = "connection: upgrade\r\nupgrade: h2c\r\n";
        let mut client = gateway.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n{headers}\r\nbody"
            ))
            .await;
        client.answer("POST").await.is_ok("hi");
        assert_eq!(upstream.requests().pop().unwrap().text(), "body");
    }
}

#[actix_web::test]
async fn an_upgrade_goes_to_another_node_when_one_refuses_the_connection() {
    let refusing = crate::support::Refusing::new();
    let upstream = agreeing(|mut peer| async move { peer.send("hi").await }).await;
    let nodes = [(refusing.address, ""), (upstream.address, "")];
    let gateway = Gateway::before("", &nodes).await;
    for _ in 0..3 {
        let (mut client, _) = upgraded(&gateway).await;
        assert_eq!(client.bytes(2).await.unwrap(), b"hi");
    }
}

#[actix_web::test]
async fn an_upgrade_that_nobody_answers_is_a_504() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.rest().await;
    })
    .await;
    let gateway = Gateway::with("--timeout 300ms", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send(UPGRADE).await;
    client.answer("GET").await.is_refused(504, "timeout", 1);
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn the_greeters_web_socket_echoes_through_the_gateway() {
    let registry = MemoryRegistry::default();
    greeter(&registry, "version=v1").await;
    let gateway = Gateway::following("--route /greeter=greeter", registry);
    let mut client = gateway.connect().await;
    client.send(UPGRADE.replace("/chat", "/greeter/ws")).await;
    let answer = client.answer("GET").await;
    assert_eq!(answer.status(), 101);
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    // RFC 6455, section 5.7: a masked text frame, and its echo without a mask.
    client
        .send([
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ])
        .await;
    assert_eq!(client.bytes(7).await.unwrap(), b"\x81\x05Hello");
    client.send([0x88, 0x80, 0, 0, 0, 0]).await; // goodbye
    assert_eq!(client.bytes(2).await.unwrap(), [0x88, 0]);
}
