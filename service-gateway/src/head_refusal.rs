//! Refusals before there is a request: its head is malformed, too large or too slow.
//!
//! actix-http answers what its parser refuses itself, with a bare 400 or 431 and without a hook. The
//! guard around the connection recognizes such a response ([`written_by_parser`]) and sends one from
//! here in its place: counted, logged, and with a request id like any other.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::RequestHead;
use actix_http::error::ParseError;
use bytes::Bytes;
use httparse::Status;
use tokio::time::Instant;

use crate::access_log::{self, AccessLog, Line};
use crate::error::{Reason, Refusal};
use crate::metrics::{Served, Tally};
use crate::proxy::new_request_id;

/// The longest target that actix-http takes, in bytes: the limit of `http::Uri`.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;

/// The maximum size of a request's head in bytes. actix-http checks it only while a head is incomplete.
pub(crate) const MAX_HEAD_BYTES: usize = 128 << 10;

/// The maximum size of a registered method in bytes.
const MAX_METHOD_BYTES: usize = 24;

/// Answers, counts and logs the refusals of one worker.
pub(crate) struct HeadRefusals {
    tally: Rc<Tally>,
    access_log: Option<Arc<AccessLog>>,
}

/// The first line of a head, as far as it has been received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstLine {
    bytes: usize,
    is_whole: bool,
}

impl HeadRefusals {
    pub(crate) fn new(tally: Rc<Tally>, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { tally, access_log }
    }

    /// Counts and logs a refusal. Returns the response, after which the connection has to be closed.
    pub(crate) fn refuse(&self, reason: Reason, client: Option<IpAddr>, began: Instant) -> Bytes {
        let refusal = reason.because(detail(reason));
        let (status, body, id) = (reason.status(), refusal.problem(), new_request_id());
        let id = id.to_str().unwrap_or_default();
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             connection: close\r\nx-request-id: {id}\r\nx-gateway-attempts: 0\r\n\r\n{body}",
            body.len()
        );
        let duration = began.elapsed();
        self.tally.refused(reason);
        self.tally
            .answered(Served::default(), status.as_u16(), duration);
        if let Some(log) = &self.access_log {
            log.write(Line {
                time: access_log::came(duration),
                client,
                method: None,
                path: None,
                status: status.as_u16(),
                service: None,
                instance: None,
                version: None,
                attempts: 0,
                duration,
                bytes: body.len() as u64,
                request_id: id.to_owned(),
                trace_id: None,
            });
        }
        response.into()
    }
}

impl FirstLine {
    /// Counts bytes that have been received for the head. Line ends in front of it do not count.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        if self.is_whole {
            return;
        }
        let bytes = match self.bytes {
            0 => bytes.trim_ascii_start(),
            _ => bytes,
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        if self.bytes == 0 && end.is_none() && !may_begin_line(bytes) {
            self.is_whole = true;
            return;
        }
        self.bytes += end.unwrap_or(bytes.len());
        self.is_whole = end.is_some();
    }

    fn is_too_long(self) -> bool {
        self.bytes > MAX_TARGET_BYTES
    }
}

/// Whether a first line may begin with these bytes: with a method and a space. Of a pipelined head the
/// first bytes may have been received together with an earlier request, so that these are later ones.
fn may_begin_line(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(MAX_METHOD_BYTES)];
    let is_letter = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    match start.iter().position(|byte| !is_letter(byte)) {
        Some(end) => end > 0 && start[end] == b' ',
        None => bytes.len() < MAX_METHOD_BYTES,
    }
}

/// Recognizes a response that actix-http's parser has caused: a bare head, without the request id that
/// all others have.
pub(crate) fn written_by_parser(bytes: &[u8], line: FirstLine) -> Option<Reason> {
    let mut headers = [httparse::EMPTY_HEADER; 4];
    let mut response = httparse::Response::new(&mut headers);
    let is_whole = response.parse(bytes) == Ok(Status::Complete(bytes.len()));
    let mut names = response.headers.iter().map(|header| header.name);
    let is_bare = |name| ["content-length", "connection", "date"].contains(&name);
    if !is_whole || !names.all(is_bare) {
        return None;
    }
    match response.code {
        Some(400 | 431) if line.is_too_long() => Some(Reason::TargetTooLong),
        Some(400) => Some(Reason::BadRequest),
        Some(431) => Some(Reason::HeadTooLarge),
        _ => None,
    }
}

