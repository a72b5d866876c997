//! The admin port's connections have the limits of the proxy port's.

use crate::support::{Gateway, Wire, within_limit};

#[actix_web::test]
async fn an_endless_body_ends_its_connection() {
    let gateway = Gateway::with("--client-timeout 300ms", &[]).await;
    for path in [
        "/health",
        "/metrics",
        "/api/services/a/instances/b/drain",
        "/x",
    ] {
        let mut client = Wire::connect(gateway.admin).await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            ))
            .await;
        client.send("1\r\nx\r\n").await;
        let answer = client.answer("POST").await;
        assert!(answer.status() >= 400 && answer.closes(), "{answer:?}");
        client.ends().await;
    }
}

#[actix_web::test]
async fn a_client_that_does_not_read_is_closed() {
    let gateway = Gateway::with("--client-timeout 300ms", &[]).await;
    let mut client = Wire::connect(gateway.admin).await;
    let requests = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    within_limit("the reset", async {
        while client.try_send(&requests).await.is_ok() {}
    })
    .await;
}

#[actix_web::test]
async fn a_slow_head_ends_its_connection() {
    let gateway = Gateway::with("--head-timeout 200ms", &[]).await;
    let mut client = Wire::connect(gateway.admin).await;
    client.send("GET /he").await;
    let answer = client.answer("GET").await;
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.json()["status"], 408);
    client.ends().await;
    Wire::connect(gateway.admin).await.ends().await; // without a response
}

#[actix_web::test]
async fn pipelined_methods_do_not_mix_on_the_admin_port() {
    let gateway = Gateway::of(&[]).await;
    let mut client = Wire::connect(gateway.admin).await;
    let get = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = get.replace("GET", "HEAD");
    client.send([get, &head, get, "}"].concat()).await;
    for method in ["GET", "HEAD", "GET"] {
        let answer = client.answer(method).await;
        assert_eq!(answer.header("content-length"), Some("15"));
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
    assert_eq!(client.answer("GET").await.status(), 400);
    client.ends().await;
}
