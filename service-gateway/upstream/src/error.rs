use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::request::Request;

/// The reason for which a request has no response.
#[derive(Debug)]
pub enum SendError {
    /// The connection was closed, or data was received, before any of the request was sent: the request can
    /// be sent over another connection.
    Unsent(Request, io::Error),
    /// The connection was closed before a byte of the response was received, or the request's body is
    /// incomplete.
    NoResponse(io::Error),
    /// The received bytes are not a valid response.
    InvalidResponse(ParseError),
}

/// A fault in the head of a response.
#[derive(Debug)]
pub enum ParseError {
    /// It is malformed, too large or truncated.
    Malformed(Box<dyn Error>),
    /// Another parser could find a different end of the body: response splitting ([RFC 9112, section
    /// 11.1][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-11.1
    AmbiguousFraming(&'static str),
}

impl ParseError {
    pub(crate) fn malformed(cause: impl Into<Box<dyn Error>>) -> Self {
        Self::Malformed(cause.into())
    }
}

impl From<ParseError> for SendError {
    fn from(error: ParseError) -> Self {
        Self::InvalidResponse(error)
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(cause) => cause.fmt(f),
            Self::AmbiguousFraming(fault) => f.write_str(fault),
        }
    }
}

impl Error for ParseError {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(_, error) | Self::NoResponse(error) => error.fmt(f),
            Self::InvalidResponse(error) => error.fmt(f),
        }
    }
}

impl Error for SendError {}

/// Returns whether connecting failed for a reason of this host, which is no fault of the node: no descriptor,
/// no memory, no buffer, no local port or address.
pub fn is_local(error: &io::Error) -> bool {
    is_exhausted(error) || is_address_unavailable(error)
}

/// Returns whether this host has run out of something that a connection to any node takes.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::AGAIN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// Returns whether there was no local address or port for a connection to this node. There may be one for a
/// connection to another node.
pub fn is_address_unavailable(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_errors_differ_from_those_of_a_node() {
        for (errno, local) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::AGAIN, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::NETUNREACH, false),
            (Errno::TIMEDOUT, false),
        ] {
            assert_eq!(is_local(&errno.into()), local, "{errno}");
        }
        assert!(!is_local(&io::ErrorKind::TimedOut.into()));
        assert!(is_address_unavailable(&Errno::ADDRNOTAVAIL.into()));
    }
}
