//! Properties of the parser, for any response.

use std::collections::HashSet;

use actix_http::header::HeaderValue;
use bytes::BytesMut;
use http1::Decoded;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::head::ResponseHead;
use crate::request::RequestInfo;

/// Hop-by-hop fields (RFC 9110, section 7.6.1), however spelled.
const HOP_BY_HOP: [&str; 9] = [
    "Connection",
    "keep-alive",
    "Proxy-Connection",
    "proxy-authenticate",
    "proxy-authorization",
    "TE",
    "trailer",
    "transfer-encoding",
    "Upgrade",
];

const FORWARDED: [&str; 6] = [
    "host",
    "accept",
    "cookie",
    "set-cookie",
    "X-Private",
    "x-custom",
];

/// Generates field lines in any order, often several of one name.
fn lines() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names = [&HOP_BY_HOP[..], &FORWARDED].concat();
    let nominating =
        vec(select(names.clone()), 0..4).prop_map(|names| names.join(" ,").into_bytes());
    let value = prop_oneof![
        vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..9),
        "[a-z0-9 ,]{0,9}".prop_map(String::into_bytes),
    ];
    let value = value.prop_map(|value| value.trim_ascii().to_vec()); // as it is parsed
    let line = prop_oneof![
        1 => nominating.prop_map(|value| ("connection", value)),
        4 => (select(names), value),
    ];
    vec(line, 0..12)
}

fn nominated(lines: &[(&str, Vec<u8>)]) -> HashSet<String> {
    let connection = lines
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let names = connection.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    names
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect()
}

/// Parses a response that is received in these segments. Returns its body, and whether that has ended.
/// `None` if the response is invalid.
fn parse(segments: &[&[u8]]) -> Option<(Vec<u8>, bool)> {
    let (mut received, mut framing, mut body) = (BytesMut::new(), None, Vec::new());
    for segment in segments {
        received.extend_from_slice(segment);
        if framing.is_none() {
            let head = ResponseHead::parse(&mut received, RequestInfo::default()).ok()?;
            framing = head.map(|(_, framing)| framing);
        }
        let Some(framing) = &mut framing else {
            continue;
        };
        while let Decoded::Data(bytes) = framing.decode(&mut received).ok()? {
            body.extend(bytes);
        }
    }
    Some((body, framing.is_some_and(|framing| framing.is_ended())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_response_loses_only_hop_by_hop_fields(lines in lines()) {
        let mut response = b"HTTP/1.1 200 OK\r\n".to_vec();
        for (name, value) in &lines {
            if *name != "transfer-encoding" {
                response.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        }
        response.extend(b"\r\n");
        let head = ResponseHead::parse(&mut BytesMut::from(&response[..]), RequestInfo::default());
        let (head, _) = head.unwrap().expect("complete");
        let nominated = nominated(&lines);
        for name in HOP_BY_HOP.iter().chain(&FORWARDED) {
            let sent = lines.iter().filter(|(one, _)| one.eq_ignore_ascii_case(name));
            let sent: Vec<_> = sent.map(|(_, value)| value.as_slice()).collect();
            let parsed: Vec<_> = head.headers.get_all(*name).map(HeaderValue::as_bytes).collect();
            let is_nominated = nominated.contains(&name.to_ascii_lowercase()) && *name != "host";
            if HOP_BY_HOP.contains(name) || is_nominated {
                prop_assert!(parsed.is_empty(), "{name} is left");
            } else {
                prop_assert_eq!(parsed, sent, "{}", name);
            }
        }
    }

    #[test]
    fn segments_do_not_change_a_response(
        lines in vec(select(&["content-length: 3\r\n", "transfer-encoding: chunked\r\n", "a: b\r\n", ":\r\n"][..]), 0..3),
        body in vec(select(&["3\r\n", "3;x=y\r\n", "abc", "\r\n", "0\r\n", "x: y\r\n", "\n", "z"][..]), 0..9),
        cut in any::<prop::sample::Index>(),
    ) {
        let response = ["HTTP/1.1 200 OK\r\n", &lines.concat(), "\r\n", &body.concat()].concat();
        let (one, other) = response.as_bytes().split_at(cut.index(response.len()));
        prop_assert_eq!(parse(&[response.as_bytes()]), parse(&[one, other]));
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes in vec(any::<u8>(), 0..200)) {
        parse(&[&bytes]);
        parse(&[b"HTTP/1.1 200 OK\r\n", &bytes]);
        parse(&[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &bytes]);
    }
}
