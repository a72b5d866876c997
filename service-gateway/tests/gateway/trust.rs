//! Fields by which proxies in front of the gateway describe the client, and by which clients could.

use crate::support::{Gateway, Program, Upstream, Wire};

const NOTHING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

const DESCRIPTION: &str = "x-forwarded-for: 198.51.100.1, 127.0.0.9\r\nx-forwarded-proto: https\r\n\
    x-forwarded-host: shop.example\r\nx-forwarded-port: 443\r\nx-forwarded-prefix: /outer\r\n\
    x-forwarded-user: root\r\nx_forwarded_for: 198.51.100.2\r\nX-Real-IP: 198.51.100.3\r\n\
    forwarded: for=198.51.100.1;proto=https\r\n\
    connection: x-forwarded-proto, X-Forwarded-User, x-real-ip, forwarded\r\n";

/// What the node gets of it, of a request below `/shop`.
async fn received(flags: &str) -> Vec<(String, String)> {
    let upstream = Upstream::answering(NOTHING).await;
    let flags = format!("--route /shop=test {flags}");
    let gateway = Gateway::with(&flags, &[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .ask("GET", "/shop/cart?x", DESCRIPTION)
        .await
        .is_ok("");
    let request = upstream.request();
    assert_eq!(request.start, "GET /cart?x HTTP/1.1");
    let mut headers = request.headers;
    headers.retain(|(name, _)| name.starts_with("x-forwarded") || name.contains(['_', 'w', 'r']));
    headers.retain(|(name, _)| !["x-request-id", "traceparent"].contains(&name.as_str()));
    headers.sort();
    headers
}

fn pairs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    let headers = headers.iter();
    headers.map(|(name, value)| (&**name, &**value)).collect()
}

#[actix_web::test]
async fn a_clients_own_description_is_replaced() {
    for flags in ["", "--trust 10.0.0.0/8,::1"] {
        let headers = received(flags).await;
        let own = r#"for=127.0.0.1;host="test";proto=http"#;
        let expected = [
            ("forwarded", own),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "test"),
            ("x-forwarded-prefix", "/shop"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "127.0.0.1"),
        ];
        assert_eq!(pairs(&headers), expected, "{flags}");
    }
}

#[actix_web::test]
async fn a_trusted_proxys_description_is_kept() {
    let headers = received("--trust 10.0.0.0/8,127.0.0.0/8").await;
    let both = r#"for=198.51.100.1;proto=https, for=127.0.0.1;host="test";proto=http"#;
    let expected = [
        ("forwarded", both),
        ("x-forwarded-for", "198.51.100.1, 127.0.0.9, 127.0.0.1"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/outer/shop"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "root"),
        ("x-real-ip", "198.51.100.1"),
    ];
    assert_eq!(pairs(&headers), expected);
}

#[actix_web::test]
async fn ip_hash_goes_by_the_client_behind_a_trusted_proxy() {
    let (one, other) = (Upstream::saying("1").await, Upstream::saying("2").await);
    for (flags, nodes) in [("", 1), ("--trust 127.0.0.1", 2)] {
        let flags = format!("--balancer ip-hash {flags}");
        let gateway = Gateway::with(&flags, &[&one, &other]).await;
        gateway.knows(2).await;
        let mut client = gateway.connect().await;
        let mut chosen = std::collections::HashSet::new();
        for n in 0..64 {
            let from = format!("x-forwarded-for: 198.51.100.{n}\r\n");
            let first = client.ask("GET", "/", &from).await.body;
            assert_eq!(client.ask("GET", "/", &from).await.body, first);
            chosen.insert(first);
        }
        assert_eq!(chosen.len(), nodes, "{flags}");
    }
}

#[actix_web::test]
async fn the_access_log_names_the_client_behind_a_trusted_proxy() {
    for (trust, client) in [("127.0.0.1", "198.51.100.1"), ("10.0.0.1", "127.0.0.1")] {
        let mut program = Program::start(&["--access-log", "--trust", trust]).await;
        let mut wire = Wire::connect(program.address).await;
        wire.ask("GET", "/", "x-forwarded-for: 198.51.100.1\r\n")
            .await;
        let line: serde_json::Value = serde_json::from_str(&program.writes().await).unwrap();
        assert_eq!(line["client"], client, "{line}");
    }
}