/// Checks the size of a head that the parser has accepted because its last bytes were received at once.
/// Optional whitespace is not counted.
///
/// # Errors
/// If it exceeds [`MAX_HEAD_BYTES`].
pub(crate) fn check_size(head: &RequestHead) -> Result<(), Refusal> {
    let line = head.method.as_str().len() + head.uri.to_string().len() + "  HTTP/1.1\r\n".len();
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ":\r\n".len());
    let bytes = line + fields.sum::<usize>() + "\r\n".len();
    if bytes > MAX_HEAD_BYTES {
        return Err(Reason::HeadTooLarge.because(detail(Reason::HeadTooLarge)));
    }
    Ok(())
}

/// The reason for which the parser ended a connection.
pub(crate) fn reason_of(error: &ParseError) -> Reason {
    match error {
        ParseError::TooLarge => Reason::HeadTooLarge,
        _ => Reason::BadRequest,
    }
}

fn detail(reason: Reason) -> &'static str {
    match reason {
        Reason::TargetTooLong => "the request's target is longer than 65534 bytes",
        Reason::HeadTooLarge => "the request's head has more than 96 fields or 128 KiB",
        Reason::SlowRequest => "the request's head came too slowly",
        _ => "the request's head is malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[&[u8]]) -> FirstLine {
        let mut line = FirstLine::default();
        pieces.iter().for_each(|piece| line.received(piece));
        line
    }

    fn reason(response: &str, line: FirstLine) -> Option<Reason> {
        written_by_parser(response.as_bytes(), line)
    }

    #[test]
    fn a_bare_head_is_the_parsers() {
        let short = line(&[b"GET / HTTP/1.1\r\n"]);
        let rest =
            "content-length: 0\r\nconnection: close\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
        let bad = format!("HTTP/1.1 400 Bad Request\r\n{rest}");
        assert_eq!(reason(&bad, short), Some(Reason::BadRequest));
        let large = format!("HTTP/1.1 431 Request Header Fields Too Large\r\n{rest}");
        assert_eq!(reason(&large, short), Some(Reason::HeadTooLarge));
        let long = line(&[b"GET /", &[b'a'; 70_000]]);
        assert_eq!(reason(&bad, long), Some(Reason::TargetTooLong));
        assert_eq!(reason(&large, long), Some(Reason::TargetTooLong));
        for other in [
            format!("HTTP/1.1 200 OK\r\n{rest}"),
            format!("HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\n{rest}"),
            format!("{bad}x"),
            bad[1..].to_owned(),
            bad[..bad.len() - 1].to_owned(),
        ] {
            assert_eq!(reason(&other, short), None, "{other:?}");
        }
    }

    #[test]
    fn the_middle_of_a_pipelined_head_is_no_first_line() {
        let target = [b'a'; 70_000];
        for start in [&b"GET /"[..], b"G", b"M-SEARCH /", b"\r\nPUT /"] {
            assert!(line(&[start, b" ", &target]).is_too_long());
        }
        for start in [&b"xyz"[..], b"x: y", b"/index", b" y", &[b'A'; 100]] {
            assert!(!line(&[start, &target]).is_too_long(), "{start:?}");
        }
    }

    #[test]
    fn a_first_line_ends_once() {
        for pieces in [
            &[&b"GET / HTTP/1.1\r\nhost: a\r\n"[..]][..],
            &[b"\r\n", b"\r\nGET /", b" HTTP/1.1\r", b"\nhost", b": a"],
        ] {
            let line = line(pieces);
            assert_eq!((line.bytes, line.is_whole), (15, true), "{pieces:?}");
        }
        assert!(!line(&[&[b'a'; MAX_TARGET_BYTES]]).is_too_long());
    }
}
