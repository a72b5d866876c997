//! The encoder of responses: [RFC 9112, sections 4, 6 and 7][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-4

#![allow(
    clippy::disallowed_types,
    reason = "the field Date contains a point in time"
)]

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_http::body::BodySize;
use actix_http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use actix_http::{Response, ResponseHead, StatusCode, Version};
use bytes::{BufMut, Bytes, BytesMut};

use crate::head::Semantics;

/// Room for a head without its fields, and for a field, in bytes.
const HEAD_BYTES: usize = 192;
const FIELD_BYTES: usize = 48;

/// The length of a date as HTTP writes it, in bytes.
const DATE_BYTES: usize = 29;

/// A response's reason phrase, when it is not the usual one of its status. It goes into the response's
/// extensions and consists of visible characters, blanks and tabs.
#[derive(Clone, Debug)]
pub struct ReasonPhrase(pub Bytes);

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiting {
    /// There is none, whatever the fields contain.
    None,
    /// By `content-length`.
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

impl Delimiting {
    pub(crate) fn new(head: &ResponseHead, size: BodySize, request: Semantics) -> Self {
        let status = head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Self::UntilClose;
        }
        if request.is_head || has_no_body(status) {
            return Self::None;
        }
        match size {
            BodySize::None => Self::Length(0),
            BodySize::Sized(length) => Self::Length(length),
            BodySize::Stream if request.version < Version::HTTP_11 || !head.chunked() => {
                Self::UntilClose
            }
            BodySize::Stream => Self::Chunked,
        }
    }
}

/// Whether a response with this status never has a body ([RFC 9112, section 6.3][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Writes a response's head. `closes` is whether the connection ends with the response.
pub(crate) fn put_head<B>(
    out: &mut BytesMut,
    response: &Response<B>,
    size: BodySize,
    request: Semantics,
    closes: bool,
) {
    let head = response.head();
    out.reserve(HEAD_BYTES + head.headers.len() * FIELD_BYTES);
    put_status_line(out, response, request.version);
    put_connection(out, head, request.version, closes);
    let has_length = put_framing(out, head, size, request);
    let mut has_date = false;
    for (name, value) in &head.headers {
        match *name {
            CONNECTION | TRANSFER_ENCODING => continue,
            CONTENT_LENGTH if has_length || head.status != StatusCode::NOT_MODIFIED => continue,
            DATE => has_date = true,
            _ => {}
        }
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    if !has_date {
        out.put_slice(b"date: ");
        out.put_slice(&date());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}

fn put_status_line<B>(out: &mut BytesMut, response: &Response<B>, version: Version) {
    out.put_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    let status = response.status();
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    if let Some(ReasonPhrase(phrase)) = response.extensions().get() {
        out.put_slice(phrase);
    } else {
        out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Writes what becomes of the connection, where that is not the version's default.
fn put_connection(out: &mut BytesMut, head: &ResponseHead, version: Version, closes: bool) {
    let persistence = match (version, closes) {
        _ if head.status == StatusCode::SWITCHING_PROTOCOLS => None,
        (Version::HTTP_10, false) => Some("keep-alive"),
        (Version::HTTP_10, true) | (_, false) => None,
        (_, true) => Some("close"),
    };
    // A field `upgrade` needs the option (RFC 9110, section 7.8).
    let upgrade = head.headers.contains_key(UPGRADE).then_some("upgrade");
    let mut separator = "connection: ";
    for option in [persistence, upgrade].into_iter().flatten() {
        out.put_slice(separator.as_bytes());
        out.put_slice(option.as_bytes());
        separator = ", ";
    }
    if separator == ", " {
        out.put_slice(b"\r\n");
    }
}

/// Writes the field that delimits the body. Returns whether that is a length.
fn put_framing(
    out: &mut BytesMut,
    head: &ResponseHead,
    size: BodySize,
    request: Semantics,
) -> bool {
    let length = match Delimiting::new(head, size, request) {
        Delimiting::Length(length) => length,
        Delimiting::Chunked => {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            return false;
        }
        Delimiting::None if request.is_head && !has_no_body(head.status) => {
            let get = Semantics {
                is_head: false,
                ..request
            };
            return size != BodySize::None && put_framing(out, head, size, get);
        }
        Delimiting::None => return false,
        Delimiting::UntilClose => return false,
    };
    out.put_slice(b"content-length: ");
    put_number(out, length);
    out.put_slice(b"\r\n");
    true
}

/// Writes a decimal number.
fn put_number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.put_slice(&digits[start..]);
        }
    }
}

/// Writes the head of a chunk with this many bytes.
pub(crate) fn put_chunk_size(out: &mut BytesMut, mut size: usize) {
    let mut digits = [0; 2 * size_of::<usize>()];
    let mut start = digits.len();
    while size > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b"0123456789ABCDEF"[size % 16];
        size /= 16;
    }
    out.put_slice(&digits[start..]);
    out.put_slice(b"\r\n");
}

