//! Requests that a gateway has to refuse, since two parsers could read them in two ways: with 400,
//! unless documented otherwise.

use super::Wire;

/// Returns requests with ambiguous framing.
pub fn unclear_framing() -> Vec<String> {
    [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "content-length: 5\r\ntransfer-encoding: identity",
        "content-length: 5\r\ntransfer-encoding : chunked",
        "content-length: 5\r\n transfer-encoding: chunked",
        "content-length: 5\r\ntransfer-encoding:\x0bchunked",
        "content-length: 5\r\ntransfer-encoding: xchunked",
        "content-length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: gzip",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: ",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding\r\n: chunked",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 5",
        "content-length: 5 5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5;",
        "content-length: ",
        "content-length: 18446744073709551616",
        "content-length : 5",
        "content-length: 5\0",
    ]
    .map(|framing| format!("POST /x HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n0\r\n\r\n"))
    .into()
}

/// Invalid request heads.
pub const BROKEN_HEADS: [&str; 11] = [
    "POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.0\r\n\r\n",
    "GET /x HTTP/1.1\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET /x HTTP/2.0\r\nhost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /x\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: test\r\nx: a\r\n b\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: test\r\nx y: z\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: test\r\n: z\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: test\r\nx: a\rb: c\r\n\r\n",
];

/// Returns too many header fields, and a head that is too long: 431.
pub fn large_heads() -> [String; 2] {
    let many: String = (0..97).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let long = "x".repeat(200 << 10);
    [
        format!("GET / HTTP/1.1\r\nhost: test\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: test\r\nx: {long}\r\n\r\n"),
    ]
}

/// Returns targets above the limit, in a head that is otherwise small and in one without an end: 414.
pub fn long_targets() -> [String; 2] {
    [70 << 10, 200 << 10]
        .map(|bytes| format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(bytes)))
}

/// Targets that are neither paths nor HTTP URLs with a host.
pub const NO_PATHS: [&str; 14] = [
    "GET https://test/x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET ws://test/x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET http://user@test/x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET http://user:password@test/x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET http:///x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET http://test/x HTTP/1.1\r\nhost: a b\r\n\r\n",
    "GET //test:80 HTTP/1.1 HTTP/1.1\r\nhost: test\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET * HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET test:80 HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET ?x HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET  HTTP/1.1\r\nhost: test\r\n\r\n",
    "GET file:///etc/passwd HTTP/1.1\r\nhost: test\r\n\r\n",
];

/// Returns paths that some servers resolve to another one.
pub fn leading_elsewhere() -> Vec<String> {
    [
        "/..",
        "/../x",
        "/a/../b",
        "/a/./b",
        "/.",
        "/a/..",
        "/%2e%2e/x",
        "/%2E./x",
        "/.%2e",
        "/a%2f..%2fb",
        "/a%2F%2e%2e",
        "/%2e",
        "/a/%5c../b",
        "/a\\..\\b",
        "/\\x",
        "/a%5Cb",
        "/..;x/a",
        "/a/..;/b",
        "/%00",
        "/a%00.txt",
        "/./",
        "/a/.%2E;x=1/b",
    ]
    .map(|path| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
    .into()
}

/// Returns requests with an invalid Host.
pub fn no_hosts() -> Vec<String> {
    [
        "a b",
        "a, b",
        "a/b",
        "user@a",
        "a?b",
        "a#b",
        "a\\b",
        "caf\u{e9}",
        "<a>",
        "\"a\"",
        ":80",
        "a:b",
        "a:80:80",
        "a%zz",
        "::1",
        "[::1",
        "[a]",
        "[::1]x",
    ]
    .map(|host| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    .into()
}

/// Methods that a gateway does not forward: 501.
pub const NOT_FOR_GATEWAYS: [&str; 5] = [
    "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n",
    "CONNECT /x HTTP/1.1\r\nhost: test\r\n\r\n",
    "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\ncontent-length: 2\r\n\r\nhi",
    "TRACE / HTTP/1.1\r\nhost: test\r\n\r\n",
    "TRACE / HTTP/1.1\r\nhost: test\r\nmax-forwards: 0\r\n\r\n",
];

/// Upgrades to WebSocket with a body: upgrades to some servers, requests to others.
pub const UPGRADES_WITH_A_BODY: [&str; 2] = [
    "GET /x HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nhi",
    "GET /x HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
     transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
];

/// Unusual but valid requests, each with the start line and the body that a node receives.
pub const CLEAR: [(&str, &str, &str); 8] = [
    ("GET /a HTTP/1.1\nhost: test\n\n", "GET /a HTTP/1.1", ""),
    (
        "\r\n\r\nGET /b HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /b HTTP/1.1",
        "",
    ),
    (
        "GET /c#/../d HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /c HTTP/1.1",
        "",
    ),
    (
        "POST /d HTTP/1.1\r\nhost: test\r\ncontent-length: 0002\r\n\r\nhi",
        "POST /d HTTP/1.1",
        "hi",
    ),
    (
        "POST /e HTTP/1.1\r\nHOST: test\r\nTRANSFER-ENCODING: cHuNkEd\r\n\r\n02\r\nhi\r\n0\r\n\r\n",
        "POST /e HTTP/1.1",
        "hi",
    ),
    (
        "GET //f//g HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET //f//g HTTP/1.1",
        "",
    ),
    (
        "POST /h HTTP/1.1\r\nhost: test\r\nconnection: host, content-length, x-forwarded-for\r\n\
         content-length: 2\r\n\r\nhi",
        "POST /h HTTP/1.1",
        "hi",
    ),
    (
        "POST /i HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi",
        "POST /i HTTP/1.1",
        "hi",
    ),
];

/// Sends raw bytes over a connection, and a second request after them. Returns the status of the first
/// response, as soon as the second has arrived or the connection has ended.
pub async fn status_of(mut client: Wire, request: &[u8]) -> u16 {
    client.send(request).await;
    let status = client.answer("GET").await.status();
    let second = "GET /second HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    if client.try_send(second).await.is_ok() {
        client.rest().await;
    }
    status
}
