//! The fields of a request that are forwarded, removed and added: [RFC 9110, section 7.6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6

use actix_web::http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, VIA};
use bytes::BytesMut;
use upstream::fields::{is_hop_by_hop, nominated};

use super::fields::{put, put_list};
use super::forwarded;
use crate::peer::Peer;

/// Writes the fields of a request for a node, without those that are replaced. `host` is the host that the
/// request is for, which may differ from its `Host`.
pub(super) fn put_all(
    head: &mut BytesMut,
    received: &HeaderMap,
    host: Option<&[u8]>,
    peer: Option<&Peer>,
    via: &HeaderValue,
    is_replaced: impl Fn(&HeaderName) -> bool,
) {
    let connection = received.get_all(CONNECTION).map(HeaderValue::as_bytes);
    let nominated = connection.flat_map(nominated);
    let removed: Vec<_> = nominated
        .filter(|name| !forwarded::is_forwarded(name))
        .collect();
    for (name, value) in received {
        let is_name = |one: &&[u8]| one.eq_ignore_ascii_case(name.as_str().as_bytes());
        let is_removed = is_hop_by_hop(name.as_str()) || removed.iter().any(is_name);
        let is_written_below = *name == VIA || forwarded::is_dropped(name, peer);
        if !is_removed && !is_written_below && !is_replaced(name) {
            put(head, name, value);
        }
    }
    forwarded::put_all(head, received, host, peer);
    let vias = received.get_all(VIA).chain([via]);
    put_list(head, &VIA, vias.map(HeaderValue::as_bytes));
}

/// Returns whether a request has been here before: `Via` contains the name of this process.
pub(super) fn is_loop(received: &HeaderMap, via: &HeaderValue) -> bool {
    let words = |list| <[u8]>::split(list, |byte| b", ".contains(byte));
    let us = words(via.as_bytes()).next_back();
    let mut vias = received.get_all(VIA);
    vias.any(|list| words(list.as_bytes()).any(|word| Some(word) == us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields;
    use actix_web::http::header::HOST;

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
        let peer = Peer::new([192, 0, 2, 7].into(), &[].into());
        let (mut head, via) = (BytesMut::new(), HeaderValue::from_static(VIA_US));
        let received = received(lines);
        let host = received.get(HOST).map(HeaderValue::as_bytes);
        put_all(&mut head, &received, host, Some(&peer), &via, |_| false);
        fields::parse(&head)
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
        headers.get_all(name).map(HeaderValue::as_bytes).collect()
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
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
                "x-forwarded-proto",
                "x-real-ip"
            ]
        );
    }

    #[test]
    fn repeated_fields_and_other_bytes_are_kept() {
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
    fn via_gets_one_more_element() {
        let headers = sent(&[("via", "1.0 edge"), ("via", "1.1 other")]);
        assert_eq!(
            all(&headers, "via"),
            [b"1.0 edge, 1.1 other, 1.1 gateway-1a2b"]
        );
    }

    #[test]
    fn connection_cannot_remove_protected_fields() {
        let headers = sent(&[
            (
                "connection",
                "host, x-forwarded-for, X_Real_IP, Content-Length",
            ),
            ("host", "a"),
            ("content-length", "5"),
        ]);
        assert_eq!(all(&headers, "host"), [b"a"]);
        assert_eq!(all(&headers, "content-length"), [b"5"]);
        assert_eq!(all(&headers, "x-forwarded-for"), [b"192.0.2.7"]);
        assert_eq!(all(&headers, "x-real-ip"), [b"192.0.2.7"]);
    }

    #[test]
    fn its_own_name_in_via_is_a_loop() {
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
