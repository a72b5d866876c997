//! The kinds of response that a node gives, named by the last but one segment of the target.

use crate::message::Framing;

/// The size of a large body in bytes.
const LARGE_BODY_BYTES: usize = 200_000;

/// A kind of response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Sized,
    Chunked,
    /// Ends with the connection.
    Closing,
    Empty,
    /// 204.
    NoContent,
    /// 304.
    NotModified,
    Large,
    LargeChunked,
    Slow,
    /// 404.
    Missing,
    /// 101, if the request is an upgrade.
    Switching,
    /// To a request that a server must not process.
    Forbidden,
}

impl Kind {
    /// Every kind, with the name that a target has for it.
    const NAMED: [(&str, Self); 12] = [
        ("sized", Self::Sized),
        ("chunked", Self::Chunked),
        ("closing", Self::Closing),
        ("empty", Self::Empty),
        ("no-content", Self::NoContent),
        ("not-modified", Self::NotModified),
        ("large", Self::Large),
        ("large-chunked", Self::LargeChunked),
        ("slow", Self::Slow),
        ("missing", Self::Missing),
        ("switching", Self::Switching),
        ("forbidden", Self::Forbidden),
    ];

    /// Returns the kind of this name. Any other name is a missing page.
    pub(crate) fn named(name: &str) -> Self {
        let found = Self::NAMED.iter().find(|named| named.0 == name);
        found.map_or(Self::Missing, |named| named.1)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMED.iter().find(|named| named.1 == self);
        found.map_or("missing", |named| named.0)
    }

    /// Chooses a kind for an ordinary request. Large bodies are rare.
    pub(crate) fn choose(random: &mut fastrand::Rng) -> Self {
        match random.u8(..40) {
            0 => Self::Large,
            1 => Self::LargeChunked,
            2..4 => Self::Slow,
            4..7 => Self::Closing,
            7..10 => Self::Empty,
            10..13 => Self::NoContent,
            13..16 => Self::NotModified,
            16..19 => Self::Missing,
            19..28 => Self::Chunked,
            _ => Self::Sized,
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::NoContent => 204,
            Self::NotModified => 304,
            Self::Missing => 404,
            _ => 200,
        }
    }

    pub(crate) fn framing(self, length: usize, is_http10: bool) -> Framing {
        match self {
            Self::NoContent | Self::NotModified | Self::Closing => Framing::Unframed,
            Self::Chunked | Self::LargeChunked if is_http10 => Framing::Unframed,
            Self::Chunked | Self::LargeChunked => Framing::Chunked,
            _ => Framing::Sized(length),
        }
    }

    /// Returns the body: it names the request, and has the length and a hash of the request's body.
    pub(crate) fn body(self, id: &str, method: &str, request_body: &[u8]) -> Vec<u8> {
        if [Self::Empty, Self::NoContent, Self::NotModified].contains(&self) {
            return Vec::new();
        }
        let (length, hash) = (request_body.len(), fnv1a(request_body));
        let mut body = format!("{id} {method} {length} {hash:x}\n").into_bytes();
        if [Self::Large, Self::LargeChunked].contains(&self) {
            let line = format!("{id} and more\n").into_bytes();
            body.extend(line.repeat(LARGE_BODY_BYTES / line.len()));
        }
        body
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
