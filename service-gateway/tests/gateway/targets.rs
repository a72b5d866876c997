//! Targets, hosts and methods that a gateway does not take, for somebody would take them for others.

use crate::support::{Gateway, Upstream, is_refused_with, requests, status_of};

#[actix_web::test]
async fn a_target_that_is_no_path_is_refused() {
    is_refused_with(400, &requests::NO_PATHS).await;
}

#[actix_web::test]
async fn absolute_form_is_routed_by_its_path() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--route /greeter=test", &[&upstream]).await;
    for (target, expected) in [
        ("http://shop.example:8080/greeter/greet/Ada", "/greet/Ada"),
        (
            "http://shop.example:8080/greeter?x=http://y",
            "/?x=http://y",
        ),
        ("HTTP://shop.example:8080/greeter", "/"),
    ] {
        let mut client = gateway.connect().await;
        let headers = "forwarded: for=_x\r\nx-forwarded-host: bank.example\r\n";
        client.ask("GET", target, headers).await.is_ok("hi");
        client.get("/greeter/next").await.is_ok("hi"); // the same connection
        let requests = upstream.requests();
        let [request, next] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(request.start, format!("GET {expected} HTTP/1.1"));
        assert_eq!(request.all("host"), ["shop.example:8080"]);
        assert_eq!(request.all("x-forwarded-host"), ["shop.example:8080"]);
        assert_eq!(request.all("x-forwarded-prefix"), ["/greeter"]);
        let forwarded = "for=127.0.0.1;host=\"shop.example:8080\";proto=http";
        assert_eq!(request.all("forwarded"), [forwarded]);
        assert_eq!(next.all("host"), ["test"]);
        upstream.forget();
    }
}

#[actix_web::test]
async fn absolute_form_without_a_path_is_for_the_root() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for (request, expected) in [
        ("GET http://a HTTP/1.1\r\nhost: b\r\n\r\n", "/"),
        ("GET http://a?x HTTP/1.1\r\nhost: b\r\n\r\n", "/?x"),
        ("GET http://a HTTP/1.0\r\n\r\n", "/"),
    ] {
        let mut client = gateway.connect().await;
        client.send(request).await;
        client.answer("GET").await.is_ok("hi");
        let sent = upstream.request();
        assert_eq!(sent.start, format!("GET {expected} HTTP/1.1"));
        assert_eq!(sent.all("host"), ["a"]);
        upstream.forget();
    }
}

#[actix_web::test]
async fn a_path_that_leads_elsewhere_is_refused() {
    is_refused_with(400, &requests::leading_elsewhere()).await;
}

#[actix_web::test]
async fn bytes_that_are_not_for_targets_are_refused() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for byte in [
        b'\0', b'\x01', b'\x7f', b'\t', b'\r', b'\n', b'\xff', b'\x80',
    ] {
        let request = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nhost: test\r\n\r\n"].concat();
        assert_eq!(
            status_of(gateway.connect().await, &request).await,
            400,
            "{byte}"
        );
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
    for length in [65_535, 70_000] {
        let target = "x".repeat(length);
        is_refused_with(
            414,
            &[&format!("GET /{target} HTTP/1.1\r\nhost: test\r\n\r\n")],
        )
        .await;
    }
}

#[actix_web::test]
async fn a_host_that_is_none_is_refused() {
    is_refused_with(400, &requests::no_hosts()).await;
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for host in [
        "a",
        "a:80",
        "[::1]:80",
        "a_b.c-d.",
        "127.0.0.1",
        "xn--caf-dma",
        "caf%C3%A9",
        "a!b$c&d'e(f)*+,;=",
        "a:",
        "[v1.a:b]",
        "",
    ] {
        let mut client = gateway.connect().await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        client.answer("GET").await.is_ok("hi");
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.all("host"), [host]);
        let is_list = host.contains(',');
        let forwarded = if is_list { vec![] } else { vec![host] };
        assert_eq!(request.all("x-forwarded-host"), forwarded);
    }
}

#[actix_web::test]
async fn methods_that_are_not_for_gateways_are_a_501() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for request in requests::NOT_FOR_GATEWAYS {
        let mut client = gateway.connect().await;
        client.send(request).await;
        client
            .answer("GET")
            .await
            .is_refused(501, "not_implemented", 0);
    }
    assert_eq!(upstream.count(), 0);
}
