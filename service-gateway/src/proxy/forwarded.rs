//! The fields with which proxies describe the client to the next hop: `X-Forwarded-*`, `X-Real-IP` and
//! `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)).
//!
//! From a peer outside of `--trust` all of them are dropped and set again from what the connection
//! shows. From a trusted peer the scheme, host, port and prefix are kept if each is a single valid
//! value, and lists get one more element. Names that servers commonly read as one of these, such as
//! `X_Forwarded_For`, are always dropped.

use std::net::IpAddr;
use std::str;

use actix_web::http::header::{
    FORWARDED, HeaderMap, HeaderName, HeaderValue, X_FORWARDED_FOR, X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
};
use bytes::BytesMut;

use super::fields::{put, put_list};
use super::target::is_host;
use crate::peer::Peer;

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The scheme of the proxy port.
const HTTP: HeaderValue = HeaderValue::from_static("http");

/// The schemes that a trusted proxy may report.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// The address of a client that had disconnected when its connection was accepted.
static UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// Fields that are about a request's client, scheme or host, by first letter. A name that ends with
/// `*` stands for all names that begin with it.
const X_NAMES: [&str; 14] = [
    "x-forwarded*",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-proto",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-true-client-ip",
    "x-url-scheme",
];
const F_NAMES: [&str; 3] = ["forwarded*", "fastly-client-ip", "front-end-https"];
const C_NAMES: [&str; 3] = [
    "client-ip",
    "cf-connecting-ip",
    "cloudfront-forwarded-proto",
];
const T_NAMES: [&str; 1] = ["true-client-ip"];

/// The relation of a field to the description of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Another field.
    Other,
    /// One of these fields that the gateway writes itself.
    Written,
    /// One of these fields, kept from a trusted peer.
    Kept,
    /// A spelling that only some servers take for one of these fields.
    Disguised,
}

/// Returns whether a field with this name describes the client, its scheme or its host, in a spelling
/// that at least some servers accept: many take `_` for `-`, some take any punctuation for it.
pub(crate) fn is_forwarded(name: &[u8]) -> bool {
    let names: &[&str] = match name.first() {
        Some(b'x' | b'X') => &X_NAMES,
        Some(b'f' | b'F') => &F_NAMES,
        Some(b'c' | b'C') => &C_NAMES,
        Some(b't' | b'T') => &T_NAMES,
        _ => return false,
    };
    names.iter().any(|one| is_spelling(one, name))
}

/// Compares without an allocation: most names differ in their first bytes.
fn is_spelling(known: &str, name: &[u8]) -> bool {
    let (known, is_open) = match known.strip_suffix('*') {
        Some(beginning) => (beginning, true),
        None => (known, false),
    };
    let Some((beginning, rest)) = name.split_at_checked(known.len()) else {
        return false;
    };
    let is_same = |(known, byte): (u8, &u8)| {
        known == byte.to_ascii_lowercase() || (known == b'-' && !byte.is_ascii_alphanumeric())
    };
    (is_open || rest.is_empty()) && known.bytes().zip(beginning).all(is_same)
}

