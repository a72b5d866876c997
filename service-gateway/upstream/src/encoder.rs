use std::fmt::Write;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::head::Asked;
use super::upload::{Interrupted, RequestBody, Upload};

/// A request as it goes to one node.
#[derive(Debug)]
pub(super) struct Request {
    /// With the empty line at its end.
    pub(super) head: BytesMut,
    pub(super) body: RequestBody,
    pub(super) asked: Asked,
}

/// What has to be sent yet.
#[derive(Debug)]
pub(super) struct Sending {
    /// What goes before `piece`: the head of the request, or of a chunk.
    head: BytesMut,
    piece: Bytes,
    /// What goes after it.
    tail: &'static [u8],
    /// Where the next piece comes from. `None` after the last.
    body: Option<Upload>,
    /// Whether any of it was sent.
    pub(super) is_begun: bool,
}

impl Sending {
    pub(super) fn new(request: Request) -> Self {
        let (piece, body) = match request.body {
            RequestBody::Held(bytes) => (bytes, None),
            RequestBody::Upload(upload) => (Bytes::new(), Some(upload)),
        };
        Self {
            head: request.head,
            piece,
            tail: b"",
            body,
            is_begun: false,
        }
    }

    /// The request again, if none of it was sent.
    pub(super) fn into_request(self, asked: Asked) -> Request {
        Request {
            head: self.head,
            body: match self.body {
                None => RequestBody::Held(self.piece),
                Some(upload) => RequestBody::Upload(upload),
            },
            asked,
        }
    }

    /// Ready when all was sent, or when nobody listens.
    pub(super) fn poll(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<io::Result<()>, Interrupted>> {
        loop {
            while self.has_bytes() {
                match ready!(self.poll_write(stream, cx)) {
                    Ok(sent) => self.advance(sent),
                    Err(error) => return Poll::Ready(Ok(Err(error))),
                }
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(Ok(())));
            };
            let is_chunked = body.is_chunked();
            let piece = ready!(body.poll_piece(cx))?;
            if piece.is_none() {
                self.body = None;
            }
            self.piece = piece.unwrap_or_default();
            if is_chunked {
                self.frame();
            }
        }
    }

    /// Makes a chunk of a piece, the last of none ([RFC 9112, section 7.1][1]).
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
    fn frame(&mut self) {
        self.head.clear();
        write!(self.head, "{:x}\r\n", self.piece.len()).expect("there is room");
        self.tail = b"\r\n";
    }

    fn has_bytes(&self) -> bool {
        !(self.head.is_empty() && self.piece.is_empty() && self.tail.is_empty())
    }

    fn poll_write(&self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        match (&self.head[..], &self.piece[..], self.tail) {
            // One part takes the kernel less time as such.
            (part, [], []) | ([], part, []) => stream.poll_write(cx, part),
            (head, piece, tail) => {
                let parts = [head, piece, tail].map(IoSlice::new);
                stream.poll_write_vectored(cx, &parts)
            }
        }
    }

    fn advance(&mut self, mut sent: usize) {
        self.is_begun = true;
        for part in [
            &mut self.head as &mut dyn Buf,
            &mut self.piece,
            &mut self.tail,
        ] {
            let of_part = sent.min(part.remaining());
            part.advance(of_part);
            sent -= of_part;
        }
        if self.piece.is_empty() {
            self.piece = Bytes::new(); // so that its memory can be used for the next read
        }
    }
}
