//! Which headers go on, which end here, and which are added: [RFC 9110, section 7.6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6

use std::net::IpAddr;

use actix_web::http::header::{
    CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA, X_FORWARDED_FOR,
    X_FORWARDED_HOST, X_FORWARDED_PROTO,
};
use bytes::BytesMut;

use super::origin::Origin;

/// Headers about one connection, and those that the gateway answers itself: `Expect` was answered
/// with 100 when the body was first asked for, and trailers are not passed on.
const ENDS_HERE: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Lists to which the gateway adds what it knows.
const LISTS: [HeaderName; 5] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    VIA,
];

const HTTP: HeaderValue = HeaderValue::from_static("http");

/// Where a request came from whose client was gone when its connection was accepted.
static UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// What `Connection` may not take away: the framing, what tells where a request came from, and what
/// names it.
const STAYS: [&str; 10] = [
    "content-length",
    "forwarded",
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Writes the headers of a request as the node gets them, but for those that are replaced.
pub(super) fn put_all(
    head: &mut BytesMut,
    received: &HeaderMap,
    origin: Option<&Origin>,
    via: &HeaderValue,
    is_replaced: impl Fn(&HeaderName) -> bool,
) {
    let connection = received.get_all(CONNECTION).map(HeaderValue::as_bytes);
    let nominated: Vec<_> = connection.flat_map(nominated).collect();
    for (name, value) in received {
        let is_name = |one: &&[u8]| one.eq_ignore_ascii_case(name.as_str().as_bytes());
        let ends = ends_here(name.as_str()) || nominated.iter().any(is_name);
        if !ends && !LISTS.contains(name) && !is_replaced(name) {
            put(head, name, value);
        }
    }
    let host = received.get(HOST);
    let by = origin.map_or(&UNKNOWN, |origin| &origin.name);
    put_list(head, received, &X_FORWARDED_FOR, Some(by));
    put_list(head, received, &X_FORWARDED_PROTO, Some(&HTTP));
    put_list(head, received, &X_FORWARDED_HOST, host);
    put_list(head, received, &VIA, Some(via));
    if received.contains_key(FORWARDED) {
        put_forwarded(head, received, origin, host);
    }
}

/// Writes one line of a head.
pub(super) fn put(head: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    put_line(head, name, [value.as_bytes()]);
}

/// Makes a list that may span several lines one line, and adds an element at its end.
fn put_list(
    head: &mut BytesMut,
    received: &HeaderMap,
    name: &HeaderName,
    element: Option<&HeaderValue>,
) {
    let elements = received
        .get_all(name)
        .chain(element)
        .map(HeaderValue::as_bytes);
    put_line(head, name, elements);
}

/// A line of several elements, or none of none.
fn put_line<'a>(
    head: &mut BytesMut,
    name: &HeaderName,
    elements: impl IntoIterator<Item = &'a [u8]>,
) {
    let mut elements = elements.into_iter();
    let Some(first) = elements.next() else {
        return;
    };
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(first);
    for element in elements {
        head.extend_from_slice(b", ");
        head.extend_from_slice(element);
    }
    head.extend_from_slice(b"\r\n");
}

/// Adds to `Forwarded` what the gateway knows, if the client says anything there: as with
/// `X-Forwarded-For`, only the last element is true for sure ([RFC 7239, section 8.1][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc7239#section-8.1
fn put_forwarded(
    head: &mut BytesMut,
    received: &HeaderMap,
    origin: Option<&Origin>,
    host: Option<&HeaderValue>,
) {
    let sent = received.get_all(FORWARDED).map(HeaderValue::as_bytes);
    // An open quote, or one hidden behind a backslash, would swallow what is added.
    let is_open = |value: &[u8]| {
        let quotes = value.iter().filter(|byte| **byte == b'"');
        quotes.count() % 2 == 1 || value.contains(&b'\\')
    };
    let sent: Vec<_> = match sent.clone().any(is_open) {
        true => Vec::new(),
        false => sent.collect(),
    };
    let by = match origin.map(|origin| origin.ip) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
    };
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let element = format!(r#"for={by};host="{host}";proto=http"#);
    put_line(
        head,
        &FORWARDED,
        sent.into_iter().chain([element.as_bytes()]),
    );
}

/// Whether a request came by here before: our own name is in its `Via`.
pub(super) fn is_loop(received: &HeaderMap, via: &HeaderValue) -> bool {
    let words = |list| <[u8]>::split(list, |byte| b", ".contains(byte));
    let us = words(via.as_bytes()).next_back();
    let mut vias = received.get_all(VIA);
    vias.any(|list| words(list.as_bytes()).any(|word| Some(word) == us))
}

/// Whether a header is about one connection.
pub(super) fn ends_here(name: &str) -> bool {
    ENDS_HERE.contains(&name)
}

/// The names that a line of `Connection` adds to those that end here.
pub(super) fn nominated(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let stays = |name: &[u8]| {
        STAYS
            .iter()
            .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
    };
    options(line).filter(move |name| !stays(name))
}

/// What a line of `Connection` lists.
pub(super) fn options(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let options = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    options.filter(|option| !option.is_empty())
}

