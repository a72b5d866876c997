//! `traceparent` and `x-request-id`: what connects the lines that a request leaves in many logs.

use std::collections::HashSet;

use crate::support::{Gateway, Upstream};

const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[actix_web::test]
async fn a_request_without_ids_gets_an_id_and_no_trace() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    let mut seen = HashSet::new();
    for _ in 0..2 {
        let answer = client.get("/").await;
        let request = upstream.requests().pop().unwrap();
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(request.header("x-request-id"), Some(id));
        assert_eq!(id.len(), 32);
        assert_eq!(request.header("traceparent"), None);
        assert!(seen.insert(id.to_owned()));
    }
}

#[actix_web::test]
async fn a_clients_ids_go_on_untouched() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let headers = format!(
        "traceparent: {SOUND}\r\ntracestate: a=1,b=2\r\nx-request-id: mine/1\r\n\
         connection: traceparent, tracestate, x-request-id\r\n"
    );
    let answer = gateway.connect().await.ask("GET", "/", &headers).await;
    assert_eq!(answer.header("x-request-id"), Some("mine/1"));
    let request = upstream.request();
    assert_eq!(request.header("traceparent"), Some(SOUND));
    assert_eq!(request.header("tracestate"), Some("a=1,b=2"));
    assert_eq!(request.header("x-request-id"), Some("mine/1"));
}

#[actix_web::test]
async fn an_invalid_request_id_is_replaced_and_an_invalid_trace_goes_on() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let invalid = SOUND.to_uppercase();
    let headers = format!("traceparent: {invalid}\r\ntracestate: a=1\r\nx-request-id: a b\r\n");
    let answer = gateway.connect().await.ask("GET", "/", &headers).await;
    let request = upstream.request();
    assert_eq!(answer.all("x-request-id"), request.all("x-request-id"));
    assert_eq!(answer.header("x-request-id").unwrap().len(), 32);
    assert_eq!(request.header("traceparent"), Some(invalid.as_str()));
    assert_eq!(request.header("tracestate"), Some("a=1"));
}

#[actix_web::test]
async fn every_attempt_carries_the_same_ids() {
    let broken = Upstream::closing_after("").await;
    let other = Upstream::closing_after("").await;
    let gateway = Gateway::of(&[&broken, &other]).await;
    gateway.knows(2).await;
    let answer = gateway.get("/").await;
    answer.is_refused(502, "bad_upstream", 2);
    let (one, other) = (broken.request(), other.request());
    assert_eq!(one.header("x-request-id"), other.header("x-request-id"));
    assert_eq!(one.header("x-request-id"), answer.header("x-request-id"));
}

#[actix_web::test]
async fn a_refusal_tells_its_id_too() {
    let gateway = Gateway::with("--route /a=test", &[]).await;
    let answer = gateway
        .connect()
        .await
        .ask("GET", "/b", "x-request-id: mine\r\n")
        .await;
    answer.is_refused(404, "no_route", 0);
    assert_eq!(answer.header("x-request-id"), Some("mine"));
}

#[actix_web::test]
async fn a_nodes_own_id_does_not_reach_the_client() {
    let theirs = "HTTP/1.1 200 OK\r\nx-request-id: theirs\r\ncontent-length: 2\r\n\r\nhi";
    let upstream = Upstream::answering(theirs).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let id = upstream_id(&gateway, &upstream).await;
    assert_ne!(id, "theirs");
}

async fn upstream_id(gateway: &Gateway, upstream: &Upstream) -> String {
    let answer = gateway.get("/").await;
    let told = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(
        upstream.request().header("x-request-id"),
        Some(told.as_str())
    );
    told
}
