//! What of a message's head goes on.

use testing::etcd::Etcd;
use testing::http::{Message, Upstream, Wire};

use crate::Verdict;
use crate::system::System;

/// Header lines of a request, and what the node then gets under a name.
const THERE: [(&str, &str, &[&str]); 36] = [
    ("keep-alive: timeout=5", "keep-alive", &[]),
    ("te: trailers", "te", &[]),
    ("trailer: x-sum", "trailer", &[]),
    ("upgrade: h2c", "upgrade", &[]),
    ("proxy-connection: close", "proxy-connection", &[]),
    (
        "proxy-authorization: Basic eDp5",
        "proxy-authorization",
        &[],
    ),
    (
        "authorization: Basic eDp5",
        "authorization",
        &["Basic eDp5"],
    ),
    ("connection: X-Mine\r\nx-mine: 1", "x-mine", &[]),
    ("connection: a,, x-mine ,\r\nx-mine: 1", "x-mine", &[]),
    (
        "x-mine: 1\r\nconnection: a\r\nconnection: x-mine",
        "x-mine",
        &[],
    ),
    ("connection: x-mine", "connection", &[]),
    ("connection: host", "host", &["test"]),
    ("connection: via", "via", &["1.1 gateway-*"]),
    (
        "accept: a;q=0.1\r\nx: 1\r\naccept: b",
        "accept",
        &["a;q=0.1", "b"],
    ),
    ("cookie: a=1\r\ncookie: b=2", "cookie", &["a=1", "b=2"]),
    ("x-name: José 你", "x-name", &["José 你"]),
    ("x-empty:", "x-empty", &[""]),
    ("x-padded: \t a b \t ", "x-padded", &["a b"]),
    ("x: y", "x-forwarded-for", &["127.0.0.1"]),
    ("x: y", "x-forwarded-prefix", &["/own"]),
    ("x: y", "x-real-ip", &["127.0.0.1"]),
    ("x: y", "forwarded", &[]),
    (
        "x-forwarded-for: 10.1.1.1, 10.1.1.2\r\nx-forwarded-for: 10.1.1.3\r\nconnection: x-forwarded-for",
        "x-forwarded-for",
        &["127.0.0.1"],
    ),
    ("x_forwarded_for: 10.1.1.1", "x_forwarded_for", &[]),
    ("X-Forwarded_For: 10.1.1.1", "x-forwarded_for", &[]),
    ("x-real-ip: 10.1.1.1", "x-real-ip", &["127.0.0.1"]),
    ("x_real_ip: 10.1.1.1", "x_real_ip", &[]),
    ("true-client-ip: 10.1.1.1", "true-client-ip", &[]),
    ("x-forwarded-proto: https", "x-forwarded-proto", &["http"]),
    ("x-forwarded-host: bank", "x-forwarded-host", &["test"]),
    ("x-forwarded-port: 443", "x-forwarded-port", &[]),
    ("x-forwarded-prefix: /a", "x-forwarded-prefix", &["/own"]),
    ("x-forwarded-user: root", "x-forwarded-user", &[]),
    (
        "forwarded: for=10.1.1.1;proto=https",
        "forwarded",
        &["for=127.0.0.1;host=\"test\";proto=http"],
    ),
    (
        "forwarded: for=\"10",
        "forwarded",
        &["for=127.0.0.1;host=\"test\";proto=http"],
    ),
    ("via: 1.0 edge", "via", &["1.0 edge, 1.1 gateway-*"]),
];

/// The same from a proxy that the gateway trusts.
const TRUSTED: [(&str, &str, &[&str]); 17] = [
    ("x: y", "x-forwarded-for", &["127.0.0.1"]),
    ("x: y", "x-forwarded-proto", &["http"]),
    ("x-forwarded-proto: https", "x-forwarded-proto", &["https"]),
    (
        "x-forwarded-proto: https, http",
        "x-forwarded-proto",
        &["http"],
    ),
    ("x-forwarded-host: bank", "x-forwarded-host", &["bank"]),
    ("x-forwarded-host: a, b", "x-forwarded-host", &["test"]),
    ("x-forwarded-port: 443", "x-forwarded-port", &["443"]),
    ("x-forwarded-prefix: /a", "x-forwarded-prefix", &["/a/own"]),
    ("x-forwarded-prefix: //a", "x-forwarded-prefix", &["/own"]),
    ("x-forwarded-user: root", "x-forwarded-user", &["root"]),
    (
        "x-forwarded-proto: https\r\nconnection: x-forwarded-proto",
        "x-forwarded-proto",
        &["https"],
    ),
    (
        "x-forwarded-for: 10.1.1.1, 10.1.1.2\r\nx-forwarded-for: 10.1.1.3",
        "x-forwarded-for",
        &["10.1.1.1, 10.1.1.2, 10.1.1.3, 127.0.0.1"],
    ),
    (
        "x-forwarded-for: 10.1.1.1, 10.1.1.2\r\nx-forwarded-for: 127.0.0.9",
        "x-real-ip",
        &["10.1.1.2"],
    ),
    (
        "x-forwarded-for: [2001:db8::1]:80",
        "x-real-ip",
        &["2001:db8::1"],
    ),
    (
        "x-forwarded-for: 10.1.1.1, _hidden",
        "x-real-ip",
        &["127.0.0.1"],
    ),
    ("x_forwarded_for: 10.1.1.1", "x_forwarded_for", &[]),
    (
        "forwarded: for=10.1.1.1;proto=https",
        "forwarded",
        &["for=10.1.1.1;proto=https, for=127.0.0.1;host=\"test\";proto=http"],
    ),
];