/// Returns the time as HTTP writes it. It is formatted once in a second and thread.
fn date() -> [u8; DATE_BYTES] {
    thread_local! {
        static LAST: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((0, [b' '; DATE_BYTES])) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (last, mut date) = LAST.get();
    if second != last {
        let text = httpdate::HttpDate::from(now).to_string();
        if let Ok(text) = text.as_bytes().try_into() {
            date = text;
        }
        LAST.set((second, date));
    }
    date
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;

    const GET: Semantics = Semantics {
        version: Version::HTTP_11,
        is_head: false,
        keeps_alive: true,
        expects_continue: false,
        proposes_upgrade: false,
    };
    const HEAD: Semantics = Semantics {
        is_head: true,
        ..GET
    };
    const OLD: Semantics = Semantics {
        version: Version::HTTP_10,
        ..GET
    };

    /// Returns a response's head without its date, its lines joined by `|`.
    fn head(response: &Response<()>, size: BodySize, request: Semantics, closes: bool) -> String {
        let mut out = BytesMut::new();
        put_head(&mut out, response, size, request, closes);
        let text = std::str::from_utf8(&out).unwrap();
        let (lines, end) = text.split_once("\r\n\r\n").expect("an empty line");
        assert_eq!(end, "");
        let lines = lines
            .split("\r\n")
            .filter(|line| !line.starts_with("date: "));
        lines.collect::<Vec<_>>().join("|")
    }

    fn response(status: u16) -> Response<()> {
        let status = StatusCode::from_u16(status).unwrap();
        Response::with_body(status, ())
    }

    #[test]
    fn a_response_has_one_framing() {
        let (sized, stream) = (BodySize::Sized(5), BodySize::Stream);
        for (status, size, request, expected) in [
            (200, sized, GET, "HTTP/1.1 200 OK|content-length: 5"),
            (
                200,
                stream,
                GET,
                "HTTP/1.1 200 OK|transfer-encoding: chunked",
            ),
            (
                200,
                BodySize::None,
                GET,
                "HTTP/1.1 200 OK|content-length: 0",
            ),
            (200, sized, HEAD, "HTTP/1.1 200 OK|content-length: 5"),
            (
                200,
                stream,
                HEAD,
                "HTTP/1.1 200 OK|transfer-encoding: chunked",
            ),
            (200, BodySize::None, HEAD, "HTTP/1.1 200 OK"),
            (200, stream, OLD, "HTTP/1.0 200 OK|connection: keep-alive"),
            (204, sized, GET, "HTTP/1.1 204 No Content"),
            (
                304,
                sized,
                GET,
                "HTTP/1.1 304 Not Modified|content-length: 7",
            ),
            (600, sized, GET, "HTTP/1.1 600 |content-length: 5"),
        ] {
            let mut response = response(status);
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            assert_eq!(head(&response, size, request, false), expected);
        }
    }

    #[test]
    fn the_connection_field_differs_from_the_default_only() {
        let mut upgrade = response(426);
        let websocket = HeaderValue::from_static("websocket");
        upgrade.headers_mut().insert(UPGRADE, websocket);
        let connection = |response: &Response<()>, request, closes| {
            let head = head(response, BodySize::Sized(0), request, closes);
            let mut lines = head.split('|');
            lines.find_map(|line| Some(line.strip_prefix("connection: ")?.to_owned()))
        };
        for (request, closes, plain, upgrades) in [
            (GET, false, None, "upgrade"),
            (GET, true, Some("close"), "close, upgrade"),
            (OLD, false, Some("keep-alive"), "keep-alive, upgrade"),
            (OLD, true, None, "upgrade"),
        ] {
            assert_eq!(
                connection(&response(200), request, closes).as_deref(),
                plain
            );
            assert_eq!(
                connection(&upgrade, request, closes).as_deref(),
                Some(upgrades)
            );
        }
        *upgrade.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let switched = connection(&upgrade, GET, true);
        assert_eq!(switched.as_deref(), Some("upgrade"));
    }

    #[test]
    fn a_reason_phrase_replaces_the_usual_one() {
        let mut response = response(200);
        let phrase = ReasonPhrase(Bytes::from_static(b"Fine"));
        response.extensions_mut().insert(phrase);
        let head = head(&response, BodySize::None, HEAD, false);
        assert_eq!(head, "HTTP/1.1 200 Fine");
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 15, 16, 65_535, 65_536, usize::MAX] {
            let mut out = BytesMut::new();
            put_number(&mut out, number as u64);
            out.put_u8(b' ');
            put_chunk_size(&mut out, number);
            assert_eq!(out, format!("{number} {number:X}\r\n"));
        }
    }

    #[test]
    fn a_date_is_that_of_now() {
        let date = httpdate::parse_http_date(std::str::from_utf8(&date()).unwrap());
        let age = SystemTime::now().duration_since(date.unwrap()).unwrap();
        assert!(age.as_secs() < 60, "{age:?}");
    }
}
