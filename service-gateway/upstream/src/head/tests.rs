use super::*;

fn head(lines: &str, info: RequestInfo) -> Result<(ResponseHead, Framing), ParseError> {
    let text = format!(
        "HTTP/1.1 {}\r\n\r\nrest",
        lines.trim().replace('\n', "\r\n")
    );
    let mut received = BytesMut::from(&*text);
    let head = ResponseHead::parse(&mut received, info)?.expect("complete");
    assert_eq!(received, "rest");
    Ok(head)
}

fn framing_of(lines: &str) -> Framing {
    head(lines, RequestInfo::default()).unwrap().1
}

#[test]
fn a_head_is_parsed_when_it_is_complete() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let mut received = BytesMut::new();
    for byte in text {
        assert!(
            ResponseHead::parse(&mut received, RequestInfo::default())
                .unwrap()
                .is_none()
        );
        received.extend_from_slice(&[*byte]);
    }
    let (head, framing) = ResponseHead::parse(&mut received, RequestInfo::default())
        .unwrap()
        .unwrap();
    assert_eq!((head.status.as_u16(), head.length), (200, Some(5)));
    assert_eq!(framing, Framing::Length(5));
    assert!(received.is_empty() && head.headers.is_empty() && !head.closes);
}

#[test]
fn only_hop_by_hop_fields_are_removed() {
    let lines = "200 OK\nSet-Cookie: a=1\nset-cookie: b=2\nConnection: x-hop, Via\nX-Hop: 1\n\
        via: 1.1 node\nkeep-alive: timeout=5\nupgrade: h2c\ntransfer-encoding: chunked";
    let (head, _) = head(lines, RequestInfo::default()).unwrap();
    let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["set-cookie", "set-cookie", "via"]);
}

#[test]
fn a_head_frames_its_body() {
    assert_eq!(framing_of("200 OK\ncontent-length: 5"), Framing::Length(5));
    let largest = framing_of("200 OK\ncontent-length: 9223372036854775807");
    assert_eq!(largest, Framing::Length(MAX_BODY_BYTES));
    assert_eq!(
        framing_of("200 OK\ncontent-length: 5\ncontent-length: 5, 5"),
        Framing::Length(5)
    );
    assert_eq!(
        framing_of("200 OK\ntransfer-encoding: Chunked"),
        Framing::CHUNKED
    );
    assert_eq!(framing_of("200 OK"), Framing::UntilClose);
    for bodiless in ["103 Early Hints", "204 No Content", "304 Not Modified"] {
        assert_eq!(framing_of(bodiless), Framing::Length(0));
        assert_eq!(
            framing_of(&format!("{bodiless}\ncontent-length: 5")),
            Framing::Length(0)
        );
    }
    let info = RequestInfo {
        is_head: true,
        is_upgrade: false,
    };
    for lines in [
        "200 OK\ncontent-length: 5",
        "200 OK\ntransfer-encoding: chunked",
        "200 OK",
    ] {
        assert_eq!(head(lines, info).unwrap().1, Framing::Length(0));
    }
}

#[test]
fn ambiguous_framing_is_an_error() {
    assert_eq!(
        framing_of("103 Early Hints\ntransfer-encoding: gzip"),
        Framing::Length(0)
    );
    for lines in [
        "200 OK\ncontent-length: 5\ntransfer-encoding: chunked",
        "304 Not Modified\ncontent-length: 5\ntransfer-encoding: chunked",
        "200 OK\ntransfer-encoding: gzip, chunked",
        "200 OK\ntransfer-encoding: identity",
        "200 OK\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
        "101 Switching Protocols",
    ] {
        let parsed = head(lines, RequestInfo::default());
        let is_ambiguous = matches!(parsed, Err(ParseError::AmbiguousFraming(_)));
        assert!(is_ambiguous, "{lines}");
    }
    let info = RequestInfo {
        is_head: false,
        is_upgrade: true,
    };
    assert!(head("101 Switching Protocols", info).is_ok());
}

