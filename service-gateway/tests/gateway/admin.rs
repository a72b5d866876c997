//! The port for those who look after the gateway.

use std::net::SocketAddr;
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
        (lines[0], lines.len(), text.ends_with("\n\n")),
        ("event: state", 4, true),
        "{text:?}"
    );
    let id = lines[2].strip_prefix("id: ").unwrap();
    assert!(
        id.parse::<u64>().is_ok(),
        "{id:?} is no number of milliseconds"
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
    // One comes every second in any case.
    while addresses(event(&mut stream).await) != both.map(|address| address.to_string()) {}
    gateway.forget_nodes();
    while !addresses(event(&mut stream).await).is_empty() {}
}

/// Listens to a gateway's events.
async fn listen(gateway: &Gateway) -> Wire {
    let mut stream = Wire::connect(gateway.admin).await;
    stream
        .send("GET /api/events HTTP/1.1\r\nhost: test\r\n\r\n")
        .await;
    assert_eq!(stream.head().await.unwrap().status(), 200);
    stream
}

#[actix_web::test]
async fn events_tell_what_happened_before_somebody_listened() {
    let (one, other) = (Upstream::saying("hi").await, Upstream::saying("hi").await);
    let mut gateway = Gateway::of(&[&one]).await;
    gateway.knows(1).await;
    let mut first = listen(&gateway).await;
    while event(&mut first).await["events"][0]["kind"] != "listed" {}
    gateway.join("test", other.address, "version=v2").await;
    while event(&mut first).await["events"][1]["kind"] != "joined" {}
    let late = event(&mut listen(&gateway).await).await;
    let joined = &late["events"][1];
    assert_eq!(joined["service"], "test");
    assert_eq!(joined["instance"], other.address.to_string());
    assert_eq!(
        (&joined["version"], &joined["nodes"]),
        (&"v2".into(), &1.into())
    );
    assert_eq!(joined["number"], 2);
}

