//! The head of a node's answer: [RFC 9112, sections 4 to 6][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-4

use std::mem::MaybeUninit;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use bytes::{Buf, Bytes, BytesMut};
use httparse::{ParserConfig, Status};

use super::connection::Unanswered;
use super::headers::{self, ends_here, options};
use http1::Framing;

/// The most lines it may have.
const LINES: usize = 100;

/// The longest that it may be, in bytes.
const LONGEST: usize = 64 << 10;

/// The longest body, in bytes. Whoever reads on may count with a sign.
const LARGEST: u64 = i64::MAX as u64;

/// As many headers are added on the way to the client, at most. With room for them the map need not
/// grow.
const ADDED: usize = 8;

/// An answer without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// The reason phrase, if it is not the status's own. It may be empty, and contains visible ASCII
    /// characters, tabs, blanks and bytes from 0x80 on ([RFC 9112, section 4][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-4
    pub(super) reason: Option<Bytes>,
    /// Without those that end here, and without the length.
    pub(super) headers: HeaderMap,
    /// How long the body is, or would be.
    pub(super) length: Option<u64>,
    /// Whether the connection is of no use behind it.
    pub(super) closes: bool,
}

/// What an answer means depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// For the head alone.
    pub(super) head: bool,
    /// To go on with another protocol.
    pub(super) upgrade: bool,
}