/// Header lines of a node's answer, and what the client then gets under a name.
const BACK: [(&str, &str, &[&str]); 13] = [
    ("keep-alive: timeout=5", "keep-alive", &[]),
    ("connection: x-mine\r\nx-mine: 1", "x-mine", &[]),
    ("proxy-authenticate: Basic", "proxy-authenticate", &[]),
    ("www-authenticate: Basic", "www-authenticate", &["Basic"]),
    ("upgrade: h2c", "upgrade", &[]),
    ("trailer: x-sum", "trailer", &[]),
    (
        "set-cookie: a=1\r\nset-cookie: b=2",
        "set-cookie",
        &["a=1", "b=2"],
    ),
    ("x-name: José 你", "x-name", &["José 你"]),
    ("x-served-version: v0", "x-served-version", &["odd"]),
    ("x-gateway-attempts: 9", "x-gateway-attempts", &["1"]),
    ("server: test", "server", &["test"]),
    ("date: today", "date", &["today"]),
    ("content-length: 0, 0", "content-length", &["0"]),
];

/// What belongs to one connection ends there, what is forged is corrected, all else is untouched.
pub(crate) async fn headers() -> anyhow::Result<Verdict> {
    let answers = BACK.map(|(lines, name, _)| {
        let length = if name == "content-length" {
            ""
        } else {
            "content-length: 0\r\n"
        };
        format!("HTTP/1.1 200 OK\r\n{lines}\r\n{length}\r\n")
    });
    let node = Upstream::answering_by_number(answers.into()).await;
    let routes = "/odd=greeter?version=odd,/own=greeter?version=v1";
    let system = System::routing(routes, &["v1"], &[(&node, "odd")]).await?;
    let mut client = system.connect().await;
    let mut wrong = Vec::new();
    for (lines, name, expected) in THERE {
        let got = received(&mut client, &format!("{lines}\r\n")).await;
        check(lines, got.all(name), expected, &mut wrong);
    }
    for (n, (lines, name, expected)) in BACK.into_iter().enumerate() {
        let answer = client.get(&format!("/odd/{n}")).await;
        check(lines, answer.all(name), expected, &mut wrong);
    }
    let ends = ends_here(&mut client).await;
    drop(system);
    trusted(&mut wrong).await?;
    Ok(Verdict::new(wrong.is_empty() && ends)
        .listing(&wrong)
        .note(format!(
            "{} there, {} from a trusted proxy and {} back, {} not as they should be",
            THERE.len(),
            TRUSTED.len(),
            BACK.len(),
            wrong.len()
        ))
        .note(match ends {
            true => "100 before a body that is expected, trailers end here",
            false => "Expect or trailers went wrong",
        }))
}

/// Sends what a trusted proxy may say.
async fn trusted(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let flags = ["--route", "/own=greeter", "--trust", "127.0.0.0/8"];
    let system = System::around(Etcd::start().await, &["v1"], &flags).await?;
    system.until_known(1).await?;
    let mut client = system.connect().await;
    for (lines, name, expected) in TRUSTED {
        let got = received(&mut client, &format!("{lines}\r\n")).await;
        check(lines, got.all(name), expected, wrong);
    }
    Ok(())
}

/// What a greeter says it received.
async fn received(client: &mut Wire, lines: &str) -> Message {
    let answer = client.ask("GET", "/own/anything", lines).await;
    mirrored(&answer)
}

fn mirrored(answer: &Message) -> Message {
    let mirror = answer.json();
    let mut message = Message::from_head("");
    message.headers = serde_json::from_value(mirror["headers"].clone()).unwrap_or_default();
    message.body = mirror["body_bytes"].to_string().into();
    message
}

/// `*` stands for any end.
fn check(lines: &str, got: Vec<&str>, expected: &[&str], wrong: &mut Vec<String>) {
    let is_as = |(got, expected): (&&str, &&str)| match expected.strip_suffix('*') {
        Some(beginning) => got.starts_with(beginning),
        None => got == expected,
    };
    if got.len() != expected.len() || !got.iter().zip(expected).all(is_as) {
        wrong.push(format!("{lines:?}: {got:?} instead of {expected:?}"));
    }
}

/// Whether who waits for 100 gets it before the answer, and trailers are left out of the request.
async fn ends_here(client: &mut Wire) -> bool {
    client
        .send("POST /own/anything HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let goes_on = client.answer("POST").await.status() == 100;
    client.send("2\r\nhi\r\n0\r\nx-trailer: 1\r\n\r\n").await;
    let got = mirrored(&client.answer("POST").await);
    goes_on && got.body == b"2" && got.all("x-trailer").is_empty() && got.all("expect").is_empty()
}