/// What a head says that was written here.
#[cfg(test)]
pub(super) fn parsed(head: &[u8]) -> HeaderMap {
    let head = [head, b"\r\n"].concat();
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let parsed = httparse::parse_headers(&head, &mut lines).unwrap();
    let (_, lines) = parsed.unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let value = HeaderValue::from_bytes(line.value).unwrap();
        headers.append(line.name.parse().unwrap(), value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIA_US: &str = "1.1 gateway-1a2b";

    fn received(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(name.parse().unwrap(), value);
        }
        headers
    }

    fn sent(lines: &[(&str, &str)]) -> HeaderMap {
        sent_by("192.0.2.7", &received(lines))
    }

    fn sent_by(ip: &str, received: &HeaderMap) -> HeaderMap {
        let (mut head, origin) = (BytesMut::new(), Origin::new(ip.parse().unwrap()));
        let via = HeaderValue::from_static(VIA_US);
        put_all(&mut head, received, Some(&origin), &via, |_| false);
        parsed(&head)
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers.get_all(name).map(HeaderValue::as_bytes).collect()
    }

    #[test]
    fn headers_of_one_connection_end_here() {
        let headers = sent(&[
            ("connection", "keep-alive, X-Private"),
            ("connection", "close"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "secret"),
            ("expect", "100-continue"),
            ("authorization", "stays"),
        ]);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "authorization",
                "via",
                "x-forwarded-for",
                "x-forwarded-proto"
            ]
        );
    }

    #[test]
    fn repeated_headers_and_foreign_bytes_are_kept() {
        let headers = sent(&[
            ("accept", "a"),
            ("cookie", "1"),
            ("accept", "b"),
            ("x-name", "Jos\u{e9}"),
        ]);
        assert_eq!(all(&headers, "accept"), [b"a", b"b"]);
        assert_eq!(all(&headers, "x-name"), ["Jos\u{e9}".as_bytes()]);
    }

    #[test]
    fn where_a_request_came_from_is_appended() {
        let headers = sent(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2"),
            ("x-forwarded-proto", "https"),
            ("via", "1.0 edge"),
        ]);
        assert_eq!(
            all(&headers, "x-forwarded-for"),
            [b"198.51.100.1, 198.51.100.2, 192.0.2.7"]
        );
        assert_eq!(all(&headers, "x-forwarded-proto"), [b"https, http"]);
        assert_eq!(all(&headers, "x-forwarded-host"), [b"shop.example"]);
        assert_eq!(all(&headers, "via"), [b"1.0 edge, 1.1 gateway-1a2b"]);
        assert_eq!(all(&headers, "host"), [b"shop.example"]);
    }

    #[test]
    fn a_clients_forwarded_never_has_the_last_word() {
        let us = r#"for=192.0.2.7;host="shop.example:81";proto=http"#;
        let forwarded = |lines: &[&str]| {
            let mut all = vec![("host", "shop.example:81"), ("connection", "forwarded")];
            all.extend(lines.iter().map(|line| ("forwarded", *line)));
            let headers = sent(&all);
            let values = headers.get_all("forwarded");
            let values = values.map(|value| value.to_str().unwrap().to_owned());
            values.collect::<Vec<_>>()
        };
        assert_eq!(forwarded(&[]), [""; 0]);
        let both = forwarded(&["for=198.51.100.1;proto=https", r#"for="[2001:db8::1]""#]);
        let sent = r#"for=198.51.100.1;proto=https, for="[2001:db8::1]""#;
        assert_eq!(both, [format!("{sent}, {us}")]);
        for open in [r#"for="x"#, r#"for="a\""#] {
            assert_eq!(forwarded(&["for=198.51.100.1", open]), [us]);
        }
    }

    #[test]
    fn an_ipv6_client_is_quoted_in_forwarded() {
        let lines = received(&[("forwarded", "for=198.51.100.1")]);
        let headers = sent_by("2001:db8::7", &lines);
        let us = r#"for=198.51.100.1, for="[2001:db8::7]";host="";proto=http"#;
        assert_eq!(all(&headers, "forwarded"), [us.as_bytes()]);
    }

    #[test]
    fn connection_cannot_take_away_what_others_rely_on() {
        let headers = sent(&[
            ("connection", "host, x-forwarded-for, Content-Length"),
            ("host", "a"),
            ("content-length", "5"),
            ("x-forwarded-for", "198.51.100.1"),
        ]);
        assert_eq!(all(&headers, "host"), [b"a"]);
        assert_eq!(all(&headers, "content-length"), [b"5"]);
        assert_eq!(
            all(&headers, "x-forwarded-for"),
            [b"198.51.100.1, 192.0.2.7"]
        );
    }

    #[test]
    fn our_own_name_in_via_is_a_loop() {
        let us = HeaderValue::from_static(VIA_US);
        assert!(is_loop(
            &received(&[("via", "1.0 edge"), ("via", "1.1 x,1.1 gateway-1a2b")]),
            &us
        ));
        assert!(!is_loop(
            &received(&[("via", "1.1 gateway-1a2c, 1.1 gateway")]),
            &us
        ));
        assert!(!is_loop(&received(&[]), &us));
    }
}
