//! Which headers go on, which end here, and which are added: [RFC 9110, section 7.6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6

use std::net::IpAddr;

use actix_web::http::header as actix;
use http::header::{
    CONTENT_LENGTH, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA,
};

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

/// As many are added here and afterwards, at most. With room for them the map need not grow.
const ADDED: usize = 8;

const HTTP: HeaderValue = HeaderValue::from_static("http");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

/// The headers of a request as the node gets them.
pub(super) fn request(
    received: &actix::HeaderMap,
    origin: Option<&Origin>,
    via: &HeaderValue,
) -> HeaderMap {
    let nominated = nominated(
        received
            .get_all(actix::CONNECTION)
            .map(actix::HeaderValue::as_bytes),
    );
    let mut headers = HeaderMap::with_capacity(received.len() + ADDED);
    for (name, value) in received {
        if ends_here(name.as_str(), &nominated) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let host = headers.get(HOST).cloned();
    if let Some(origin) = origin {
        extend_list(&mut headers, FORWARDED_FOR, &origin.name);
        extend_forwarded(&mut headers, origin.ip, host.as_ref());
    }
    extend_list(&mut headers, FORWARDED_PROTO, &HTTP);
    if let Some(host) = host {
        extend_list(&mut headers, FORWARDED_HOST, &host);
    }
    extend_list(&mut headers, VIA, via);
    headers
}

/// Adds to `Forwarded` what the gateway knows, if the client says anything there: as with
/// `X-Forwarded-For`, only the last element is true for sure ([RFC 7239, section 8.1][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc7239#section-8.1
fn extend_forwarded(headers: &mut HeaderMap, ip: IpAddr, host: Option<&HeaderValue>) {
    let mut sent = headers.get_all(FORWARDED).iter().peekable();
    if sent.peek().is_none() {
        return;
    }
    // An open quote, or one hidden behind a backslash, would swallow what is added.
    let is_open = |value: &HeaderValue| {
        let quotes = value.as_bytes().iter().filter(|byte| **byte == b'"');
        quotes.count() % 2 == 1 || value.as_bytes().contains(&b'\\')
    };
    if sent.any(is_open) {
        headers.remove(FORWARDED);
    }
    let by = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let element = format!(r#"for={by};host="{host}";proto=http"#);
    if let Ok(element) = HeaderValue::try_from(element) {
        extend_list(headers, FORWARDED, &element);
    }
}

/// Copies the headers of a node's answer to the client's. The length is one line there, however
/// often the node told it.
pub(super) fn response(answered: &HeaderMap, headers: &mut actix::HeaderMap) {
    let connection = answered.get_all(http::header::CONNECTION);
    let nominated = nominated(connection.iter().map(HeaderValue::as_bytes));
    for (name, value) in answered {
        if *name == CONTENT_LENGTH || ends_here(name.as_str(), &nominated) {
            continue;
        }
        let name = actix::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = actix::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if let Some(length) = content_length(answered) {
        headers.insert(actix::CONTENT_LENGTH, length.into());
    }
}

/// Whether a request came by here before: our own name is in its `Via`.
pub(super) fn is_loop(received: &actix::HeaderMap, via: &HeaderValue) -> bool {
    let words = |list| <[u8]>::split(list, |byte| b", ".contains(byte));
    let us = words(via.as_bytes()).next_back();
    let mut vias = received.get_all(actix::VIA);
    vias.any(|list| words(list.as_bytes()).any(|word| Some(word) == us))
}

/// The length a message says its body has. Where it says so several times, hyper has seen to it
/// that it says the same.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    value.split(',').next()?.trim().parse().ok()
}

fn ends_here(name: &str, nominated: &[String]) -> bool {
    ENDS_HERE.contains(&name) || nominated.iter().any(|nominated| nominated == name)
}

/// The names that `Connection` adds to those that end here.
fn nominated<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let values = values.filter_map(|value| std::str::from_utf8(value).ok());
    let names = values
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_ascii_lowercase());
    names
        .filter(|name| !name.is_empty() && !STAYS.contains(&name.as_str()))
        .collect()
}

/// Adds an element at the end of a list that may span several lines, and makes it one line.
fn extend_list(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let mut lines = match headers.entry(name) {
        Entry::Vacant(none) => {
            none.insert(element.clone());
            return;
        }
        Entry::Occupied(lines) => lines,
    };
    let all: Vec<_> = lines
        .iter()
        .chain([element])
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(list) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        lines.insert(list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIA_US: &str = "1.1 gateway-1a2b";

    fn received(lines: &[(&str, &str)]) -> actix::HeaderMap {
        let mut headers = actix::HeaderMap::new();
        for (name, value) in lines {
            let value = actix::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(name.parse().unwrap(), value);
        }
        headers
    }

    fn sent(lines: &[(&str, &str)]) -> HeaderMap {
        sent_by("192.0.2.7", &received(lines))
    }

    fn sent_by(ip: &str, received: &actix::HeaderMap) -> HeaderMap {
        let origin = Origin::new(ip.parse().unwrap());
        request(received, Some(&origin), &HeaderValue::from_static(VIA_US))
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect()
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
            let values = headers.get_all("forwarded").iter();
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
        assert_eq!(content_length(&headers), Some(5));
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

    #[test]
    fn an_answer_keeps_its_cookies_and_loses_its_connection() {
        let mut answered = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ] {
            answered.append(name, HeaderValue::from_static(value));
        }
        let mut headers = actix::HeaderMap::new();
        response(&answered, &mut headers);
        assert_eq!(headers.get_all("set-cookie").count(), 2);
        assert_eq!(headers.len(), 2);
    }
}
