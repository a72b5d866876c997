//! What of a message goes on, what ends at the gateway, and what it adds.

use crate::support::{Gateway, Upstream};

const NOTHING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[actix_web::test]
async fn every_method_goes_on_as_it_is() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH",
    ];
    for method in methods {
        client.ask(method, "/x", "").await.is_ok("");
    }
    let started: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.start)
        .collect();
    assert_eq!(
        started,
        methods.map(|method| format!("{method} /x HTTP/1.1"))
    );
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn targets_go_on_byte_by_byte() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let targets = [
        "/",
        "/a%20b/%E4%BD%A0%e5%a5%bd?q=%2F%26&q=+&empty=&flag",
        "/a%2Fb",
        "/a//b///",
        "//a/b",
        "/a/?",
        "/?x=../y&z=http://a/b?c",
        "/;v=1/a;b=c,d/@:!$&'()*+=~-._",
        "/100%25/%252e%252e/",
        "/...//.a/a./..a",
    ];
    for target in targets {
        client.get(target).await.is_ok("");
    }
    let got: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.start)
        .collect();
    assert_eq!(got, targets.map(|target| format!("GET {target} HTTP/1.1")));
}

#[actix_web::test]
async fn a_long_target_goes_on_too() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let target = format!("/{}?{}", "a".repeat(30_000), "b".repeat(20_000));
    gateway.get(&target).await.is_ok("");
    assert_eq!(upstream.request().start, format!("GET {target} HTTP/1.1"));
}

#[actix_web::test]
async fn end_to_end_headers_go_on_untouched() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let headers = "accept: text/html\r\nCookie: a=1\r\naccept: */*;q=0.1\r\nx-name: Jos\u{e9} \u{4f60}\r\n\
        x-empty: \r\nauthorization: Basic eDp5\r\nX-Request-ID:   padded  \r\ncookie: b=2\r\n\
        user-agent: test/1\r\ncontent-encoding: gzip\r\nrange: bytes=0-1\r\n";
    gateway
        .connect()
        .await
        .ask("GET", "/", headers)
        .await
        .is_ok("");
    let request = upstream.request();
    assert_eq!(request.all("accept"), ["text/html", "*/*;q=0.1"]);
    assert_eq!(request.all("cookie"), ["a=1", "b=2"]);
    for (name, value) in [
        ("x-name", "Jos\u{e9} \u{4f60}"),
        ("x-empty", ""),
        ("authorization", "Basic eDp5"),
        ("x-request-id", "padded"),
        ("user-agent", "test/1"),
        ("content-encoding", "gzip"),
        ("range", "bytes=0-1"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let mut names: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 11 + 1 + 5, "nothing else is added: {names:?}");
}

#[actix_web::test]
async fn headers_of_one_connection_end_at_the_gateway() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let headers = "Connection: keep-alive, X-Private\r\nconnection: x-other,,\r\nx-private: 1\r\n\
        x-other: 1\r\nkeep-alive: timeout=5\r\nte: trailers\r\ntrailer: x\r\nproxy-connection: a\r\n\
        proxy-authorization: secret\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\nx-stays: 1\r\n";
    gateway
        .connect()
        .await
        .ask("GET", "/", headers)
        .await
        .is_ok("");
    let mut request = upstream.request();
    request.headers.sort();
    let names: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let added = [
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    ];
    assert_eq!(names, [&["host"], &added[..], &["x-stays"]].concat());
}

#[actix_web::test]
async fn connection_cannot_take_away_what_others_rely_on() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let request = "POST / HTTP/1.1\r\nhost: shop\r\nconnection: host, content-length, x-forwarded-for, via\r\n\
        x-forwarded-for: 198.51.100.1\r\ncontent-length: 2\r\n\r\nhi";
    let mut client = gateway.connect().await;
    client.send(request).await;
    client.answer("POST").await.is_ok("");
    let request = upstream.request();
    assert_eq!(request.header("host"), Some("shop"));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.text(), "hi");
}

#[actix_web::test]
async fn the_host_goes_on_as_sent_and_via_gets_one_more_element() {
    let upstream = Upstream::answering(NOTHING).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("GET / HTTP/1.1\r\nHost: Shop.Example:81\r\n\r\n")
        .await;
    client.answer("GET").await.is_ok("");
    let via = "via: 1.0 edge, 1.1 other\r\n";
    client.ask("GET", "/", via).await.is_ok("");
    let [first, second] = upstream.requests().try_into().unwrap();
    assert_eq!(first.header("host"), Some("Shop.Example:81"));
    assert_eq!(first.header("x-forwarded-host"), Some("Shop.Example:81"));
    assert_eq!(first.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(first.header("x-forwarded-proto"), Some("http"));
    assert_eq!(first.header("forwarded"), None);
    let us = first.header("via").unwrap();
    assert!(us.starts_with("1.1 gateway-"), "{us}");
    let both = format!("1.0 edge, 1.1 other, {us}");
    assert_eq!(second.header("via"), Some(both.as_str()));
}

#[actix_web::test]
async fn an_ipv4_client_of_an_ipv6_port_is_told_by_its_ipv4_address() {
    let upstream = Upstream::answering(NOTHING).await;
    // An IPv4 address, written as such a port reports it.
    let gateway = Gateway::with("--listen [::ffff:127.0.0.1]:0", &[&upstream]).await;
    assert!(gateway.address.is_ipv6());
    gateway.get("/").await.is_ok("");
    let request = upstream.request();
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[actix_web::test]
async fn an_answers_end_to_end_headers_go_on_and_those_of_its_connection_do_not() {
    let upstream = Upstream::answering(
        "HTTP/1.1 299 Whatever\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nx-name: Jos\u{e9}\r\n\
         connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
         upgrade: h2c\r\nx-served-by: somebody\r\nx-served-version: v0\r\nx-gateway-attempts: 9\r\n\
         www-authenticate: Basic\r\nserver: test\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    let nodes = [(upstream.address, "version=v2,region=cn")];
    let gateway = Gateway::before("", &nodes).await;
    let mut answer = gateway.get("/").await;
    assert_eq!((answer.status(), answer.text()), (299, "hi"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    let address = upstream.address.to_string();
    for (name, value) in [
        ("x-name", "Jos\u{e9}"),
        ("x-served-by", &address),
        ("x-served-version", "v2"),
        ("x-gateway-attempts", "1"),
        ("www-authenticate", "Basic"),
        ("server", "test"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("content-length", "2"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    answer.headers.retain(|(name, _)| name != "set-cookie");
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.headers.len(), 9, "nothing else is added: {answer:?}");
}

#[actix_web::test]
async fn a_node_without_a_version_is_not_said_to_have_one() {
    let answer = "HTTP/1.1 200 OK\r\nx-served-version: v0\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::of(&[&upstream]).await;
    assert_eq!(gateway.get("/").await.header("x-served-version"), None);
}

#[actix_web::test]
async fn ninety_headers_go_on_both_ways() {
    let many: String = (0..90).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let upstream = Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"
    ))
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let answer = gateway.connect().await.ask("GET", "/", &many).await;
    for n in 0..90 {
        let (name, value) = (format!("x-{n}"), n.to_string());
        assert_eq!(upstream.request().header(&name), Some(value.as_str()));
        assert_eq!(answer.header(&name), Some(value.as_str()));
    }
}
