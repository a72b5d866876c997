use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

/// A request to one node.
#[derive(Debug)]
pub struct Request {
    /// The request line and the fields, with the empty line at the end.
    pub head: BytesMut,
    /// The body. The head has to announce it: with its length, or as chunked.
    pub body: RequestBody,
    /// The properties that the parser of the response needs.
    pub info: RequestInfo,
}

/// The properties of a request that the meaning of its response depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestInfo {
    /// Set if the method is HEAD, so that the response has no body.
    pub is_head: bool,
    /// Set for an upgrade to another protocol.
    pub is_upgrade: bool,
}

/// The body of a request.
#[derive(Debug)]
pub enum RequestBody {
    /// All of its bytes.
    Full(Bytes),
    /// Bytes that are sent as they are received.
    Streaming(StreamingBody),
}

/// A body that is received while it is sent.
///
/// It is shared with the request that it belongs to, which may outlast the connection. So its methods take
/// `&self`.
pub trait BodySource {
    /// Returns whether its length is unknown, so that it is sent in chunks. This does not change before the
    /// end of the body.
    fn is_chunked(&self) -> bool;

    /// Returns the next bytes, `None` at the end. They are never empty: an empty chunk would end the body.
    ///
    /// # Errors
    /// If the body is incomplete. The node must not take what it received for the whole, so the connection
    /// is closed.
    fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Called when the request is dropped, whether or not any of the body was read. What is left of a body
    /// that has been read in part is lost.
    fn close(&self);
}

/// A [`BodySource`] that is closed when this is dropped.
pub struct StreamingBody(Rc<dyn BodySource>);

impl RequestBody {
    /// Creates a body that is sent as it is received.
    pub fn streaming(source: Rc<dyn BodySource>) -> Self {
        Self::Streaming(StreamingBody(source))
    }

    /// Returns whether the body is sent in chunks.
    pub fn is_chunked(&self) -> bool {
        match self {
            Self::Full(_) => false,
            Self::Streaming(body) => body.is_chunked(),
        }
    }
}

impl StreamingBody {
    pub(crate) fn is_chunked(&self) -> bool {
        self.0.is_chunked()
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.0.poll_chunk(cx)
    }
}

impl Drop for StreamingBody {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for StreamingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamingBody")
    }
}
