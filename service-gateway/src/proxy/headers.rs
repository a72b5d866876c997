//! Which headers go on, which end here, and which are added: [RFC 9110, section 7.6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6

use std::net::IpAddr;

use actix_web::http::header as actix;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, VIA};

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

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What `Connection` may not take away: the framing, and what tells where a request came from.
const STAYS: [&str; 6] = [
    "content-length",
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// The headers of a request as the node gets them.
pub(super) fn request(received: &actix::HeaderMap, peer: Option<IpAddr>, via: &str) -> HeaderMap {
    let nominated = nominated(
        received
            .get_all(actix::CONNECTION)
            .map(actix::HeaderValue::as_bytes),
    );
    let mut headers = HeaderMap::with_capacity(received.len() + 4);
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
    if let Some(peer) = peer {
        extend_list(&mut headers, FORWARDED_FOR, &peer.to_string());
    }
    extend_list(&mut headers, FORWARDED_PROTO, "http");
    if let Some(host) = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned)
    {
        extend_list(&mut headers, FORWARDED_HOST, &host);
    }
    extend_list(&mut headers, VIA, via);
    headers
}

/// Copies the headers of a node's answer to the client's. The length is one line there, however
/// often the node told it.
pub(super) fn response(answered: &HeaderMap, headers: &mut actix::HeaderMap) {
    let connection = answered.get_all(http::header::CONNECTION);
    let nominated = nominated(connection.iter().map(HeaderValue::as_bytes));
    for (name, value) in answered {
        if ends_here(name.as_str(), &nominated) {
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
pub(super) fn is_loop(received: &actix::HeaderMap, via: &str) -> bool {
    let by = via.rsplit(' ').next().unwrap_or(via);
    let mut vias = received
        .get_all(actix::VIA)
        .filter_map(|value| value.to_str().ok());
    vias.any(|list| list.split([',', ' ']).any(|word| word == by))
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
fn extend_list(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
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
        request(&received(lines), Some([192, 0, 2, 7].into()), VIA_US)
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
        assert!(is_loop(
            &received(&[("via", "1.0 edge"), ("via", "1.1 x,1.1 gateway-1a2b")]),
            VIA_US
        ));
        assert!(!is_loop(
            &received(&[("via", "1.1 gateway-1a2c, 1.1 gateway")]),
            VIA_US
        ));
        assert!(!is_loop(&received(&[]), VIA_US));
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
