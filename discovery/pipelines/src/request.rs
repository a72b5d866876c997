//! A random request that a server has to serve.

use fastrand::Rng;

use crate::exchange::{Exchange, Treatment};
use crate::profile::Profile;

/// The methods, with the usual ones more often.
const METHODS: [&str; 12] = [
    "GET", "GET", "GET", "GET", "HEAD", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH",
];

/// The fields of a request for a WebSocket, without `connection: upgrade`.
const WEBSOCKET: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The fields of an upgrade to HTTP/2, which servers ignore.
const H2C: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n";

/// Generates a request and the response that is right for it.
pub(crate) fn generate(
    random: &mut Rng,
    profile: Profile,
    prefix: &str,
    id: &str,
) -> (Vec<u8>, Exchange) {
    let method = METHODS[random.usize(..METHODS.len())];
    let is_http10 = random.u8(..6) == 0;
    let body = body(random, method, id, is_http10);
    let content = body.clone().unwrap_or_default();
    let target = profile.choose(random, id, method, &content);
    let mut fields = format!("{}: {id}\r\n", profile.id_field());
    if !is_http10 || random.bool() {
        fields += "Host: test\r\n";
    }
    let connection = connection(random, is_http10);
    fields += connection;
    let lists_close = connection.contains("close");
    let keeps = connection.contains("keep-alive");
    let is_h2c = !is_http10 && connection.is_empty() && body.is_none() && random.u8(..16) == 0;
    if is_h2c {
        fields += H2C;
    } else if random.u8(..16) == 0 {
        fields += WEBSOCKET; // without `connection: upgrade` it is a plain request
    }
    let expects_continue = body.is_some() && random.u8(..8) == 0;
    if expects_continue {
        fields += "Expect: 100-continue\r\n";
    }
    let version = if is_http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let head = format!("{method} {prefix}{} {version}\r\n{fields}", target.path);
    let exchange = Exchange {
        name: format!("{method} {} {version}", target.path),
        id: id.to_owned(),
        method,
        is_http10,
        closes: lists_close || (is_http10 && !keeps),
        may_close: is_http10
            || is_h2c
            || target.ends_connection
            || (target.ignores_body && body.is_some()),
        expects_continue,
        is_upgrade: false,
        treatment: Treatment::Served,
        status: target.status,
        content: target.content,
    };
    (framed(random, head, body.as_deref(), is_http10), exchange)
}

/// Generates an upgrade to a WebSocket.
pub(crate) fn upgrade(profile: Profile, prefix: &str, id: &str) -> Option<(Vec<u8>, Exchange)> {
    let target = profile.switching(id)?;
    let field = profile.id_field();
    let head = format!(
        "GET {prefix}{} HTTP/1.1\r\nHost: test\r\n{field}: {id}\r\nConnection: upgrade\r\n{WEBSOCKET}\r\n",
        target.path
    );
    let exchange = Exchange {
        name: format!("upgrade {}", target.path),
        id: id.to_owned(),
        method: "GET",
        is_http10: false,
        closes: false,
        may_close: true,
        expects_continue: false,
        is_upgrade: true,
        treatment: Treatment::Served,
        status: target.status,
        content: target.content,
    };
    Some((head.into_bytes(), exchange))
}

/// Generates a plain request that the server must not process.
pub(crate) fn forbidden(profile: Profile, prefix: &str, id: &str) -> String {
    let (path, field) = (profile.forbidden(id), profile.id_field());
    format!("GET {prefix}{path} HTTP/1.1\r\nHost: test\r\n{field}: {id}\r\n\r\n")
}

fn connection(random: &mut Rng, is_http10: bool) -> &'static str {
    match random.u8(..24) {
        0 => "Connection: close\r\n",
        1 => "Connection: x, close\r\n",
        2..6 => "Connection: keep-alive\r\n",
        6..20 if is_http10 => "Connection: keep-alive, x\r\n",
        _ => "",
    }
}

/// Chooses a body. In HTTP/1.0 only some methods have one.
fn body(random: &mut Rng, method: &str, id: &str, is_http10: bool) -> Option<Vec<u8>> {
    let has_body = match method {
        "POST" | "PUT" | "PATCH" => true,
        _ => !is_http10 && random.u8(..8) == 0,
    };
    let length = match random.u8(..8) {
        0 => 0,
        1 => random.usize(1000..40_000),
        _ => random.usize(1..300),
    };
    let line = format!("{id}\r\n\r\nGET /hidden HTTP/1.1\r\n");
    let body = line.bytes().cycle().take(length).collect();
    has_body.then_some(body)
}

/// Completes a head, and appends the body in a random framing.
fn framed(random: &mut Rng, head: String, body: Option<&[u8]>, is_http10: bool) -> Vec<u8> {
    let Some(body) = body else {
        return (head + "\r\n").into_bytes();
    };
    if is_http10 || random.bool() {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), body].concat();
    }
    let head = head + "Transfer-Encoding: chunked\r\n\r\n";
    [head.as_bytes(), &chunked(random, body)].concat()
}

/// Encodes a body in random chunks, with extensions and trailer fields.
pub(crate) fn chunked(random: &mut Rng, mut body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    while !body.is_empty() {
        let largest = [1, 20, 5000, 40_000][random.usize(..4)].min(body.len());
        // Not too many chunks of one byte.
        let size = random.usize(1..=largest).max(body.len() / 50);
        let (chunk, rest) = body.split_at(size);
        let extension = ["", "", "", ";x", ";name=value", ";name=\"a b\""][random.usize(..6)];
        let size = match random.u8(..3) {
            0 => format!("{size:X}"),
            1 => format!("0{size:x}"),
            _ => format!("{size:x}"),
        };
        chunks.extend(format!("{size}{extension}\r\n").bytes());
        chunks.extend([chunk, b"\r\n"].concat());
        body = rest;
    }
    let trailer = ["", "", "X-Trailer: a\r\n", "X-A: b\r\nX-C: d\r\n"][random.usize(..4)];
    chunks.extend(format!("0\r\n{trailer}\r\n").bytes());
    chunks
}
