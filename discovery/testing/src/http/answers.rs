//! Responses of nodes that break HTTP/1.1, or end in the middle of one.

/// Returns invalid responses: a gateway responds with 502.
pub fn none() -> Vec<String> {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
    let many: String = (0..1000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let mut none = [
        "",
        "\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nhi",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ]
    .map(str::to_owned)
    .to_vec();
    none.extend([huge, format!("HTTP/1.1 200 OK\r\n{many}\r\n")]);
    none
}

/// Returns responses with ambiguous framing: a gateway responds with 502.
pub fn unclear() -> Vec<String> {
    let framings = [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 40",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2, 3",
        "content-length: 2\r\ntransfer-encoding: gzip",
        // Codings that the client did not accept, and that would not be forwarded.
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ];
    let body = "2\r\nhi\r\n0\r\n\r\n";
    let unclear = framings.map(|framing| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
    let old = format!("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    unclear.into_iter().chain([old]).collect()
}

/// Returns responses whose node ends in the middle of the body.
pub fn cut_off() -> [String; 7] {
    [
        ("content-length: 5", "par"),
        ("content-length: 5", ""),
        ("transfer-encoding: chunked", "5\r\npar"),
        ("transfer-encoding: chunked", "3\r\npar\r\n"),
        ("transfer-encoding: chunked", "3\r\npar\r\n0\r\n"),
        ("transfer-encoding: chunked", "3\r\npar\r\nzz\r\n"),
        ("transfer-encoding: chunked", ""),
    ]
    .map(|(framing, part)| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}"))
}
