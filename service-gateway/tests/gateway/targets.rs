//! Targets, hosts and methods that a gateway does not take, for somebody would take them for others.

use crate::support::{Gateway, Upstream, is_refused_with, status_of};

#[actix_web::test]
async fn a_target_that_is_no_path_is_refused() {
    is_refused_with(
        400,
        &[
            "GET http://test/x HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET http://other:80/x HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET //test:80 HTTP/1.1 HTTP/1.1\r\nhost: test\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET * HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET test:80 HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET x HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET ?x HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET  HTTP/1.1\r\nhost: test\r\n\r\n",
            "GET file:///etc/passwd HTTP/1.1\r\nhost: test\r\n\r\n",
        ],
    )
    .await;
}

#[actix_web::test]
async fn a_path_that_leads_elsewhere_is_refused() {
    let paths = [
        "/..",
        "/../x",
        "/a/../b",
        "/a/./b",
        "/.",
        "/a/..",
        "/%2e%2e/x",
        "/%2E./x",
        "/.%2e",
        "/a%2f..%2fb",
        "/a%2F%2e%2e",
        "/%2e",
        "/a/%5c../b",
        "/a\\..\\b",
        "/\\x",
        "/a%5Cb",
        "/..;x/a",
        "/a/..;/b",
        "/%00",
        "/a%00.txt",
        "/./",
        "/a/.%2E;x=1/b",
    ];
    let requests = paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    is_refused_with(400, &requests.each_ref().map(String::as_str)).await;
}

#[actix_web::test]
async fn bytes_that_are_not_for_targets_are_refused() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for byte in [
        b'\0', b'\x01', b'\x7f', b'\t', b'\r', b'\n', b'\xff', b'\x80',
    ] {
        let request = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nhost: test\r\n\r\n"].concat();
        assert_eq!(status_of(&gateway, &request).await, 400, "{byte}");
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.start.contains("/second"))
    );
}

#[actix_web::test]
async fn a_target_that_is_too_long_is_refused() {
    for length in [65_520, 70_000] {
        let target = "x".repeat(length);
        is_refused_with(
            400,
            &[&format!("GET /{target} HTTP/1.1\r\nhost: test\r\n\r\n")],
        )
        .await;
    }
}

#[actix_web::test]
async fn a_host_that_is_none_is_refused() {
    let hosts = [
        "a b",
        "a,b",
        "a/b",
        "user@a",
        "a?b",
        "a#b",
        "a\\b",
        "caf\u{e9}",
        "<a>",
        "a;b",
        "\"a\"",
    ];
    let requests = hosts.map(|host| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    is_refused_with(400, &requests.each_ref().map(String::as_str)).await;
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for host in [
        "a",
        "a:80",
        "[::1]:80",
        "a_b.c-d.",
        "127.0.0.1",
        "xn--caf-dma",
        "",
    ] {
        let mut client = gateway.connect().await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        client.answer("GET").await.is_ok("hi");
    }
}

#[actix_web::test]
async fn methods_that_are_not_for_gateways_are_a_501() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for request in [
        "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n",
        "CONNECT /x HTTP/1.1\r\nhost: test\r\n\r\n",
        "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\ncontent-length: 2\r\n\r\nhi",
        "TRACE / HTTP/1.1\r\nhost: test\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: test\r\nmax-forwards: 0\r\n\r\n",
    ] {
        let mut client = gateway.connect().await;
        client.send(request).await;
        client
            .answer("GET")
            .await
            .is_refused(501, "not_implemented", 0);
    }
    assert_eq!(upstream.count(), 0);
}