fn kind(name: &HeaderName) -> Kind {
    let text = name.as_str();
    if !is_forwarded(text.as_bytes()) {
        return Kind::Other;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match text {
        "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"
        | "x-forwarded-port" | "x-forwarded-prefix" | "x-real-ip" => Kind::Written,
        _ if text.bytes().all(is_plain) => Kind::Kept,
        _ => Kind::Disguised,
    }
}

/// Returns whether a received field is not passed on, apart from what [`put`](put_all) writes.
pub(super) fn is_dropped(name: &HeaderName, peer: Option<&Peer>) -> bool {
    match kind(name) {
        Kind::Other => false,
        Kind::Written | Kind::Disguised => true,
        Kind::Kept => !is_trusted(peer),
    }
}

fn is_trusted(peer: Option<&Peer>) -> bool {
    peer.is_some_and(Peer::is_trusted)
}

/// Writes the description of the client, without the prefix. `host` is the host that the request is for.
pub(super) fn put_all(
    head: &mut BytesMut,
    received: &HeaderMap,
    host: Option<&[u8]>,
    peer: Option<&Peer>,
) {
    let address = peer.map_or(&UNKNOWN, |peer| &peer.address.text);
    // A comma is valid in a host and would split it here. The node receives it in `Host`.
    let listed = host.filter(|host| !host.contains(&b','));
    if !is_trusted(peer) {
        put(head, &X_FORWARDED_FOR, address);
        put(head, &X_FORWARDED_PROTO, &HTTP);
        put_list(head, &X_FORWARDED_HOST, listed);
    } else {
        let before = received.get_all(X_FORWARDED_FOR).chain([address]);
        let elements = before.map(HeaderValue::as_bytes);
        put_list(
            head,
            &X_FORWARDED_FOR,
            elements.filter(|line| !line.is_empty()),
        );
        let proto = single(received, &X_FORWARDED_PROTO, is_scheme);
        put(head, &X_FORWARDED_PROTO, proto.unwrap_or(&HTTP));
        let kept = single(received, &X_FORWARDED_HOST, is_single_host);
        let kept = kept.map(HeaderValue::as_bytes);
        put_list(head, &X_FORWARDED_HOST, kept.or(listed));
        let port = single(received, &X_FORWARDED_PORT, is_port);
        port.into_iter()
            .for_each(|port| put(head, &X_FORWARDED_PORT, port));
    }
    let client = peer.map(|peer| peer.client(received));
    let client = client.as_ref().map_or(&UNKNOWN, |client| &client.text);
    put(head, &X_REAL_IP, client);
    if received.contains_key(FORWARDED) {
        put_forwarded(head, received, peer, host);
    }
}

/// Writes the prefix that the route removed from the path, behind the one that a trusted peer removed.
pub(super) fn put_prefix(
    head: &mut BytesMut,
    received: &HeaderMap,
    peer: Option<&Peer>,
    removed: &str,
) {
    let before = if is_trusted(peer) {
        single(received, &X_FORWARDED_PREFIX, is_prefix)
    } else {
        None
    };
    let before = before.map_or(&[][..], HeaderValue::as_bytes);
    let before = before.strip_suffix(b"/").unwrap_or(before);
    if before.is_empty() && removed.is_empty() {
        return;
    }
    let prefix = [before, removed.as_bytes()].concat();
    put_list(head, &X_FORWARDED_PREFIX, [prefix.as_slice()]);
}

/// Writes `Forwarded` if the request has one: a trusted peer's elements, then the gateway's own.
/// Only the last element is certain ([RFC 7239, section 8.1][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc7239#section-8.1
fn put_forwarded(
    head: &mut BytesMut,
    received: &HeaderMap,
    peer: Option<&Peer>,
    host: Option<&[u8]>,
) {
    let sent = received.get_all(FORWARDED).map(HeaderValue::as_bytes);
    // An open quote, or one behind a backslash, would include the added element.
    let is_open = |value: &[u8]| {
        let quotes = value.iter().filter(|byte| **byte == b'"');
        quotes.count() % 2 == 1 || value.contains(&b'\\')
    };
    let is_kept = is_trusted(peer) && !sent.clone().any(is_open);
    let by = match peer.map(Peer::ip) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
    };
    let host = host.and_then(|host| str::from_utf8(host).ok());
    let host = host.unwrap_or_default();
    let host = match host {
        "" => String::new(),
        host => format!("host=\"{host}\";"),
    };
    let element = format!("for={by};{host}proto=http");
    let sent = sent.filter(|line| is_kept && !line.is_empty());
    put_list(head, &FORWARDED, sent.chain([element.as_bytes()]));
}

/// Returns the value of a field, if there is one, and it is valid.
fn single<'a>(
    received: &'a HeaderMap,
    name: &HeaderName,
    is_valid: fn(&str) -> bool,
) -> Option<&'a HeaderValue> {
    let mut values = received.get_all(name);
    let value = values.next()?;
    let is_valid = value.to_str().is_ok_and(is_valid);
    (values.next().is_none() && is_valid).then_some(value)
}

fn is_scheme(text: &str) -> bool {
    SCHEMES.iter().any(|one| text.eq_ignore_ascii_case(one))
}

fn is_single_host(text: &str) -> bool {
    is_host(text) && !text.contains(',')
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|n| n > 0)
}