impl Head {
    /// Takes it off what has come, and tells how its body ends. `None` until all of it is there.
    ///
    /// # Errors
    /// [`Unanswered::Nonsense`] if it makes no sense, [`Unanswered::Unclear`] if it could be read in
    /// another way: where the body ends would be known here, and not to whoever reads on
    /// ([RFC 9112, section 6.3][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
    pub(super) fn take(
        received: &mut BytesMut,
        asked: Asked,
    ) -> Result<Option<(Self, Framing)>, Unanswered> {
        if received.is_empty() {
            return Ok(None);
        }
        lower_minor_version(received);
        let mut lines = [const { MaybeUninit::uninit() }; LINES];
        let mut answer = httparse::Response::new(&mut []);
        let config = ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut answer, received, &mut lines);
        let length = match parsed.map_err(nonsense)? {
            Status::Complete(length) if length <= LONGEST => length,
            Status::Partial if received.len() <= LONGEST => return Ok(None),
            _ => return Err(nonsense("its head is too long")),
        };
        let status = StatusCode::from_u16(answer.code.unwrap_or_default()).map_err(nonsense)?;
        let told = match is_interim(status) {
            true => Told::by(&[])?, // nobody reads it
            false => Told::by(answer.headers)?,
        };
        let is_old = answer.version != Some(1);
        let framing = framing(status, asked, &told, is_old)?;
        // A body where none may be would be met by the next request.
        let is_spoilt = status == StatusCode::NO_CONTENT && told.has_body();
        let closes = told.close || (is_old && !told.keep_alive) || is_spoilt;
        let head = Self {
            status,
            reason: own_reason(status, &received[..length]),
            headers: told.headers,
            length: told.length,
            closes: closes || status == StatusCode::SWITCHING_PROTOCOLS,
        };
        received.advance(length);
        Ok(Some((head, framing)))
    }

    /// Whether the answer is still to come.
    pub(super) fn is_interim(&self) -> bool {
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

/// Returns the reason phrase of a head that was parsed, if it differs from the status's own. The parser
/// omits one with bytes from 0x80 on.
fn own_reason(status: StatusCode, head: &[u8]) -> Option<Bytes> {
    let mut lines = head.split(|byte| b"\r\n".contains(byte));
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let reason = line.get("HTTP/1.1 200 ".len()..).unwrap_or_default();
    let own = status.canonical_reason().map(str::as_bytes);
    (own != Some(reason)).then(|| Bytes::copy_from_slice(reason))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// What a head's lines tell.
struct Told {
    /// Those that go on.
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Told {
    fn by(lines: &[httparse::Header<'_>]) -> Result<Self, Unanswered> {
        let mut told = Self {
            headers: HeaderMap::with_capacity(lines.len() + ADDED),
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
        };
        let mut nominated = Vec::new();
        for line in lines {
            match HeaderName::from_bytes(line.name.as_bytes()).map_err(nonsense)? {
                CONNECTION => {
                    let has = |one: &[u8]| options(line.value).any(|o| o.eq_ignore_ascii_case(one));
                    told.close |= has(b"close");
                    told.keep_alive |= has(b"keep-alive");
                    nominated.extend(headers::nominated(line.value));
                }
                CONTENT_LENGTH => told.length = Some(same_length(told.length, line.value)?),
                TRANSFER_ENCODING => {
                    if told.chunked || !line.value.eq_ignore_ascii_case(b"chunked") {
                        let what = "the answer has a transfer coding that nobody asked for";
                        return Err(Unanswered::Unclear(what));
                    }
                    told.chunked = true;
                }
                name if ends_here(name.as_str()) => {}
                name => {
                    let value = HeaderValue::from_bytes(line.value).map_err(nonsense)?;
                    told.headers.append(name, value);
                }
            }
        }
        let names = nominated.into_iter().map(std::str::from_utf8);
        names
            .flatten()
            .for_each(|name| drop(told.headers.remove(name)));
        Ok(told)
    }

    fn has_body(&self) -> bool {
        self.chunked || self.length > Some(0)
    }
}

/// Where the body ends ([RFC 9112, section 6.3][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
fn framing(
    status: StatusCode,
    asked: Asked,
    told: &Told,
    is_old: bool,
) -> Result<Framing, Unanswered> {
    if status == StatusCode::SWITCHING_PROTOCOLS && !asked.upgrade {
        let what = "the answer switches protocols, and nobody asked for that";
        return Err(Unanswered::Unclear(what));
    }
    if told.chunked && is_old {
        let what = "the answer has chunks, which HTTP/1.0 does not know";
        return Err(Unanswered::Unclear(what));
    }
    if told.chunked && told.length.is_some() {
        return Err(Unanswered::Unclear("the answer has a length and chunks"));
    }
    if asked.head || status.is_informational() || [204, 304].contains(&status.as_u16()) {
        return Ok(Framing::Length(0));
    }
    Ok(match told.length {
        _ if told.chunked => Framing::CHUNKED,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// One length, however often it is told.
fn same_length(told: Option<u64>, value: &[u8]) -> Result<u64, Unanswered> {
    let number = |text: &[u8]| {
        let digits = text.trim_ascii();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let length = is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?;
        length.filter(|length| *length <= LARGEST)
    };
    let mut lengths = value.split(|byte| *byte == b',').map(number);
    let length = lengths.next().flatten();
    let same = lengths.all(|one| one == length) && told.is_none_or(|told| Some(told) == length);
    length
        .filter(|_| same)
        .ok_or_else(|| nonsense("its length is none"))
}

fn nonsense(what: impl Into<Box<dyn std::error::Error>>) -> Unanswered {
    Unanswered::Nonsense(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str, asked: Asked) -> Result<(Head, Framing), Unanswered> {
        let text = format!(
            "HTTP/1.1 {}\r\n\r\nrest",
            lines.trim().replace('\n', "\r\n")
        );
        let mut received = BytesMut::from(&*text);
        let head = Head::take(&mut received, asked)?.expect("all of it is there");
        assert_eq!(received, "rest");
        Ok(head)
    }

    fn framing_of(lines: &str) -> Framing {
        head(lines, Asked::default()).unwrap().1
    }

    #[test]
    fn a_head_is_taken_when_all_of_it_is_there() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let mut received = BytesMut::new();
        for byte in text {
            assert!(
                Head::take(&mut received, Asked::default())
                    .unwrap()
                    .is_none()
            );
            received.extend_from_slice(&[*byte]);
        }
        let (head, framing) = Head::take(&mut received, Asked::default())
            .unwrap()
            .unwrap();
        assert_eq!((head.status.as_u16(), head.length), (200, Some(5)));
        assert_eq!(framing, Framing::Length(5));
        assert!(received.is_empty() && head.headers.is_empty() && !head.closes);
    }

    #[test]
    fn cookies_stay_and_what_is_about_the_connection_ends_here() {
        let lines = "200 OK\nSet-Cookie: a=1\nset-cookie: b=2\nConnection: x-hop, Via\nX-Hop: 1\n\
            via: 1.1 node\nkeep-alive: timeout=5\nupgrade: h2c\ntransfer-encoding: chunked";
        let (head, _) = head(lines, Asked::default()).unwrap();
        let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["set-cookie", "set-cookie", "via"]);
    }

    #[test]
    fn the_head_says_where_the_body_ends() {
        assert_eq!(framing_of("200 OK\ncontent-length: 5"), Framing::Length(5));
        let largest = framing_of("200 OK\ncontent-length: 9223372036854775807");
        assert_eq!(largest, Framing::Length(LARGEST));
        assert_eq!(
            framing_of("200 OK\ncontent-length: 5\ncontent-length: 5, 5"),
            Framing::Length(5)
        );
        assert_eq!(
            framing_of("200 OK\ntransfer-encoding: Chunked"),
            Framing::CHUNKED
        );
        assert_eq!(framing_of("200 OK"), Framing::UntilClose);
        for bodiless in ["103 Early Hints", "204 No Content", "304 Not Modified"] {
            assert_eq!(framing_of(bodiless), Framing::Length(0));
            assert_eq!(
                framing_of(&format!("{bodiless}\ncontent-length: 5")),
                Framing::Length(0)
            );
        }
        let asked = Asked {
            head: true,
            upgrade: false,
        };
        for lines in [
            "200 OK\ncontent-length: 5",
            "200 OK\ntransfer-encoding: chunked",
            "200 OK",
        ] {
            assert_eq!(head(lines, asked).unwrap().1, Framing::Length(0));
        }
    }

    #[test]
    fn what_others_could_read_in_another_way_is_unclear() {
        assert_eq!(
            framing_of("103 Early Hints\ntransfer-encoding: gzip"),
            Framing::Length(0)
        );
        for lines in [
            "200 OK\ncontent-length: 5\ntransfer-encoding: chunked",
            "304 Not Modified\ncontent-length: 5\ntransfer-encoding: chunked",
            "200 OK\ntransfer-encoding: gzip, chunked",
            "200 OK\ntransfer-encoding: identity",
            "200 OK\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            "101 Switching Protocols",
        ] {
            let unclear = head(lines, Asked::default());
            assert!(matches!(unclear, Err(Unanswered::Unclear(_))), "{lines}");
        }
        let asked = Asked {
            head: false,
            upgrade: true,
        };
        assert!(head("101 Switching Protocols", asked).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        let many = format!("200 OK{}", "\na: b".repeat(LINES + 1));
        let long = format!("200 OK\na: {}", "b".repeat(LONGEST));
        let lengths = ["-1", "+1", "5, 6", "5,", "", "a", "9223372036854775808"];
        let lengths = lengths.map(|length| format!("200 OK\ncontent-length: {length}"));
        let others = [
            many,
            long,
            "20 OK".into(),
            "200 OK\na b: c".into(),
            "200 OK\na: b\n c".into(),
        ];
        for lines in lengths.iter().chain(&others) {
            let nonsense = head(lines, Asked::default());
            assert!(matches!(nonsense, Err(Unanswered::Nonsense(_))), "{lines}");
        }
        let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\na: ");
        endless.resize(LONGEST, b'b');
        assert!(
            Head::take(&mut endless, Asked::default())
                .unwrap()
                .is_none()
        );
        endless.resize(LONGEST + 1, b'b');
        assert!(Head::take(&mut endless, Asked::default()).is_err());
    }

    #[test]
    fn a_node_says_whether_it_closes() {
        let closes = |text: &str| {
            let mut received = BytesMut::from(text);
            let head = Head::take(&mut received, Asked::default()).unwrap();
            head.expect("all of it is there").0.closes
        };
        assert!(!closes("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!closes("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n"));
        assert!(closes(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nconnection: x, Close\r\n\r\n"
        ));
        assert!(closes("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(closes(
            "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n"
        ));
        assert!(!closes(
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
        ));
        assert!(!closes(
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
        ));
        assert!(!closes("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn a_later_minor_version_is_read_as_1_1() {
        for version in ["HTTP/1.2", "HTTP/1.9", "\r\nHTTP/1.2"] {
            let text = format!("{version} 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut received = BytesMut::from(&*text);
            let head = Head::take(&mut received, Asked::default()).unwrap();
            let (head, framing) = head.unwrap();
            assert!(framing == Framing::CHUNKED && !head.closes, "{version}");
        }
        for version in ["HTTP/1.12", "HTTP/2.0", "HTTP/1.x", "HTTP/1."] {
            let text = format!("{version} 200 OK\r\n\r\n");
            let head = Head::take(&mut BytesMut::from(&*text), Asked::default());
            assert!(matches!(head, Err(Unanswered::Nonsense(_))), "{version}");
        }
    }

    #[test]
    fn a_reason_phrase_of_the_nodes_own_is_kept() {
        for (line, expected) in [
            ("200 OK", None),
            ("404 Not Found", None),
            ("200 ", Some("")),
            ("200", Some("")),
            ("200 ok", Some("ok")),
            ("404 No such\tgreeting ", Some("No such\tgreeting ")),
            ("200  OK", Some(" OK")),
            ("200 \u{e9}t\u{e9}", Some("\u{e9}t\u{e9}")),
            ("600 Custom", Some("Custom")),
            ("999 ", Some("")),
        ] {
            for start in ["HTTP/1.1", "\r\n\nHTTP/1.0"] {
                let text = format!("{start} {line}\r\ncontent-length: 0\r\n\r\n");
                let head = Head::take(&mut BytesMut::from(&*text), Asked::default());
                let (head, _) = head.unwrap().unwrap();
                let reason = head.reason.as_deref();
                assert_eq!(reason, expected.map(str::as_bytes), "{line}");
            }
        }
        for line in ["200 a\0b", "200 a\x7f", "200 a\rb", "200 \x1b[0m"] {
            let text = format!("HTTP/1.1 {line}\r\n\r\n");
            let head = Head::take(&mut BytesMut::from(&*text), Asked::default());
            assert!(matches!(head, Err(Unanswered::Nonsense(_))), "{line}");
        }
    }

    #[test]
    fn http_1_0_knows_no_chunks() {
        let mut received = BytesMut::from("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let head = Head::take(&mut received, Asked::default());
        assert!(matches!(head, Err(Unanswered::Unclear(_))));
    }
}
