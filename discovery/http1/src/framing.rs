//! The end of a message body and its decoder: [RFC 9112, sections 6 and 7][1]. Trailers are dropped.
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6

use bytes::{Buf, Bytes, BytesMut};
use httparse::Status;

/// The maximum number of bytes that is read ahead of a slow consumer.
const READ_AHEAD: usize = 64 << 10;

/// The least number of bytes that room is made for before a read. A small message fits, with its head.
pub const READ_BYTES: usize = 8 << 10;

/// The maximum size of a line with a chunk's size, and of a trailer section, in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The maximum number of trailer fields.
const MAX_TRAILERS: usize = 100;

/// The rest of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// This number of bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All bytes until the end of the connection.
    UntilClose,
}

/// The next part of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The line with the size of the next one.
    Size,
    /// This number of its bytes.
    Data(u64),
    /// The end of the line behind them.
    DataEnd,
    /// The trailer section behind the last one.
    Trailers,
    /// Nothing.
    End,
}

/// The result of decoding what has been received.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the body: at least one.
    Data(Bytes),
    /// More has to be received first.
    Pending,
    /// The body has ended.
    End,
}

/// A chunked body that is malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidChunk(&'static str);

impl Framing {
    /// A chunked body of which nothing has been received.
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size);

    /// Returns whether all of the body was decoded: `false` for one that lasts until the end of the connection.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Returns the number of bytes to make room for before the next read: one more than are left, since
    /// Tokio calls the kernel again after a read that has filled its buffer.
    pub fn room(&self) -> usize {
        let left = match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => *left,
            Self::Chunked(_) => 0,
            Self::UntilClose => u64::MAX,
        };
        let left = usize::try_from(left).unwrap_or(READ_AHEAD);
        left.saturating_add(1).clamp(READ_BYTES, READ_AHEAD)
    }

    /// Takes the next data of the body off `received`.
    ///
    /// # Errors
    /// If a chunk or the trailer section is malformed.
    pub fn decode(&mut self, received: &mut BytesMut) -> Result<Decoded, InvalidChunk> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            Self::Length(left) => Ok(take(left, received)),
            Self::UntilClose => Ok(take(&mut { u64::MAX }, received)),
            Self::Chunked(chunk) => chunk.decode(received),
        }
    }
}

impl Chunk {
    fn decode(&mut self, received: &mut BytesMut) -> Result<Decoded, InvalidChunk> {
        loop {
            *self = match self {
                Self::Size => match size(received)? {
                    None => return Ok(Decoded::Pending),
                    Some(0) => Self::Trailers,
                    Some(size) => Self::Data(size),
                },
                Self::Data(0) => Self::DataEnd,
                Self::Data(left) => return Ok(take(left, received)),
                Self::DataEnd => match received[..] {
                    [] | [b'\r'] => return Ok(Decoded::Pending),
                    [b'\r', b'\n', ..] => {
                        received.advance(2);
                        Self::Size
                    }
                    _ => return Err(InvalidChunk("invalid end of a chunk")),
                },
                Self::Trailers => match trailers(received)? {
                    None => return Ok(Decoded::Pending),
                    Some(()) => Self::End,
                },
                Self::End => return Ok(Decoded::End),
            }
        }
    }
}

fn take(left: &mut u64, received: &mut BytesMut) -> Decoded {
    if received.is_empty() {
        return Decoded::Pending;
    }
    let length = usize::try_from(*left).map_or(received.len(), |left| left.min(received.len()));
    *left -= length as u64;
    Decoded::Data(received.split_to(length).freeze())
}

/// Returns the size of the next chunk once its line is complete. [`httparse`] accepts two lines that other
/// parsers might read differently: one without a size, and one with a line feed in an extension.
fn size(received: &mut BytesMut) -> Result<Option<u64>, InvalidChunk> {
    let invalid = InvalidChunk("invalid chunk size");
    match httparse::parse_chunk_size(received) {
        Ok(Status::Complete((length, size))) => {
            let line = &received[..length];
            if !line[0].is_ascii_hexdigit() || line[..length - 1].contains(&b'\n') {
                return Err(invalid);
            }
            received.advance(length);
            Ok(Some(size))
        }
        Ok(Status::Partial) if received.len() < MAX_LINE_BYTES => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(invalid),
    }
}

