//! The bytes of a request as they are sent: its head, and its body as it is received.

use std::fmt::Write;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::request::{Request, RequestBody, RequestInfo, StreamingBody};

/// The part of a request that has not been sent.
#[derive(Debug)]
pub(crate) struct RequestEncoder {
    /// The bytes before `data`: the head of the request, or the size of a chunk.
    head: BytesMut,
    data: Bytes,
    /// The bytes behind it.
    tail: &'static [u8],
    /// The source of the next data. `None` after the last.
    body: Option<StreamingBody>,
    has_started: bool,
}

/// The reason for which the rest of a request cannot be sent.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The request's body is incomplete.
    RequestBody(io::Error),
    /// The connection takes no more bytes.
    Connection(io::Error),
}

impl RequestEncoder {
    pub(crate) fn new(request: Request) -> Self {
        let (data, body) = match request.body {
            RequestBody::Full(bytes) => (bytes, None),
            RequestBody::Streaming(body) => (Bytes::new(), Some(body)),
        };
        Self {
            head: request.head,
            data,
            tail: b"",
            body,
            has_started: false,
        }
    }

    /// Returns whether any byte was sent.
    pub(crate) fn has_started(&self) -> bool {
        self.has_started
    }

    /// Returns the request, provided that none of it was sent.
    pub(crate) fn into_request(self, info: RequestInfo) -> Request {
        Request {
            head: self.head,
            body: match self.body {
                None => RequestBody::Full(self.data),
                Some(body) => RequestBody::Streaming(body),
            },
            info,
        }
    }

    /// Sends what can be sent now. Is ready when that was all of it.
    pub(crate) fn poll(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        loop {
            while self.has_bytes() {
                let sent = ready!(self.poll_write(stream, cx));
                self.advance(sent.map_err(WriteError::Connection)?);
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(()));
            };
            let is_chunked = body.is_chunked();
            let data = ready!(body.poll_chunk(cx)).map_err(WriteError::RequestBody)?;
            if data.is_none() {
                self.body = None;
            }
            self.data = data.unwrap_or_default();
            if is_chunked {
                self.frame_chunk();
            }
        }
    }

    /// Frames `data` as a chunk. Without data it is the last one ([RFC 9112, section 7.1][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
    fn frame_chunk(&mut self) {
        self.head.clear();
        write!(self.head, "{:x}\r\n", self.data.len()).expect("writing to memory does not fail");
        self.tail = b"\r\n";
    }

    fn has_bytes(&self) -> bool {
        !(self.head.is_empty() && self.data.is_empty() && self.tail.is_empty())
    }

    fn poll_write(&self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        match (&self.head[..], &self.data[..], self.tail) {
            // A plain write costs less than a vectored one of a single part.
            (part, [], []) | ([], part, []) => stream.poll_write(cx, part),
            (head, data, tail) => {
                let parts = [head, data, tail].map(IoSlice::new);
                stream.poll_write_vectored(cx, &parts)
            }
        }
    }

    fn advance(&mut self, mut sent: usize) {
        self.has_started = true;
        for part in [
            &mut self.head as &mut dyn Buf,
            &mut self.data,
            &mut self.tail,
        ] {
            let of_part = sent.min(part.remaining());
            part.advance(of_part);
            sent -= of_part;
        }
        if self.data.is_empty() {
            self.data = Bytes::new(); // releases its memory, which the next read can use
        }
    }
}
