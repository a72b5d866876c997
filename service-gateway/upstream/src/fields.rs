//! Hop-by-hop fields: [RFC 9110, section 7.6.1][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1

/// Fields that a proxy does not forward, in lower case. `Expect` is among them, as a server answers it with
/// 100 when the body is first read, and `Trailer`, as trailers are dropped.
const HOP_BY_HOP: [&str; 10] = [
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

/// Fields that `Connection` cannot remove: the framing, and what identifies a request.
const PROTECTED: [&str; 6] = [
    "content-length",
    "host",
    "via",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Returns whether a field, in lower case, is about one connection.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Returns the names that a value of `Connection` adds to the hop-by-hop fields, without those that it
/// cannot remove.
pub fn nominated(connection: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_protected = |name: &[u8]| {
        let is_name = |one: &&str| name.eq_ignore_ascii_case(one.as_bytes());
        PROTECTED.iter().any(is_name)
    };
    connection_options(connection).filter(move |name| !is_protected(name))
}

/// Returns the elements of a value of `Connection`.
pub fn connection_options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    options.filter(|option| !option.is_empty())
}
