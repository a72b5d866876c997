//! The head of a response: [RFC 9112, sections 4 to 6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-4

use std::mem::MaybeUninit;

use actix_http::StatusCode;
use actix_http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use bytes::{Buf, Bytes, BytesMut};
use http1::Framing;
use httparse::{ParserConfig, Status};

use crate::error::ParseError;
use crate::fields::{connection_options, is_hop_by_hop, nominated};
use crate::request::RequestInfo;

/// The maximum number of field lines.
const MAX_FIELDS: usize = 100;

/// The maximum size of a head, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The maximum size of a body, in bytes. Clients may use a signed integer.
const MAX_BODY_BYTES: u64 = i64::MAX as u64;

/// The maximum number of fields that are added on the way to the client. With room for them the map need
/// not grow.
const ADDED_FIELDS: usize = 8;

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// The reason phrase, if it differs from the standard one. It may be empty, and contains visible ASCII
    /// characters, tabs, blanks and bytes from 0x80 on ([RFC 9112, section 4][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-4
    pub reason: Option<Bytes>,
    /// The fields without hop-by-hop fields, and without `Content-Length`.
    pub headers: HeaderMap,
    /// The value of `Content-Length`. Without a body it is the length of what a GET would return.
    pub length: Option<u64>,
    /// Set if the connection cannot be reused after this response.
    pub closes: bool,
}

impl ResponseHead {
    /// Parses a head, removes it from `received`, and returns it with the framing of the body. Returns `None`
    /// if it is not complete.
    ///
    /// # Errors
    /// If the head is malformed, or its framing is ambiguous: another parser could find a different end of
    /// the body ([RFC 9112, section 6.3][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    pub fn parse(
        received: &mut BytesMut,
        info: RequestInfo,
    ) -> Result<Option<(Self, Framing)>, ParseError> {
        if received.is_empty() {
            return Ok(None);
        }
        lower_minor_version(received);
        let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let config = ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, received, &mut lines);
        let length = match parsed.map_err(ParseError::malformed)? {
            Status::Complete(length) if length <= MAX_HEAD_BYTES => length,
            Status::Partial if received.len() <= MAX_HEAD_BYTES => return Ok(None),
            _ => return Err(ParseError::malformed("its head is too long")),
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(ParseError::malformed)?;
        let fields = if is_interim(status) {
            Fields::parse(&[])? // they are dropped
        } else {
            Fields::parse(response.headers)?
        };
        let is_http10 = response.version != Some(1);
        let framing = framing(status, info, &fields, is_http10)?;
        // A body after 204 would be read as the next response.
        let has_unexpected_body = status == StatusCode::NO_CONTENT && fields.has_body();
        let closes = fields.close || (is_http10 && !fields.keep_alive) || has_unexpected_body;
        let head = Self {
            status,
            reason: custom_reason(status, &received[..length]),
            headers: fields.headers,
            length: fields.length,
            closes: closes || status == StatusCode::SWITCHING_PROTOCOLS,
        };
        received.advance(length);
        Ok(Some((head, framing)))
    }

    /// Returns whether another response follows to the same request.
    pub(crate) fn is_interim(&self) -> bool {
        is_interim(self.status)
    }
}

/// Replaces a minor version above 1 by 1, which the parser accepts. A recipient reads such a message as
/// one of the highest minor version that it implements ([RFC 9110, section 2.5][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-2.5
fn lower_minor_version(received: &mut [u8]) {
    let is_line_end = |byte: &u8| b"\r\n".contains(byte);
    let start = received.iter().take_while(|byte| is_line_end(byte)).count();
    if let Some(
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'2'..=b'9',
            ..,
        ],
    ) = received.get_mut(start..)
    {
        *minor = b'1';
    }
}

/// Returns the reason phrase of a parsed head, if it differs from the standard one. The parser omits a reason
/// phrase with bytes from 0x80 on.
fn custom_reason(status: StatusCode, head: &[u8]) -> Option<Bytes> {
    let mut lines = head.split(|byte| b"\r\n".contains(byte));
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let reason = line.get("HTTP/1.1 200 ".len()..).unwrap_or_default();
    let standard = status.canonical_reason().map(str::as_bytes);
    (standard != Some(reason)).then(|| Bytes::copy_from_slice(reason))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The parsed fields of a head.
struct Fields {
    /// Those that are forwarded.
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    fn parse(lines: &[httparse::Header<'_>]) -> Result<Self, ParseError> {
        let mut fields = Self {
            headers: HeaderMap::with_capacity(lines.len() + ADDED_FIELDS),
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
        };
        let mut hop_by_hop = Vec::new();
        for line in lines {
            let name = HeaderName::from_bytes(line.name.as_bytes());
            match name.map_err(ParseError::malformed)? {
                CONNECTION => {
                    let has = |option: &[u8]| {
                        connection_options(line.value).any(|one| one.eq_ignore_ascii_case(option))
                    };
                    fields.close |= has(b"close");
                    fields.keep_alive |= has(b"keep-alive");
                    hop_by_hop.extend(nominated(line.value));
                }
                CONTENT_LENGTH => fields.length = Some(same_length(fields.length, line.value)?),
                TRANSFER_ENCODING => {
                    if fields.chunked || !line.value.eq_ignore_ascii_case(b"chunked") {
                        let fault = "the response has a transfer coding other than chunked";
                        return Err(ParseError::AmbiguousFraming(fault));
                    }
                    fields.chunked = true;
                }
                name if is_hop_by_hop(name.as_str()) => {}
                name => {
                    let value = HeaderValue::from_bytes(line.value);
                    fields
                        .headers
                        .append(name, value.map_err(ParseError::malformed)?);
                }
            }
        }
        for name in hop_by_hop {
            if let Ok(name) = std::str::from_utf8(name) {
                fields.headers.remove(name);
            }
        }
        Ok(fields)
    }

    fn has_body(&self) -> bool {
        self.chunked || self.length > Some(0)
    }
}

/// Returns the framing of the body ([RFC 9112, section 6.3][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
fn framing(
    status: StatusCode,
    info: RequestInfo,
    fields: &Fields,
    is_http10: bool,
) -> Result<Framing, ParseError> {
    let ambiguous = |fault| Err(ParseError::AmbiguousFraming(fault));
    if status == StatusCode::SWITCHING_PROTOCOLS && !info.is_upgrade {
        return ambiguous("the response switches protocols without a request to do so");
    }
    if fields.chunked && is_http10 {
        return ambiguous("the response has chunks, which HTTP/1.0 does not have");
    }
    if fields.chunked && fields.length.is_some() {
        return ambiguous("the answer has a length and chunks");
    }
    if info.is_head || status.is_informational() || [204, 304].contains(&status.as_u16()) {
        return Ok(Framing::Length(0));
    }
    Ok(match fields.length {
        _ if fields.chunked => Framing::CHUNKED,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Returns the value of `Content-Length`. All of its elements, and `earlier` ones, have to be the same number.
fn same_length(earlier: Option<u64>, value: &[u8]) -> Result<u64, ParseError> {
    let number = |text: &[u8]| {
        let digits = text.trim_ascii();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let length = is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?;
        length.filter(|length| *length <= MAX_BODY_BYTES)
    };
    let mut lengths = value.split(|byte| *byte == b',').map(number);
    let length = lengths.next().flatten();
    let is_same =
        lengths.all(|one| one == length) && earlier.is_none_or(|earlier| Some(earlier) == length);
    length
        .filter(|_| is_same)
        .ok_or_else(|| ParseError::malformed("invalid Content-Length"))
}

#[cfg(test)]
mod tests;
