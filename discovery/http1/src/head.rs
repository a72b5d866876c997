//! The parser of a request's head: [RFC 9112, sections 2 to 6][1], on httparse.
//!
//! A head with more than one reading is refused, and its connection closed: where its body ends would be a
//! matter of opinion, and the next request with it ([section 11.2][2]).
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-2
//! [2]: https://www.rfc-editor.org/rfc/rfc9112#section-11.2

use std::fmt;
use std::mem::MaybeUninit;

use actix_http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use actix_http::{ConnectionType, Method, Request, StatusCode, Uri, Version};
use bytes::{Buf, Bytes, BytesMut};
use httparse::Status;

use crate::framing::Framing;

/// The maximum size of a request's head in bytes.
pub const MAX_HEAD_BYTES: usize = 128 << 10;

/// The maximum number of a request's fields.
pub const MAX_FIELDS: usize = 96;

/// The maximum size of a target in bytes: the limit of `http::Uri`.
pub const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;

/// The maximum size of a first line in bytes while its end has not been received: the longest target, and
/// room for a method and a version.
const MAX_LINE_BYTES: usize = MAX_TARGET_BYTES + 64;

/// The reason for which a request's head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is malformed or ambiguous: 400.
    Malformed,
    /// Its target has more than [`MAX_TARGET_BYTES`]: 414.
    TargetTooLong,
    /// It has more than [`MAX_HEAD_BYTES`] or [`MAX_FIELDS`]: 431.
    TooLarge,
    /// It was not complete in time: 408.
    TooSlow,
}

impl HeadError {
    /// Returns the status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the request's head is malformed"),
            Self::TargetTooLong => {
                write!(
                    f,
                    "the request's target is longer than {MAX_TARGET_BYTES} bytes"
                )
            }
            Self::TooLarge => write!(
                f,
                "the request's head has more than {MAX_FIELDS} fields or {} KiB",
                MAX_HEAD_BYTES >> 10
            ),
            Self::TooSlow => f.write_str("the request's head was not received in time"),
        }
    }
}

impl std::error::Error for HeadError {}

/// A request whose head has been received, and what the head decides about the connection.
pub(crate) struct Head {
    pub(crate) request: Request,
    pub(crate) framing: Framing,
    pub(crate) semantics: Semantics,
}

/// What a request's head decides about its response and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Semantics {
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// Whether another request may follow.
    pub(crate) keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// Whether the request proposes another protocol for what follows. If it is not switched to, the
    /// connection is closed: to another reader, what follows may be in that protocol.
    pub(crate) proposes_upgrade: bool,
}

impl Semantics {
    /// What is assumed of a request whose head is refused.
    pub(crate) fn of_refused() -> Self {
        Self {
            version: Version::HTTP_11,
            is_head: false,
            keeps_alive: false,
            expects_continue: false,
            proposes_upgrade: false,
        }
    }
}

impl Head {
    /// Takes a request's head off `received`: `None` if it is not complete.
    ///
    /// # Errors
    /// If it has to be refused.
    pub(crate) fn take(received: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(received, &mut fields) {
            Ok(Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
            Ok(Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
                return Err(HeadError::TooLarge);
            }
            Ok(Status::Partial) => return check_part(received).map(|()| None),
            Err(_) => return Err(HeadError::Malformed),
        };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(HeadError::Malformed);
        };
        if target.len() > MAX_TARGET_BYTES {
            return Err(HeadError::TargetTooLong);
        }
        // A copy, so that a request that is served for long does not keep the read buffer's memory.
        let bytes = Bytes::copy_from_slice(&received[..length]);
        let start = received.as_ptr() as usize;
        let part = |part: &[u8]| {
            let at = part.as_ptr() as usize - start;
            bytes.slice(at..at + part.len())
        };
        let mut request = Request::new();
        let head = request.head_mut();
        head.method = Method::from_bytes(method.as_bytes()).map_err(malformed)?;
        head.uri = Uri::from_maybe_shared(part(target.as_bytes())).map_err(malformed)?;
        head.version = match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let mut fields = Fields::default();
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(malformed)?;
            fields.read(&name, field.value)?;
            let value = HeaderValue::from_maybe_shared(part(field.value)).map_err(malformed)?;
            head.headers.append(name, value);
        }
        let is_http10 = head.version == Version::HTTP_10;
        let framing = fields.framing(is_http10)?;
        if is_http10 && head.method == Method::POST && fields.length.is_none() {
            return Err(HeadError::Malformed); // RFC 1945, section 7.2.2
        }
        if !is_http10 && !head.headers.contains_key(HOST) {
            return Err(HeadError::Malformed); // RFC 9112, section 3.2
        }
        let proposes_upgrade = fields.proposes_upgrade(&head.headers);
        if fields.has_close {
            head.set_connection_type(ConnectionType::Close);
        } else if proposes_upgrade {
            head.set_connection_type(ConnectionType::Upgrade);
        } else if fields.has_keep_alive {
            head.set_connection_type(ConnectionType::KeepAlive);
        }
        let semantics = Semantics {
            version: head.version,
            is_head: head.method == Method::HEAD,
            keeps_alive: !fields.has_close && (!is_http10 || fields.has_keep_alive),
            expects_continue: fields.expects_continue && !is_http10,
            proposes_upgrade: proposes_upgrade || head.method == Method::CONNECT,
        };
        received.advance(length);
        Ok(Some(Self {
            request,
            framing,
            semantics,
        }))
    }
}

