//! Which service and which of its nodes a request goes to.

use discovery::MemoryRegistry;

use crate::support::{Gateway, Upstream, Wire, greeter};

/// Two nodes of the service `test` that say their version, and a gateway with these flags.
async fn two_versions(flags: &str) -> (Gateway, [Upstream; 2]) {
    let nodes = [Upstream::saying("v1").await, Upstream::saying("v2").await];
    let tags = ["version=v1,region=cn", "version=v2,region=cn"];
    let tagged = [(nodes[0].address, tags[0]), (nodes[1].address, tags[1])];
    (Gateway::before(flags, &tagged).await, nodes)
}

async fn with_tags(client: &mut Wire, tags: &str) -> crate::support::Message {
    client
        .ask("GET", "/", &format!("x-service-tags: {tags}\r\n"))
        .await
}

#[actix_web::test]
async fn a_client_chooses_nodes_by_their_tags() {
    let (gateway, _nodes) = two_versions("").await;
    let mut client = gateway.connect().await;
    for _ in 0..5 {
        let answer = with_tags(&mut client, "version=v2").await;
        answer.is_ok("v2");
        assert_eq!(answer.header("x-served-version"), Some("v2"));
        with_tags(&mut client, "region=cn , version=v1")
            .await
            .is_ok("v1");
    }
    let headers = "x-service-tags: version=v2\r\nX-Service-Tags: region=cn\r\n";
    for _ in 0..4 {
        client.ask("GET", "/", headers).await.is_ok("v2");
    }
    let mut said: Vec<_> = Vec::new();
    for tags in ["region=cn", "", "region=cn", ""] {
        said.push(with_tags(&mut client, tags).await.text().to_owned());
    }
    said.sort();
    assert_eq!(said, ["v1", "v1", "v2", "v2"]);
}

#[actix_web::test]
async fn tags_that_no_node_has_are_a_503() {
    let (gateway, nodes) = two_versions("").await;
    let mut client = gateway.connect().await;
    for tags in ["version=v3", "version=v1,region=de", "version=", "zone=a"] {
        with_tags(&mut client, tags)
            .await
            .is_refused(503, "no_instance", 0);
    }
    let two_lines = "x-service-tags: version=v1\r\nx-service-tags: version=v2\r\n";
    client
        .ask("GET", "/", two_lines)
        .await
        .is_refused(503, "no_instance", 0);
    assert_eq!(nodes[0].count() + nodes[1].count(), 0);
}

#[actix_web::test]
async fn tags_that_are_none_are_a_400() {
    let (gateway, nodes) = two_versions("").await;
    for tags in [
        "version",
        "=v1",
        "version=v1,region",
        "a=\u{e9}\u{301}",
        "version=v1,,x",
    ] {
        let answer = with_tags(&mut gateway.connect().await, tags).await;
        answer.is_refused(400, "bad_request", 0);
    }
    assert_eq!(nodes[0].count() + nodes[1].count(), 0);
}

#[actix_web::test]
async fn the_tags_of_a_route_hold_whatever_a_client_asks_for() {
    let (gateway, _nodes) =
        two_versions("--route /=test --route /beta=test?version=v2&region=cn").await;
    let mut client = gateway.connect().await;
    for _ in 0..4 {
        client.get("/beta/x").await.is_ok("v2");
    }
    let ask = async |client: &mut Wire, tags: &str| {
        client
            .ask("GET", "/beta", &format!("x-service-tags: {tags}\r\n"))
            .await
    };
    for tags in ["version=v2", "region=cn"] {
        ask(&mut client, tags).await.is_ok("v2");
    }
    for tags in ["version=v1", "region=de", "version=v2,zone=a"] {
        ask(&mut client, tags)
            .await
            .is_refused(503, "no_instance", 0);
    }
}