#[actix_web::test]
async fn instances_and_events_count_requests_failures_and_time() {
    let good = Upstream::saying("hi").await;
    let bad =
        Upstream::answering("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
            .await;
    let gateway = Gateway::of(&[&good, &bad]).await;
    gateway.knows(2).await;
    let mut client = gateway.connect().await;
    for _ in 0..6 {
        client.get("/").await;
    }
    let service = gateway.service().await;
    let find = |upstream: &Upstream| {
        let mut instances = service["instances"].as_array().unwrap().iter();
        let is_it = |i: &&Value| i["instance"] == upstream.address.to_string();
        instances.find(is_it).unwrap().clone()
    };
    for (upstream, failures) in [(&good, 0), (&bad, 3)] {
        let instance = find(upstream);
        assert_eq!(
            (&instance["requests"], &instance["failures"]),
            (&3.into(), &failures.into())
        );
        assert!(instance["micros"].as_u64().unwrap() > 0, "{instance}");
    }
    let totals = &event(&mut listen(&gateway).await).await["totals"];
    let expected = serde_json::json!({"requests": 6, "failures": 3, "retries": 0, "hedges": 0});
    assert_eq!(totals, &expected);
}

#[actix_web::test]
async fn events_show_as_many_nodes_as_fit_and_count_all() {
    let upstream = Upstream::saying("hi").await;
    let port = upstream.address.port();
    // All of the loopback network is here; nobody is at these addresses, and nobody asks there.
    let address = |n: u16| ([127, 1, (n / 250) as u8, (n % 250) as u8], port).into();
    let nodes: Vec<_> = (1..=300).map(|n| (address(n), "version=v1")).collect();
    let gateway = Gateway::before("--probe-path off", &nodes).await;
    gateway.knows(300).await;
    let state = event(&mut listen(&gateway).await).await;
    let service = &state["services"][0];
    assert_eq!(service["instances"].as_array().unwrap().len(), 250);
    assert_eq!(service["versions"], serde_json::json!({"v1": 300}));
    assert_eq!(service["states"], serde_json::json!({"up": 300}));
}

#[actix_web::test]
async fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let gateway = Gateway::of(&[]).await;
    let mut bytes = 0;
    for (target, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml; charset=utf-8"),
    ] {
        let file = gateway.admin(target).await;
        assert_eq!(
            (file.status(), file.header("content-type")),
            (200, Some(kind))
        );
        let policy = file.header("content-security-policy").unwrap();
        let rules: Vec<_> = policy.split("; ").collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(rules.contains(&rule), "{policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        bytes += file.body.len();
    }
    assert!(bytes < 60_000, "{bytes}");
}

/// What a gateway says to `POST …/drain` for its only node, with these headers.
async fn drain(gateway: &Gateway, upstream: &Upstream, headers: &str) -> u16 {
    act(gateway, upstream.address, "drain", headers).await
}

async fn act(gateway: &Gateway, node: SocketAddr, action: &str, headers: &str) -> u16 {
    let target = format!("/api/services/test/instances/{node}/{action}");
    let mut admin = Wire::connect(gateway.admin).await;
    admin
        .send(format!(
            "POST {target} HTTP/1.1\r\ncontent-length: 0\r\n{headers}\r\n"
        ))
        .await;
    admin.answer("POST").await.status()
}

/// The token on the page, as a browser gets it that asks for this host.
async fn token(gateway: &Gateway, host: &str) -> String {
    let mut admin = Wire::connect(gateway.admin).await;
    admin
        .send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
        .await;
    let page = admin.answer("GET").await;
    let (_, rest) = page
        .text()
        .split_once("name=\"admin-token\" content=\"")
        .unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[actix_web::test]
async fn a_drained_node_gets_no_request_until_it_is_released() {
    let (one, other) = (
        Upstream::saying("one").await,
        Upstream::saying("other").await,
    );
    let gateway = Gateway::with("--admin-actions", &[&one, &other]).await;
    gateway.knows(2).await;
    let host = gateway.admin;
    let token = token(&gateway, &host.to_string()).await;
    let headers = format!("host: {host}\r\norigin: http://{host}\r\nx-admin-token: {token}\r\n");
    assert_eq!(act(&gateway, one.address, "drain", &headers).await, 204);
    for _ in 0..4 {
        gateway.get("/").await.is_ok("other");
    }
    assert_eq!(act(&gateway, other.address, "drain", &headers).await, 204);
    gateway.get("/").await.is_refused(503, "no_instance", 0);
    let states = gateway.service().await["states"].clone();
    assert_eq!(states, serde_json::json!({"draining": 2}));
    for (state, nodes) in [("up", 0.0), ("draining", 2.0)] {
        let name = format!("gateway_nodes{{service=\"test\",state=\"{state}\"}}");
        let counted = gateway.metric(&name).await;
        assert!((counted - nodes).abs() < 0.5, "{name}: {counted}");
    }
    assert_eq!(act(&gateway, one.address, "release", &headers).await, 204);
    gateway.get("/").await.is_ok("one");
}

#[actix_web::test]
async fn a_node_that_registers_at_a_drained_address_is_drained() {
    let upstream = Upstream::saying("hi").await;
    let mut gateway = Gateway::with("--admin-actions", &[&upstream]).await;
    gateway.knows(1).await;
    let host = gateway.admin;
    let token = token(&gateway, &host.to_string()).await;
    let headers = format!("host: {host}\r\nx-admin-token: {token}\r\n");
    let address = upstream.address;
    assert_eq!(act(&gateway, address, "drain", &headers).await, 204);
    for tags in ["", "version=v2"] {
        gateway.forget_nodes();
        gateway.knows(0).await;
        let unlisted = gateway.service().await["drained_unregistered"].clone();
        assert_eq!(unlisted, serde_json::json!([address.to_string()]));
        assert_eq!(act(&gateway, address, "drain", &headers).await, 404);
        gateway.join("test", address, tags).await;
        gateway.knows(1).await;
        gateway.get("/").await.is_refused(503, "no_instance", 0);
    }
    gateway.forget_nodes();
    gateway.knows(0).await;
    assert_eq!(act(&gateway, address, "release", &headers).await, 204);
    assert_eq!(act(&gateway, address, "release", &headers).await, 404);
    gateway.join("test", address, "").await;
    gateway.knows(1).await;
    gateway.get("/").await.is_ok("hi");
}

#[actix_web::test]
async fn actions_are_refused_without_the_flag() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    gateway.knows(1).await;
    let host = gateway.admin.to_string();
    assert_eq!(token(&gateway, &host).await, "");
    for given in ["", "x-admin-token: \r\n", "x-admin-token: 0\r\n"] {
        let headers = format!("host: {host}\r\n{given}");
        assert_eq!(drain(&gateway, &upstream, &headers).await, 403, "{given:?}");
    }
    gateway.get("/").await.is_ok("hi");
}

#[actix_web::test]
async fn actions_are_refused_to_other_sites_and_unknown_nodes() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--admin-actions", &[&upstream]).await;
    gateway.knows(1).await;
    let host = gateway.admin.to_string();
    let known = token(&gateway, &host).await;
    assert_eq!(known.len(), 32);
    assert_eq!(token(&gateway, "localhost:9090").await, known);
    assert_eq!(token(&gateway, "gateway:9090").await, "");
    let port = gateway.admin.port();
    for headers in [
        format!("host: {host}\r\n"),
        format!(
            "host: {host}\r\nx-admin-token: {}\r\n",
            known.replace(&known[..1], "x")
        ),
        format!("host: {host}\r\norigin: http://other.example\r\nx-admin-token: {known}\r\n"),
        format!("host: {host}\r\norigin: null\r\nx-admin-token: {known}\r\n"),
        format!("host: rebound.example:{port}\r\nx-admin-token: {known}\r\n"),
        format!("host: gateway:{port}\r\nx-admin-token: {known}\r\n"),
    ] {
        assert_eq!(drain(&gateway, &upstream, &headers).await, 403, "{headers}");
    }
    let headers = format!("host: {host}\r\nx-admin-token: {known}\r\n");
    let nobody = ([127, 0, 0, 1], 1).into();
    assert_eq!(act(&gateway, nobody, "drain", &headers).await, 404);
    assert_eq!(
        act(&gateway, upstream.address, "delete", &headers).await,
        404
    );
    gateway.get("/").await.is_ok("hi");
    assert_eq!(drain(&gateway, &upstream, &headers).await, 204);
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
        gateway.admin("/ready").await.status() == 503
    })
    .await;
    assert_eq!(gateway.admin("/health").await.status(), 200);
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