/// The fields that decide about the connection.
#[derive(Debug, Default)]
struct Fields {
    length: Option<u64>,
    is_chunked: bool,
    has_host: bool,
    has_close: bool,
    has_keep_alive: bool,
    has_upgrade: bool,
    expects_continue: bool,
}

impl Fields {
    fn read(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), HeadError> {
        match *name {
            CONTENT_LENGTH if self.length.is_none() => self.length = Some(length(value)?),
            TRANSFER_ENCODING if !self.is_chunked && value.eq_ignore_ascii_case(b"chunked") => {
                self.is_chunked = true;
            }
            HOST if !self.has_host => self.has_host = true,
            CONTENT_LENGTH | TRANSFER_ENCODING | HOST => return Err(HeadError::Malformed),
            CONNECTION => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.has_close |= option.eq_ignore_ascii_case(b"close");
                    self.has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.has_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            EXPECT => {
                let mut items = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.expects_continue |= items.any(|i| i.eq_ignore_ascii_case(b"100-continue"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Decides where the body ends ([RFC 9112, section 6.3][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    fn framing(&self, is_http10: bool) -> Result<Framing, HeadError> {
        if !self.is_chunked {
            return Ok(Framing::Length(self.length.unwrap_or_default()));
        }
        if is_http10 || self.length.is_some() {
            return Err(HeadError::Malformed);
        }
        Ok(Framing::CHUNKED)
    }

    fn proposes_upgrade(&self, headers: &HeaderMap) -> bool {
        self.has_upgrade && headers.contains_key(UPGRADE)
    }
}

/// A `Content-Length`: digits only, not a list.
fn length(value: &[u8]) -> Result<u64, HeadError> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number);
    text.and_then(|text| text.parse().ok())
        .ok_or(HeadError::Malformed)
}

/// Checks the size of a head that is not complete.
fn check_part(received: &[u8]) -> Result<(), HeadError> {
    if received.len() > MAX_LINE_BYTES && !received.trim_ascii_start().contains(&b'\n') {
        return Err(HeadError::TargetTooLong);
    }
    if received.len() > MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge);
    }
    Ok(())
}

fn malformed<E>(_: E) -> HeadError {
    HeadError::Malformed
}

/// Returns whether an empty line ends at or behind `from`. Then a head is complete, or never will be.
pub(crate) fn has_empty_line(received: &[u8], from: usize) -> bool {
    let received = &received[from.saturating_sub(2)..];
    let mut ends = received.iter().enumerate().filter(|(_, b)| **b == b'\n');
    ends.any(|(at, _)| matches!(received[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    fn take(text: &str) -> Result<Option<Head>, HeadError> {
        Head::take(&mut BytesMut::from(text))
    }

    fn semantics(lines: &str) -> Semantics {
        let text = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
        take(&text).unwrap().expect("a whole head").semantics
    }

    #[test]
    fn a_head_is_taken_once_it_is_complete() {
        let text = b"\r\nPUT /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\nContent-Length: 3\r\n\r\n";
        let mut received = BytesMut::new();
        for byte in text {
            assert!(Head::take(&mut received).unwrap().is_none());
            received.put_slice(&[*byte]);
        }
        received.put_slice(b"body");
        let head = Head::take(&mut received).unwrap().unwrap();
        assert_eq!(received, "body");
        assert_eq!(head.framing, Framing::Length(3));
        let request = head.request;
        assert_eq!((request.method(), request.path()), (&Method::PUT, "/a"));
        let values: Vec<_> = request.head().headers.get_all("x").collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn the_head_decides_about_the_connection() {
        for (lines, keeps_alive) in [
            ("GET / HTTP/1.1\nhost: a", true),
            ("GET / HTTP/1.1\nhost: a\nconnection: x, Close", false),
            (
                "GET / HTTP/1.1\nhost: a\nconnection: keep-alive\nconnection: close",
                false,
            ),
            ("GET / HTTP/1.0", false),
            ("GET / HTTP/1.0\nconnection: x, Keep-Alive", true),
            ("GET / HTTP/1.0\nconnection: close, keep-alive", false),
        ] {
            assert_eq!(semantics(lines).keeps_alive, keeps_alive, "{lines}");
        }
        for (lines, proposes_upgrade) in [
            (
                "GET / HTTP/1.1\nhost: a\nconnection: upgrade\nupgrade: websocket",
                true,
            ),
            (
                "GET / HTTP/1.1\nhost: a\nconnection: x, Upgrade\nupgrade: h2c",
                true,
            ),
            ("GET / HTTP/1.1\nhost: a\nupgrade: websocket", false),
            ("GET / HTTP/1.1\nhost: a\nconnection: upgrade", false),
            ("CONNECT a:1 HTTP/1.1\nhost: a", true),
        ] {
            assert_eq!(
                semantics(lines).proposes_upgrade,
                proposes_upgrade,
                "{lines}"
            );
        }
        for (lines, expects_continue) in [
            ("PUT / HTTP/1.1\nhost: a\nexpect: 100-Continue", true),
            ("PUT / HTTP/1.1\nhost: a\nexpect: x, 100-continue", true),
            ("PUT / HTTP/1.1\nhost: a\nexpect: 200-ok", false),
            ("PUT / HTTP/1.0\nexpect: 100-continue", false),
        ] {
            assert_eq!(
                semantics(lines).expects_continue,
                expects_continue,
                "{lines}"
            );
        }
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for fields in [
            "",
            "host: a\r\nhost: a",
            "host: a\r\ncontent-length: 1\r\ncontent-length: 1",
            "host: a\r\ncontent-length: 1, 1",
            "host: a\r\ncontent-length: +1",
            "host: a\r\ncontent-length: ",
            "host: a\r\ncontent-length: 18446744073709551616",
            "host: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked",
            "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "host: a\r\ntransfer-encoding: gzip, chunked",
            "host: a\r\ntransfer-encoding: identity",
            "host: a\r\nx : y",
            "host: a\r\nx: y\r\n z",
        ] {
            let head = take(&format!("PUT / HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(head.err(), Some(HeadError::Malformed), "{fields}");
        }
        for line in [
            "}",
            "\0",
            "G@T",
            "GET  /",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
        ] {
            assert_eq!(take(line).err(), Some(HeadError::Malformed), "{line}");
        }
        for head in [
            "POST / HTTP/1.0",
            "PUT / HTTP/1.0\r\ntransfer-encoding: chunked",
        ] {
            let head = take(&format!("{head}\r\n\r\n"));
            assert_eq!(head.err(), Some(HeadError::Malformed));
        }
    }

    #[test]
    fn a_head_has_a_maximum_size() {
        let (start, end) = ("GET / HTTP/1.1\r\nhost: a\r\nx: ", "\r\n\r\n");
        let longest = MAX_HEAD_BYTES - start.len() - end.len();
        let head = |bytes| format!("{start}{}{end}", "x".repeat(bytes));
        assert!(take(&head(longest)).unwrap().is_some());
        assert_eq!(take(&head(longest + 1)).err(), Some(HeadError::TooLarge));
        let part = &head(longest + 10)[..MAX_HEAD_BYTES + 1];
        assert_eq!(take(part).err(), Some(HeadError::TooLarge));
        let many: String = (0..MAX_FIELDS).map(|n| format!("x-{n}: \r\n")).collect();
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
        assert_eq!(take(&many).err(), Some(HeadError::TooLarge));
        let target = |bytes| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(bytes));
        assert!(take(&target(MAX_TARGET_BYTES - 1)).unwrap().is_some());
        assert_eq!(
            take(&target(MAX_TARGET_BYTES)).err(),
            Some(HeadError::TargetTooLong)
        );
        let part = &target(MAX_HEAD_BYTES)[..MAX_LINE_BYTES + 1];
        assert_eq!(take(part).err(), Some(HeadError::TargetTooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Head::take(&mut BytesMut::from(&bytes[..]));
        }

        #[test]
        fn a_complete_head_has_an_empty_line(bytes in "[A-Za-z :/1.\r\n]{0,60}", at in 0_usize..60) {
            let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{bytes}");
            if let Ok(Some(_)) = take(&text) {
                let at = at.min(text.len());
                let seen = has_empty_line(&text.as_bytes()[..at], 0);
                prop_assert!(seen || has_empty_line(text.as_bytes(), at));
            }
        }
    }
}