#[actix_web::test]
async fn the_longest_prefix_wins_and_is_cut_off() {
    let registry = MemoryRegistry::default();
    let routes = "--route /=root --route /a=a --route /a/b=ab --route /a/bc=abc";
    let mut gateway = Gateway::following(routes, registry);
    let mut nodes = Vec::new();
    for service in ["root", "a", "ab", "abc"] {
        let node = Upstream::new(move |mut peer| async move {
            while let Some(request) = peer.request().await {
                let text = format!("{service} {}", request.start.split(' ').nth(1).unwrap());
                let length = text.len();
                peer.send(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
                ))
                .await;
            }
        })
        .await;
        gateway.join(service, node.address, "").await;
        nodes.push(node);
    }
    gateway.knows(nodes.len()).await;
    let mut client = gateway.connect().await;
    for (target, got) in [
        ("/", "root /"),
        ("/?a=/a/b", "root /?a=/a/b"),
        ("/x/a", "root /x/a"),
        ("/aa", "root /aa"),
        ("/A", "root /A"),
        ("//a/b", "root //a/b"),
        ("/%61", "root /%61"),
        ("/a", "a /"),
        ("/a/", "a /"),
        ("/a?x=1", "a /?x=1"),
        ("/a/?x=1", "a /?x=1"),
        ("/a//b", "a //b"),
        ("/a/bb", "a /bb"),
        ("/a/x%2Fy?z=%20", "a /x%2Fy?z=%20"),
        ("/a/b", "ab /"),
        ("/a/b?c", "ab /?c"),
        ("/a/b/c", "ab /c"),
        ("/a/bc", "abc /"),
        ("/a/bc//", "abc //"),
    ] {
        let answer = client.get(target).await;
        assert_eq!(answer.text(), got, "{target}");
        answer.is_ok(got);
    }
}

#[actix_web::test]
async fn a_path_without_a_route_is_a_404() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::with("--route /a=test --route /b/c=test", &[&upstream]).await;
    let mut client = gateway.connect().await;
    for target in [
        "/", "/A", "/ab", "/b", "/b/", "/b/cd", "//a", "/%61", "/health", "/metrics",
    ] {
        client.get(target).await.is_refused(404, "no_route", 0);
    }
    client.ask("HEAD", "/", "").await;
    client
        .post("/", "body")
        .await
        .is_refused(404, "no_route", 0);
    assert_eq!(upstream.count(), 0);
}

#[actix_web::test]
async fn a_service_without_nodes_is_a_503() {
    let gateway = Gateway::of(&[]).await;
    let mut client = gateway.connect().await;
    client.get("/").await.is_refused(503, "no_instance", 0);
    let head = client.ask("HEAD", "/", "").await;
    assert_eq!(
        (head.status(), head.header("retry-after")),
        (503, Some("1"))
    );
    client.get("/").await.is_refused(503, "no_instance", 0);
}

#[actix_web::test]
async fn gateways_that_send_to_each_other_end_the_loop() {
    let (mut gateway, mut other) = (Gateway::of(&[]).await, Gateway::of(&[]).await);
    other.join("test", gateway.address, "").await;
    gateway.join("test", other.address, "").await;
    other.knows(1).await;
    gateway.knows(1).await;
    for gateway in [&gateway, &other] {
        let mut client = gateway.connect().await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert_eq!(
                (answer.status(), answer.json()["reason"].as_str()),
                (508, Some("loop"))
            );
            client.post("/", "x").await;
        }
    }
}

#[actix_web::test]
async fn greeters_are_found_by_their_version() {
    let registry = MemoryRegistry::default();
    let v1 = greeter(&registry, "version=v1").await.to_string();
    let v2 = greeter(&registry, "version=v2").await.to_string();
    let gateway = Gateway::following("--route /greeter=greeter", registry);
    let mut client = gateway.connect().await;
    for (version, address) in [("v1", v1), ("v2", v2)] {
        let tags = format!("x-service-tags: version={version}\r\n");
        let answer = client
            .ask("GET", "/greeter/greet/%E4%BD%A0%20Ada", &tags)
            .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("x-served-by"), Some(address.as_str()));
        assert_eq!(answer.header("x-served-version"), Some(version));
        let greeting = answer.json();
        assert_eq!(greeting["message"], "Hello, \u{4f60} Ada!");
        assert_eq!(greeting["instance"], address);
        assert_eq!(greeting["version"], version);
    }
    let mirror = client.get("/greeter/anything/a%2Fb?c=%20&d").await.json();
    assert_eq!(mirror["target"], "/anything/a%2Fb?c=%20&d");
}
