//! The port for those who look after the gateway.

use std::rc::Rc;

use serde_json::Value;
use tokio::sync::Notify;

use crate::support::{Gateway, Upstream, Wire, until, within_limit};

#[actix_web::test]
async fn it_is_ready_as_soon_as_every_routes_service_had_its_first_list() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    until("readiness", async || {
        gateway.admin("/ready").await.status() == 200
    })
    .await;
    assert_eq!(gateway.admin("/ready").await.json()["status"], "ready");
    assert_eq!(gateway.admin("/health").await.json()["status"], "ok");
}

#[actix_web::test]
async fn without_a_registry_it_is_healthy_and_not_ready() {
    let gateway = Gateway::without_registry("--route /a=one --route /b=two");
    let ready = gateway.admin("/ready").await;
    assert_eq!(
        (ready.status(), ready.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(
        ready.json()["waiting_for"],
        serde_json::json!(["one", "two"])
    );
    assert_eq!(gateway.admin("/health").await.status(), 200);
    let services = gateway.admin("/api/instances").await.json();
    assert_eq!(services["services"][0]["registry"]["state"], "pending");
    gateway.get("/a").await.is_refused(503, "no_instance", 0);
}

#[actix_web::test]
async fn instances_are_shown_with_their_tags_and_their_requests_in_flight() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
            .await;
        peer.rest().await;
    })
    .await;
    let other = Upstream::saying("hi").await;
    let nodes = [
        (upstream.address, "version=v2,region=cn"),
        (other.address, ""),
    ];
    let gateway = Gateway::before("", &nodes).await;
    let mut client = gateway.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: test\r\nx-service-tags: version=v2\r\n\r\n")
        .await;
    client.bytes(4).await.unwrap();
    let service = gateway.service().await;
    assert_eq!(service["service"], "test");
    assert_eq!(service["registry"]["state"], "connected");
    assert_eq!(service["registry"]["skipped_entries"], 0);
    assert!(service["registry"]["revision"].as_u64().unwrap() >= 2);
    let mut instances = service["instances"].as_array().unwrap().clone();
    instances.sort_by_key(|instance| instance["version"].is_null());
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[0]["instance"], upstream.address.to_string());
    assert_eq!(instances[0]["version"], "v2");
    assert_eq!(
        instances[0]["tags"],
        serde_json::json!({"version": "v2", "region": "cn"})
    );
    assert_eq!(instances[0]["in_flight"], 1);
    assert_eq!(
        (&instances[1]["version"], &instances[1]["in_flight"]),
        (&Value::Null, &0.into())
    );
    drop(client);
    until("the request's end", async || {
        let service = gateway.service().await;
        service["instances"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i| i["in_flight"] == 0)
    })
    .await;
}

/// The next event of a stream, as JSON.
async fn event(stream: &mut Wire) -> Value {
    let chunk = stream.chunk().await.unwrap().unwrap();
    let text = String::from_utf8(chunk).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        (lines[0], text.ends_with("\n\n")),
        ("event: state", true),
        "{text:?}"
    );
    serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap()
}

#[actix_web::test]
async fn events_begin_with_the_state_and_go_on_with_every_change() {
    let (one, other) = (Upstream::saying("hi").await, Upstream::saying("hi").await);
    let mut gateway = Gateway::of(&[&one]).await;
    gateway.knows(1).await;
    let mut stream = Wire::connect(gateway.admin).await;
    stream
        .send("GET /api/events HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    let head = stream.head().await.unwrap();
    assert_eq!(
        (head.status(), head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let addresses = |event: Value| {
        let instances = event["services"][0]["instances"]
            .as_array()
            .unwrap()
            .clone();
        instances
            .into_iter()
            .map(|i| i["instance"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        addresses(event(&mut stream).await),
        [one.address.to_string()]
    );
    gateway.join("test", other.address, "").await;
    let mut both = [one.address, other.address];
    both.sort();
    assert_eq!(
        addresses(event(&mut stream).await),
        both.map(|address| address.to_string())
    );
    gateway.forget_nodes();
    while !addresses(event(&mut stream).await).is_empty() {}
}

#[actix_web::test]
async fn nothing_of_it_is_on_the_proxy_port_and_nothing_of_that_here() {
    let upstream = Upstream::saying("from the node").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for target in [
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/api/instances",
        "/api/events",
    ] {
        gateway.get(target).await.is_ok("from the node");
    }
    for target in ["/greeter", "/x", "/health/", "/api"] {
        assert_eq!(gateway.admin(target).await.status(), 404, "{target}");
    }
}

#[actix_web::test]
async fn a_gateway_that_leaves_says_so_and_finishes_what_it_has() {
    let go_on = Rc::new(Notify::new());
    let signalled = go_on.clone();
    let upstream = Upstream::new(move |mut peer| {
        let signalled = signalled.clone();
        async move {
            peer.request().await.unwrap();
            signalled.notified().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                .await;
        }
    })
    .await;
    let mut gateway = Gateway::of(&[&upstream]).await;
    let (mut busy, mut idle) = (gateway.connect().await, gateway.connect().await);
    idle.get("//..").await;
    busy.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    upstream.has_open(1).await;
    gateway.stop();
    until("its farewell", async || {
        gateway.admin("/health").await.status() == 503
    })
    .await;
    assert_eq!(gateway.admin("/ready").await.status(), 503);
    idle.ends().await; // what is idle is closed
    go_on.notify_one();
    let answer = busy.answer("GET").await;
    answer.is_ok("hi");
    assert!(answer.closes());
    gateway.ended().await;
}

#[actix_web::test]
async fn a_request_that_goes_on_for_too_long_is_cut_off_when_it_leaves() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.rest().await;
    })
    .await;
    let mut gateway = Gateway::with("--shutdown-timeout 1s", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    upstream.has_open(1).await;
    gateway.stop();
    within_limit("the end", gateway.ended()).await;
    client.ends().await;
}