fn trailers(received: &mut BytesMut) -> Result<Option<()>, InvalidChunk> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(received, &mut lines) {
        Ok(Status::Complete((length, _))) => {
            received.advance(length);
            Ok(Some(()))
        }
        Ok(Status::Partial) if received.len() < MAX_LINE_BYTES => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(InvalidChunk("invalid trailer section")),
    }
}

impl std::fmt::Display for InvalidChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidChunk {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the body that arrives in these parts, the bytes behind it, and whether it ended.
    fn taken(
        mut framing: Framing,
        pieces: &[&[u8]],
    ) -> Result<(Vec<u8>, Vec<u8>, bool), InvalidChunk> {
        let (mut received, mut body) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            received.extend_from_slice(piece);
            while let Decoded::Data(bytes) = framing.decode(&mut received)? {
                assert!(!bytes.is_empty());
                body.extend(bytes);
            }
        }
        Ok((body, received.to_vec(), framing.is_ended()))
    }

    fn unchunked(body: &str) -> Result<(Vec<u8>, Vec<u8>, bool), InvalidChunk> {
        taken(Framing::CHUNKED, &[body.as_bytes()])
    }

    #[test]
    fn a_length_ends_a_body() {
        let (body, left, ended) = taken(Framing::Length(5), &[b"ab", b"cdefg"]).unwrap();
        assert_eq!(
            (&body[..], &left[..], ended),
            (&b"abcde"[..], &b"fg"[..], true)
        );
        let (body, _, ended) = taken(Framing::Length(5), &[b"ab", b"cd"]).unwrap();
        assert_eq!((&body[..], ended), (&b"abcd"[..], false));
        assert!(Framing::Length(0).is_ended());
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let (body, left, ended) = taken(Framing::UntilClose, &[b"ab", b"", b"c"]).unwrap();
        assert_eq!(
            (&body[..], &left[..], ended),
            (&b"abc"[..], &b""[..], false)
        );
    }

    #[test]
    fn chunks_are_decoded_wherever_they_are_cut() {
        let body = b"4;x=\"y\"\r\nWiki\r\n0A \r\npedia\r\nin \r\n0\r\nx-sum: 1\r\n\r\nnext";
        for cut in 0..body.len() {
            let (one, other) = body.split_at(cut);
            let (body, left, ended) = taken(Framing::CHUNKED, &[one, other]).unwrap();
            assert_eq!(body, b"Wikipedia\r\nin ", "cut at {cut}");
            assert_eq!((&left[..], ended), (&b"next"[..], true), "cut at {cut}");
        }
    }

    #[test]
    fn truncated_chunks_have_no_end() {
        for body in [
            "",
            "3",
            "3\r\n",
            "3\r\nab",
            "3\r\nabc\r",
            "3\r\nabc\r\n0\r\n",
            "0\r\nx: 1\r\n",
        ] {
            assert!(!unchunked(body).unwrap().2, "{body}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1;a\nb\r\n",
            "1\r\nabc",
            "1\r\na\n1\r\n",
            "10000000000000000\r\n",
            "0\r\nno line\r\n\r\n",
        ] {
            assert!(unchunked(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        for start in ["1;", "0\r\nx: "] {
            let endless = format!("{start}{}", "x".repeat(MAX_LINE_BYTES));
            assert!(unchunked(&endless[..MAX_LINE_BYTES / 2]).is_ok(), "{start}");
            assert!(unchunked(&endless).is_err(), "{start}");
        }
    }

    #[test]
    fn room_is_one_byte_more_than_the_rest() {
        for (left, room) in [(0, 8 << 10), (10_000, 10_001), (u64::MAX, 64 << 10)] {
            assert_eq!(Framing::Length(left).room(), room);
            assert_eq!(Framing::Chunked(Chunk::Data(left)).room(), room);
        }
        assert_eq!(Framing::CHUNKED.room(), 8 << 10);
        assert_eq!(Framing::UntilClose.room(), 64 << 10);
    }
}
