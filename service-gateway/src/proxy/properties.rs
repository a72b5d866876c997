//! Properties of the target and the fields, for any request.

use std::collections::HashSet;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{fields, headers, target, trace};
use crate::peer::{Peer, client_address};
use crate::request_id;

const VIA: &str = "1.1 gateway-1a2b";

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

/// Fields that `Connection` cannot remove.
const PROTECTED: [&str; 2] = ["content-length", "host"];

/// Fields with which a client could describe itself, in spellings that some servers accept.
const DESCRIBING: [&str; 14] = [
    "X-Forwarded-For",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "X-Forwarded-User",
    "x_forwarded_for",
    "X-Forwarded_Proto",
    "x.forwarded.host",
    "forwarded",
    "Forwarded-For",
    "x-real-ip",
    "X_Real_IP",
    "true-client-ip",
];

const OTHERS: [&str; 5] = ["accept", "cookie", "set-cookie", "X-Private", "x-custom"];

/// Generates field lines in any order, often several of one name.
fn lines() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names = [&HOP_BY_HOP[..], &PROTECTED, &["via"], &DESCRIBING, &OTHERS].concat();
    let nominating =
        vec(select(names.clone()), 0..4).prop_map(|names| names.join(" ,").into_bytes());
    let value = prop_oneof![
        vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..9),
        "[a-z0-9 ,]{0,9}".prop_map(String::into_bytes),
        select(
            &[
                "https",
                "bank",
                "443",
                "/a",
                "198.51.100.1",
                "for=_x, for=\"[::1]:1\""
            ][..]
        )
        .prop_map(|value| value.as_bytes().to_vec()),
    ];
    let value = value.prop_map(|value| value.trim_ascii().to_vec()); // as it is parsed
    let line = prop_oneof![
        1 => nominating.prop_map(|value| ("connection", value)),
        4 => (select(names), value),
    ];
    vec(line, 0..12)
}

fn nominated(lines: &[(&str, Vec<u8>)]) -> HashSet<String> {
    let values = lines
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let names = values.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    names
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect()
}

/// Returns whether a field is removed.
fn is_removed(name: &str, nominated: &HashSet<String>) -> bool {
    let is_in = |names: &[&str]| names.iter().any(|one| one.eq_ignore_ascii_case(name));
    is_in(&HOP_BY_HOP) || (nominated.contains(&name.to_ascii_lowercase()) && !is_in(&PROTECTED))
}