/// Returns whether a text is whole segments of a path, of the characters that a route's prefix may have: `//host` would lead a
/// browser elsewhere.
fn is_prefix(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let is_dots = |segment: &str| [".", ".."].contains(&segment);
    text.starts_with('/')
        && text.bytes().all(is_plain)
        && !text.contains("//")
        && !text.split('/').any(is_dots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields;
    use actix_web::http::header::{HOST, USER_AGENT};
    use discovery::Network;

    const PEER: &str = "192.0.2.7";

    fn received(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn trusted(networks: &str) -> Vec<Network> {
        let networks = networks.split_terminator(',');
        networks.map(|network| network.parse().unwrap()).collect()
    }

    /// The fields that a node receives, of a request below `/shop`.
    fn sent(peer: &str, networks: &str, lines: &[(&str, &str)]) -> HeaderMap {
        let (mut head, received) = (BytesMut::new(), received(lines));
        let peer = Peer::new(peer.parse().unwrap(), &trusted(networks).into());
        for (name, value) in &received {
            if !is_dropped(name, Some(&peer)) {
                put(&mut head, name, value);
            }
        }
        let host = received.get(HOST).map(HeaderValue::as_bytes);
        put_all(&mut head, &received, host, Some(&peer));
        put_prefix(&mut head, &received, Some(&peer), "/shop");
        fields::parse(&head)
    }

    #[track_caller]
    fn has(headers: &HeaderMap, name: &str, expected: &[&str]) {
        let values = headers.get_all(name).map(|value| value.to_str().unwrap());
        assert_eq!(values.collect::<Vec<_>>(), expected, "{name}");
    }

    const FORGED: [(&str, &str); 14] = [
        ("host", "shop.example:81"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/outer"),
        ("x-forwarded-user", "root"),
        ("x-forwarded_proto", "https"),
        ("x_forwarded_for", "198.51.100.9"),
        ("x-real-ip", "198.51.100.8"),
        ("forwarded", "for=198.51.100.1;proto=https"),
        ("true-client-ip", "198.51.100.8"),
        ("user-agent", "x"),
    ];

    #[test]
    fn a_client_cannot_describe_itself() {
        let headers = sent(PEER, "", &FORGED);
        has(&headers, "x-forwarded-for", &[PEER]);
        has(&headers, "x-forwarded-proto", &["http"]);
        has(&headers, "x-forwarded-host", &["shop.example:81"]);
        has(&headers, "x-forwarded-prefix", &["/shop"]);
        has(&headers, "x-real-ip", &[PEER]);
        let own = r#"for=192.0.2.7;host="shop.example:81";proto=http"#;
        has(&headers, "forwarded", &[own]);
        assert_eq!(headers.len(), 8, "host and user-agent too: {headers:?}");
    }

    #[test]
    fn a_trusted_proxy_describes_its_client() {
        let headers = sent(PEER, "10.0.0.0/8,192.0.2.0/24", &FORGED);
        has(
            &headers,
            "x-forwarded-for",
            &["198.51.100.1, 10.0.0.1, 192.0.2.7"],
        );
        has(&headers, "x-forwarded-proto", &["https"]);
        has(&headers, "x-forwarded-host", &["bank.example"]);
        has(&headers, "x-forwarded-port", &["443"]);
        has(&headers, "x-forwarded-prefix", &["/outer/shop"]);
        has(&headers, "x-forwarded-user", &["root"]);
        has(&headers, "x-forwarded_proto", &[]);
        has(&headers, "x_forwarded_for", &[]);
        has(&headers, "x-real-ip", &["198.51.100.1"]);
        let own = r#"for=192.0.2.7;host="shop.example:81";proto=http"#;
        let both = format!("for=198.51.100.1;proto=https, {own}");
        has(&headers, "forwarded", &[&both]);
    }

    #[test]
    fn invalid_values_of_a_trusted_proxy_are_replaced() {
        for (name, value, expected) in [
            ("x-forwarded-proto", "https, http", "http"),
            ("x-forwarded-proto", "javascript", "http"),
            ("x-forwarded-proto", "", "http"),
            ("x-forwarded-proto", "HTTPS", "HTTPS"),
            ("x-forwarded-host", "a, b", "shop"),
            ("x-forwarded-host", "a,b", "shop"),
            ("x-forwarded-host", "", "shop"),
            ("x-forwarded-host", "a/b", "shop"),
            ("x-forwarded-host", "[2001:db8::1]:81", "[2001:db8::1]:81"),
            ("x-forwarded-prefix", "//evil.example", "/shop"),
            ("x-forwarded-prefix", "/a/../b", "/shop"),
            ("x-forwarded-prefix", "a", "/shop"),
            ("x-forwarded-prefix", "/", "/shop"),
            ("x-forwarded-prefix", "/a/", "/a/shop"),
            (
                "forwarded",
                "for=\"x",
                "for=192.0.2.7;host=\"shop\";proto=http",
            ),
            ("forwarded", "", "for=192.0.2.7;host=\"shop\";proto=http"),
        ] {
            let headers = sent(PEER, PEER, &[("host", "shop"), (name, value)]);
            has(&headers, name, &[expected]);
        }
        for port in ["0", "65536", "+443", "", "443, 80"] {
            let headers = sent(PEER, PEER, &[("x-forwarded-port", port)]);
            has(&headers, "x-forwarded-port", &[]);
        }
        let twice = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "https"),
        ];
        has(&sent(PEER, PEER, &twice), "x-forwarded-proto", &["http"]);
    }

    #[test]
    fn an_ipv6_client_is_quoted_in_forwarded() {
        let headers = sent("2001:db8::7", "", &[("forwarded", "for=198.51.100.1")]);
        has(
            &headers,
            "forwarded",
            &[r#"for="[2001:db8::7]";proto=http"#],
        );
    }

    #[test]
    fn no_spelling_of_these_fields_passes() {
        for name in [
            "x-forwarded-for",
            "X-Forwarded-Ssl",
            "x_forwarded_for",
            "x-forwarded_for",
            "x.forwarded.for",
            "x-forwarded",
            "X_REAL_IP",
            "forwarded",
            "forwarded-for",
            "cf_connecting_ip",
        ] {
            assert!(is_forwarded(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "x",
            "for",
            "x-forward",
            "x-real-ip-address",
            "x-custom",
            "x-request-id",
            "cookie",
            "te",
            USER_AGENT.as_str(),
        ] {
            assert!(!is_forwarded(name.as_bytes()), "{name}");
        }
    }
}