#[test]
fn malformed_heads_are_errors() {
    let many = format!("200 OK{}", "\na: b".repeat(MAX_FIELDS + 1));
    let long = format!("200 OK\na: {}", "b".repeat(MAX_HEAD_BYTES));
    let lengths = ["-1", "+1", "5, 6", "5,", "", "a", "9223372036854775808"];
    let lengths = lengths.map(|length| format!("200 OK\ncontent-length: {length}"));
    let others = [
        many,
        long,
        "20 OK".into(),
        "200 OK\na b: c".into(),
        "200 OK\na: b\n c".into(),
    ];
    for lines in lengths.iter().chain(&others) {
        let parsed = head(lines, RequestInfo::default());
        assert!(matches!(parsed, Err(ParseError::Malformed(_))), "{lines}");
    }
    let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\na: ");
    endless.resize(MAX_HEAD_BYTES, b'b');
    assert!(
        ResponseHead::parse(&mut endless, RequestInfo::default())
            .unwrap()
            .is_none()
    );
    endless.resize(MAX_HEAD_BYTES + 1, b'b');
    assert!(ResponseHead::parse(&mut endless, RequestInfo::default()).is_err());
}

#[test]
fn a_head_closes_its_connection() {
    let closes = |text: &str| {
        let mut received = BytesMut::from(text);
        let head = ResponseHead::parse(&mut received, RequestInfo::default()).unwrap();
        head.expect("complete").0.closes
    };
    assert!(!closes("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!closes("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n"));
    assert!(closes(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nconnection: x, Close\r\n\r\n"
    ));
    assert!(closes("HTTP/1.0 200 OK\r\n\r\n"));
    assert!(closes(
        "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n"
    ));
    assert!(!closes(
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
    ));
    assert!(!closes(
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
    ));
    assert!(!closes("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn a_later_minor_version_is_read_as_1_1() {
    for version in ["HTTP/1.2", "HTTP/1.9", "\r\nHTTP/1.2"] {
        let text = format!("{version} 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut received = BytesMut::from(&*text);
        let head = ResponseHead::parse(&mut received, RequestInfo::default()).unwrap();
        let (head, framing) = head.unwrap();
        assert!(framing == Framing::CHUNKED && !head.closes, "{version}");
    }
    for version in ["HTTP/1.12", "HTTP/2.0", "HTTP/1.x", "HTTP/1."] {
        let text = format!("{version} 200 OK\r\n\r\n");
        let head = ResponseHead::parse(&mut BytesMut::from(&*text), RequestInfo::default());
        assert!(matches!(head, Err(ParseError::Malformed(_))), "{version}");
    }
}

#[test]
fn a_custom_reason_phrase_is_kept() {
    for (line, expected) in [
        ("200 OK", None),
        ("404 Not Found", None),
        ("200 ", Some("")),
        ("200", Some("")),
        ("200 ok", Some("ok")),
        ("404 No such\tgreeting ", Some("No such\tgreeting ")),
        ("200  OK", Some(" OK")),
        ("200 \u{e9}t\u{e9}", Some("\u{e9}t\u{e9}")),
        ("600 Custom", Some("Custom")),
        ("999 ", Some("")),
    ] {
        for start in ["HTTP/1.1", "\r\n\nHTTP/1.0"] {
            let text = format!("{start} {line}\r\ncontent-length: 0\r\n\r\n");
            let head = ResponseHead::parse(&mut BytesMut::from(&*text), RequestInfo::default());
            let (head, _) = head.unwrap().unwrap();
            let reason = head.reason.as_deref();
            assert_eq!(reason, expected.map(str::as_bytes), "{line}");
        }
    }
    for line in ["200 a\0b", "200 a\x7f", "200 a\rb", "200 \x1b[0m"] {
        let text = format!("HTTP/1.1 {line}\r\n\r\n");
        let head = ResponseHead::parse(&mut BytesMut::from(&*text), RequestInfo::default());
        assert!(matches!(head, Err(ParseError::Malformed(_))), "{line}");
    }
}

#[test]
fn http_1_0_has_no_chunks() {
    let mut received = BytesMut::from("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let head = ResponseHead::parse(&mut received, RequestInfo::default());
    assert!(matches!(head, Err(ParseError::AmbiguousFraming(_))));
}