fn values<'a>(lines: &'a [(&str, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    let of_name = lines
        .iter()
        .filter(|(one, _)| one.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value.as_slice()).collect()
}

fn sent(received: &HeaderMap, peer: Option<&Peer>) -> HeaderMap {
    let mut head = BytesMut::new();
    let via = HeaderValue::from_static(VIA);
    let host = received.get(header::HOST).map(HeaderValue::as_bytes);
    headers::put_all(&mut head, received, host, peer, &via, |_| false);
    fields::parse(&head)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_traceparent_is_valid_by_its_form(text in "(00|01|0f|ff|FF)-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-?[a-z-]{0,3})?") {
        let bytes = text.as_bytes();
        let ends_well = match &text[..2] {
            "00" => text.len() == 55,
            "ff" | "FF" => false,
            _ => text.len() == 55 || bytes[55] == b'-',
        };
        let ids = [&text[3..35], &text[36..52]].map(|id| id != "0".repeat(id.len()));
        prop_assert_eq!(trace::is_traceparent(bytes), ends_well && ids == [true; 2]);
    }

    #[test]
    fn any_bytes_can_be_checked_for_ids(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(!trace::is_traceparent(&bytes));
        let visible = bytes.iter().all(|byte| (0x21..0x7f).contains(byte));
        let fits = !bytes.is_empty() && bytes.len() <= 128;
        prop_assert_eq!(request_id::is_valid(&bytes), visible && fits);
    }

    #[test]
    fn a_request_loses_only_hop_by_hop_fields(lines in lines()) {
        let mut received = HeaderMap::new();
        for (name, value) in &lines {
            received.append(name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let peer = Peer::new([192, 0, 2, 7].into(), &[].into());
        let sent = sent(&received, Some(&peer));
        let nominated = nominated(&lines);
        for name in HOP_BY_HOP.iter().chain(&PROTECTED).chain(&OTHERS) {
            let values = values(&lines, name);
            let sent: Vec<_> = sent.get_all(*name).map(HeaderValue::as_bytes).collect();
            if is_removed(name, &nominated) {
                prop_assert!(sent.is_empty(), "{name} is left");
            } else {
                prop_assert_eq!(sent, values, "{}", name);
            }
        }
        prop_assert!(sent.get("via").unwrap().as_bytes().ends_with(VIA.as_bytes()));
    }

    #[test]
    fn a_client_cannot_describe_itself(lines in lines()) {
        let mut received = HeaderMap::new();
        for (name, value) in &lines {
            received.append(name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let peer = Peer::new([192, 0, 2, 7].into(), &[].into());
        let sent = sent(&received, Some(&peer));
        let host = received.get("host").map(HeaderValue::as_bytes);
        for name in DESCRIBING {
            let sent: Vec<_> = sent.get_all(name).map(HeaderValue::as_bytes).collect();
            match &*name.to_lowercase() {
                "x-forwarded-for" | "x-real-ip" => prop_assert_eq!(sent, [&b"192.0.2.7"[..]]),
                "x-forwarded-proto" => prop_assert_eq!(sent, [&b"http"[..]]),
                "x-forwarded-host" => {
                    let listed = host.filter(|host| !host.contains(&b','));
                    prop_assert_eq!(sent, listed.into_iter().collect::<Vec<_>>());
                }
                "forwarded" => {
                    let own = |value: &&[u8]| value.starts_with(b"for=192.0.2.7;");
                    prop_assert_eq!(sent.len(), usize::from(received.contains_key("forwarded")));
                    prop_assert!(sent.iter().all(own));
                }
                _ => prop_assert!(sent.is_empty(), "{name} is left"),
            }
        }
    }

    #[test]
    fn a_trusted_peer_names_one_client(lines in vec(vec(select(&[
        "10.0.0.2", "198.51.100.1", "198.51.100.1:80", "[2001:db8::1]:80", "_x", "unknown", "", " ", "\"", "[", "x",
    ][..]), 0..4), 0..4)) {
        let mut received = HeaderMap::new();
        for line in &lines {
            let value = line.join(",").trim().parse().unwrap();
            received.append("x-forwarded-for".parse().unwrap(), value);
        }
        let network: discovery::Network = "10.0.0.0/8".parse().unwrap();
        let address = [10, 0, 0, 1].into();
        let client = client_address(&received, address, &[network]);
        let elements = lines.concat();
        let mut behind = elements.iter().rev().filter(|e| !e.trim().is_empty());
        let first = behind.find(|element| **element != "10.0.0.2");
        let expected = match first {
            Some(&("198.51.100.1" | "198.51.100.1:80")) => {
                client.to_string() == "198.51.100.1"
            }
            Some(&"[2001:db8::1]:80") => client.to_string() == "2001:db8::1",
            _ => network.contains(client),
        };
        prop_assert!(expected, "{client} of {lines:?}");
        let peer = Peer::new(address, &[network].into());
        let sent = sent(&received, Some(&peer));
        let described: Vec<_> = sent.get_all("x-forwarded-for").collect();
        prop_assert!(described.len() == 1 && described[0].as_bytes().ends_with(b"10.0.0.1"));
    }

    #[test]
    fn a_loop_is_detected(before in "[a-z0-9 ,.-]{0,20}", after in "[a-z0-9 ,.-]{0,20}") {
        let mut received = HeaderMap::new();
        let name = || "via".parse::<HeaderName>().unwrap();
        received.append(name(), before.parse().unwrap());
        let via = HeaderValue::from_static(VIA);
        let sent = sent(&received, None);
        let mut again = HeaderMap::new();
        let passed_on = format!("{}, {after}", sent.get("via").unwrap().to_str().unwrap());
        again.append(name(), passed_on.parse().unwrap());
        prop_assert!(headers::is_loop(&again, &via));
    }

    #[test]
    fn a_forwarded_target_is_unambiguous(text in vec(select(&[
        "/", "a", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%25", "%", ";", "\\", "?", "#", "://", ":", "*", "@",
    ][..]), 0..9).prop_map(|pieces| pieces.concat())) {
        let Ok(uri) = text.parse::<Uri>() else {
            return Ok(());
        };
        let Ok(passed) = target::origin_form(&Method::GET, &uri) else {
            return Ok(());
        };
        prop_assert!(passed.starts_with('/') && text.starts_with(passed), "{text} became {passed}");
        let path = passed.split('?').next().unwrap().to_lowercase();
        let decoded = path.replace("%2e", ".").replace("%2f", "/");
        let mut segments = decoded.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap());
        prop_assert!(!segments.any(|name| [".", ".."].contains(&name)), "{passed}");
        prop_assert!(!["%00", "%5c", "\\"].iter().any(|bad| path.contains(bad)), "{passed}");
    }

    #[test]
    fn a_plain_path_is_forwarded_unchanged(path in "(/[a-z0-9_~-]{0,5}){1,4}(\\?[a-z0-9=&./]{0,9})?") {
        let uri: Uri = path.parse().unwrap();
        prop_assert_eq!(target::origin_form(&Method::GET, &uri).ok(), Some(&*path));
    }

    #[test]
    fn a_valid_host_is_one_host_and_port(host in "[a-z0-9.:,/@% \\[\\]-]{0,12}") {
        let host = host.trim();
        let mut received = HeaderMap::new();
        received.append(header::HOST, host.parse().unwrap());
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_valid = target::check_host(&received).is_ok();
        let is_plain = !host.contains(['/', '@', ' ', '%', '[', ']']);
        if is_plain && !name.is_empty() && !name.contains(':') {
            let port = host.strip_prefix(name).unwrap();
            prop_assert_eq!(is_valid, port.bytes().skip(1).all(|byte| byte.is_ascii_digit()));
        }
        if is_valid && !host.is_empty() {
            let uri: Option<Uri> = format!("http://{}/", host.replace('%', "")).parse().ok();
            let authority = uri.as_ref().and_then(Uri::authority);
            prop_assert!(authority.is_some_and(|authority| !authority.host().is_empty()), "{host}");
        }
    }
}
