//! Answers of nodes that know no HTTP, or die over it.

/// What is no answer: a 502.
pub(crate) fn none() -> Vec<String> {
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

/// Answers whose end can be read in two ways: a 502.
pub(crate) fn unclear() -> Vec<String> {
    let framings = [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 40",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2, 3",
        "content-length: 2\r\ntransfer-encoding: gzip",
        // Codings that nobody asked for, and that the client would not be told of.
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ];
    let body = "2\r\nhi\r\n0\r\n\r\n";
    let unclear = framings.map(|framing| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
    let old = format!("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    unclear.into_iter().chain([old]).collect()
}

/// What comes of an answer whose node dies in the middle of its body.
pub(crate) fn cut_off() -> [String; 7] {
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
