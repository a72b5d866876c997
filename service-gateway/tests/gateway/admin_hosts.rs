//! The hosts that the admin port is reachable as, and those of other sites' pages.

use serde_json::Value;

use crate::support::{Gateway, Upstream, Wire};

const PATHS: [&str; 6] = [
    "/",
    "/page.js",
    "/metrics",
    "/api/instances",
    "/api/events",
    "/nothing",
];

/// The status of a response on the admin port, and the reason if it is a refusal.
async fn status(gateway: &Gateway, path: &str, host: &str) -> (u16, Value) {
    let mut client = Wire::connect(gateway.admin).await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
        .await;
    let mut response = client.head().await.unwrap();
    if response.header("content-type") != Some("application/problem+json") {
        return (response.status(), Value::Null);
    }
    let length = response.header("content-length").unwrap().parse().unwrap();
    response.body = client.bytes(length).await.unwrap();
    (response.status(), response.json()["detail"].clone())
}

#[actix_web::test]
async fn a_foreign_host_sees_only_the_health() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--admin-actions", &[&upstream]).await;
    gateway.knows(1).await;
    for host in [
        "rebound.example",
        "rebound.example:9090",
        "127.0.0.1.rebound.example",
        "localhost.example",
        "a b",
        "ai.",
    ] {
        for path in PATHS {
            let (status, detail) = status(&gateway, path, host).await;
            assert_eq!(status, 403, "{host} {path}");
            assert!(
                detail.as_str().unwrap().contains("--admin-host"),
                "{detail}"
            );
        }
        for path in ["/health", "/ready"] {
            assert_eq!(status(&gateway, path, host).await.0, 200, "{host} {path}");
        }
    }
    let target = format!("/api/services/test/instances/{}/drain", upstream.address);
    let mut client = Wire::connect(gateway.admin).await;
    let head =
        format!("POST {target} HTTP/1.1\r\nhost: rebound.example\r\ncontent-length: 0\r\n\r\n");
    client.send(head).await;
    assert_eq!(client.answer("POST").await.status(), 403);
}

#[actix_web::test]
async fn hosts_that_no_site_can_own_are_served() {
    let flags = "--admin-host gateway.example.com,other.example --admin-host third.example";
    let gateway = Gateway::with(flags, &[]).await;
    for host in [
        "127.0.0.1",
        "192.0.2.1:9090",
        "[::1]:9090",
        "localhost:9090",
        "gateway.localhost",
        "gateway",
        "gateway:9901",
        "Gateway.Example.COM:9090",
        "other.example",
        "third.example",
    ] {
        for path in &PATHS[..5] {
            assert_eq!(status(&gateway, path, host).await.0, 200, "{host} {path}");
        }
    }
    let mut client = Wire::connect(gateway.admin).await;
    client.send("GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer("GET").await.status(), 200);
}
