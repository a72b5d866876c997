//! Where the body of a node's answer ends: [RFC 9112, sections 6 and 7][1].
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6

use bytes::{Buf, Bytes, BytesMut};
use httparse::Status;

/// The most that is read of an answer ahead of a slow client, in bytes.
const READ_AHEAD: usize = 64 << 10;

/// The least room that is made for what comes. A small answer fits, with its head.
pub(super) const READ_BYTES: usize = 8 << 10;

/// The longest line with a chunk's size, and the longest trailer section.
const LONGEST: usize = 16 << 10;

/// The most lines of a trailer section.
const TRAILERS: usize = 100;

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// All there is until the connection's end.
    UntilClose,
}

/// What comes next of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with the size of the next one.
    Size,
    /// So many of its bytes.
    Data(u64),
    /// The line's end behind them.
    DataEnd,
    /// What follows the last one.
    Trailers,
    /// Nothing.
    End,
}

/// What could be taken of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Piece(Bytes),
    /// First more has to come.
    Nothing,
    End,
}

/// Chunks that are none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled(&'static str);

impl Framing {
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::Size);

    /// Whether all of the body was taken. Of one that lasts until the connection's end this is never known.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// For how many bytes to make room before more is read. For one more than are left, since Tokio
    /// asks the kernel again after a read that has filled its buffer.
    pub(super) fn room(&self) -> usize {
        let left = match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => *left,
            Self::Chunked(_) => 0,
            Self::UntilClose => u64::MAX,
        };
        let left = usize::try_from(left).unwrap_or(READ_AHEAD);
        left.saturating_add(1).clamp(READ_BYTES, READ_AHEAD)
    }

    /// Takes off what has come of the body. Trailers are not passed on.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Taken, Garbled> {
        match self {
            Self::Length(0) => Ok(Taken::End),
            Self::Length(left) => Ok(take(left, received)),
            Self::UntilClose => Ok(take(&mut { u64::MAX }, received)),
            Self::Chunked(chunk) => chunk.take(received),
        }
    }
}

impl Chunk {
    fn take(&mut self, received: &mut BytesMut) -> Result<Taken, Garbled> {
        loop {
            *self = match self {
                Self::Size => match size(received)? {
                    None => return Ok(Taken::Nothing),
                    Some(0) => Self::Trailers,
                    Some(size) => Self::Data(size),
                },
                Self::Data(0) => Self::DataEnd,
                Self::Data(left) => return Ok(take(left, received)),
                Self::DataEnd => match received.get(..2) {
                    None => return Ok(Taken::Nothing),
                    Some(b"\r\n") => {
                        received.advance(2);
                        Self::Size
                    }
                    Some(_) => return Err(Garbled("a chunk is longer than it says")),
                },
                Self::Trailers => match trailers(received)? {
                    None => return Ok(Taken::Nothing),
                    Some(()) => Self::End,
                },
                Self::End => return Ok(Taken::End),
            }
        }
    }
}

fn take(left: &mut u64, received: &mut BytesMut) -> Taken {
    if received.is_empty() {
        return Taken::Nothing;
    }
    let length = usize::try_from(*left).map_or(received.len(), |left| left.min(received.len()));
    *left -= length as u64;
    Taken::Piece(received.split_to(length).freeze())
}

/// The size of the next chunk, once its line is there. [`httparse`] takes two lines that others might
/// read in another way: one without a size, and one with a line feed in an extension.
fn size(received: &mut BytesMut) -> Result<Option<u64>, Garbled> {
    let garbled = Garbled("a chunk has no size");
    match httparse::parse_chunk_size(received) {
        Ok(Status::Complete((length, size))) => {
            let line = &received[..length];
            if !line[0].is_ascii_hexdigit() || line[..length - 1].contains(&b'\n') {
                return Err(garbled);
            }
            received.advance(length);
            Ok(Some(size))
        }
        Ok(Status::Partial) if received.len() < LONGEST => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(garbled),
    }
}

fn trailers(received: &mut BytesMut) -> Result<Option<()>, Garbled> {
    let mut lines = [httparse::EMPTY_HEADER; TRAILERS];
    match httparse::parse_headers(received, &mut lines) {
        Ok(Status::Complete((length, _))) => {
            received.advance(length);
            Ok(Some(()))
        }
        Ok(Status::Partial) if received.len() < LONGEST => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(Garbled("its trailers make no sense")),
    }
}

impl std::fmt::Display for Garbled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Garbled {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken of a body that comes in such pieces, what is left behind it, and whether it ended.
    fn taken(mut framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), Garbled> {
        let (mut received, mut body) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            received.extend_from_slice(piece);
            while let Taken::Piece(bytes) = framing.take(&mut received)? {
                assert!(!bytes.is_empty());
                body.extend(bytes);
            }
        }
        Ok((body, received.to_vec(), framing.is_ended()))
    }

    fn unchunked(body: &str) -> Result<(Vec<u8>, Vec<u8>, bool), Garbled> {
        taken(Framing::CHUNKED, &[body.as_bytes()])
    }

    #[test]
    fn a_length_is_where_a_body_ends() {
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
    fn without_a_length_a_body_is_all_that_comes() {
        let (body, left, ended) = taken(Framing::UntilClose, &[b"ab", b"", b"c"]).unwrap();
        assert_eq!(
            (&body[..], &left[..], ended),
            (&b"abc"[..], &b""[..], false)
        );
    }

    #[test]
    fn chunks_are_taken_apart_wherever_they_are_cut() {
        let body = b"4;x=\"y\"\r\nWiki\r\n0A \r\npedia\r\nin \r\n0\r\nx-sum: 1\r\n\r\nnext";
        for cut in 0..body.len() {
            let (one, other) = body.split_at(cut);
            let (body, left, ended) = taken(Framing::CHUNKED, &[one, other]).unwrap();
            assert_eq!(body, b"Wikipedia\r\nin ", "cut at {cut}");
            assert_eq!((&left[..], ended), (&b"next"[..], true), "cut at {cut}");
        }
    }

    #[test]
    fn chunks_that_are_cut_short_have_no_end() {
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
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
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
    fn lines_that_never_end_are_refused() {
        for start in ["1;", "0\r\nx: "] {
            let endless = format!("{start}{}", "x".repeat(LONGEST));
            assert!(unchunked(&endless[..LONGEST / 2]).is_ok(), "{start}");
            assert!(unchunked(&endless).is_err(), "{start}");
        }
    }

    #[test]
    fn room_is_made_for_one_byte_more_than_are_left() {
        for (left, room) in [(0, 8 << 10), (10_000, 10_001), (u64::MAX, 64 << 10)] {
            assert_eq!(Framing::Length(left).room(), room);
            assert_eq!(Framing::Chunked(Chunk::Data(left)).room(), room);
        }
        assert_eq!(Framing::CHUNKED.room(), 8 << 10);
        assert_eq!(Framing::UntilClose.room(), 64 << 10);
    }
}