/// Every path of the admin port that is to be read.
const PATHS: [&str; 9] = [
    "/",
    "/page.css",
    "/page.js",
    "/icon.svg",
    "/health",
    "/ready",
    "/metrics",
    "/api/instances",
    "/api/events",
];

#[actix_web::test]
async fn requests_through_a_proxy_are_refused() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--admin-actions", &[&upstream]).await;
    gateway.knows(1).await;
    for field in [
        "via: 1.1 edge",
        "Via:",
        "forwarded: for=198.51.100.1",
        "x-forwarded-for: 198.51.100.1",
        "X-Forwarded-Proto: https",
        "X_Forwarded_Host: test",
        "x-real-ip: 198.51.100.1",
    ] {
        for path in PATHS.into_iter().chain(["/nowhere"]) {
            let mut admin = Wire::connect(gateway.admin).await;
            let answer = admin.ask("GET", path, &format!("{field}\r\n")).await;
            assert_eq!(answer.status(), 403, "{field} {path}");
            let kind = answer.header("content-type");
            assert_eq!(kind, Some("application/problem+json"));
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("proxy"), "{detail}");
        }
    }
    let host = gateway.admin.to_string();
    let token = token(&gateway, &host).await;
    let headers = format!("host: {host}\r\nx-admin-token: {token}\r\nvia: 1.1 edge\r\n");
    assert_eq!(drain(&gateway, &upstream, &headers).await, 403);
}

#[actix_web::test]
async fn a_neighbours_page_cannot_be_read_through_the_gateway() {
    let neighbour = Gateway::with("--admin-actions", &[]).await;
    let gateway = Gateway::before("", &[(neighbour.admin, "")]).await;
    let host = format!("host: {}\r\n", neighbour.admin);
    let token = token(&neighbour, &neighbour.admin.to_string()).await;
    for path in PATHS {
        let mut client = gateway.connect().await;
        client
            .send(format!("GET {path} HTTP/1.1\r\n{host}\r\n"))
            .await;
        let answer = client.answer("GET").await;
        assert_eq!(answer.status(), 403, "{path}");
        assert!(!answer.text().contains(&token), "{path}");
    }
}

#[actix_web::test]
async fn head_is_answered_wherever_get_is() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    gateway.knows(1).await;
    let mut admin = Wire::connect(gateway.admin).await;
    for path in PATHS.into_iter().chain(["/nowhere"]) {
        let mut get = Wire::connect(gateway.admin).await;
        get.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await;
        let get = get.head().await.unwrap();
        let head = admin.ask("HEAD", path, "").await;
        assert_eq!(head.start, get.start, "{path}");
        // A number may have one more digit by now; an event stream has no length.
        let fixed = |message: &crate::support::Message| {
            let varying = ["date", "content-length", "transfer-encoding"];
            let headers = message.headers.iter();
            let mut fixed: Vec<_> = headers
                .filter(|(name, _)| !varying.contains(&name.as_str()))
                .cloned()
                .collect();
            fixed.sort();
            fixed
        };
        assert_eq!(fixed(&head), fixed(&get), "{path}");
        let has_length = head.header("content-length").is_some();
        assert_eq!(has_length, get.header("content-length").is_some(), "{path}");
        assert!(admin.received.is_empty(), "{path}");
    }
}
