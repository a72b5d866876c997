use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http1::{Decoded, Framing, READ_BYTES};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::poll_read_buf;

use crate::encoder::{RequestEncoder, WriteError};
use crate::error::{ParseError, SendError};
use crate::head::ResponseHead;
use crate::request::{Request, RequestInfo};

/// The maximum number of interim responses to one request. Servers send one or two. A node that sends them
/// without end would keep its worker busy until the deadline.
const MAX_INTERIM_RESPONSES: usize = 16;

/// A connection to a node, for one request at a time.
///
/// It has no task: the future of a response sends the request and reads the response, so that both wake the
/// task that waits for them, and no other. An empty buffer is released while nothing is received.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were received and not yet parsed.
    received: BytesMut,
    /// `None` when all of the request was sent, or the connection takes no more of it.
    encoder: Option<RequestEncoder>,
    /// Set if the connection takes no more bytes.
    write_closed: bool,
    /// Set if a write returned a reset. Linux reports a reset once: a read after it returns an end.
    was_reset: bool,
    /// Counts the connection among those that may be open.
    permit: OwnedSemaphorePermit,
}

/// A connection that has switched protocols.
pub struct UpgradedStream {
    /// The connection.
    pub stream: TcpStream,
    /// The bytes that were received behind the response.
    pub received: BytesMut,
    /// Counts the connection among those that may be open.
    pub permit: OwnedSemaphorePermit,
}

/// The progress of reading the head of a response.
#[derive(Default)]
struct Reading {
    /// The bytes that were parsed and are not yet a head. `None` until something is received.
    parsed: Option<usize>,
    interim_responses: usize,
}

impl Reading {
    fn add_interim(&mut self) -> Result<(), ParseError> {
        self.parsed = Some(0);
        self.interim_responses += 1;
        if self.interim_responses > MAX_INTERIM_RESPONSES {
            let detail = format!("more than {MAX_INTERIM_RESPONSES} interim responses");
            return Err(ParseError::malformed(detail));
        }
        Ok(())
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            encoder: None,
            write_closed: false,
            was_reset: false,
            permit,
        }
    }

    /// Sends a request and waits for the head of the response. What is left of the request's body by then is
    /// sent while the response's body is read.
    ///
    /// Interim responses are read and dropped. `100` was sent to the client when its body was first
    /// read. `103` is dropped on purpose: the final response may come from another node, and clients
    /// that do not expect `103` take it for the final response ([RFC 8297, section 3][1]). Proxies have to
    /// forward both, gateways need not ([RFC 9110, section 15.2][2]).
    ///
    /// # Errors
    /// If there is no response, or an invalid one, or more than 16 interim responses before it.
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc8297#section-3
    /// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2
    pub async fn send(&mut self, request: Request) -> Result<(ResponseHead, Framing), SendError> {
        let info = request.info;
        self.encoder = Some(RequestEncoder::new(request));
        let mut reading = Reading::default();
        poll_fn(|cx| {
            // Bytes received before anything was sent cannot be the response.
            if self.is_unsent() && self.has_pending_data() {
                let detail = "connection closed, or data received, before the request was sent";
                return Poll::Ready(Err(self.no_response(info, io::Error::other(detail))));
            }
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(self.no_response(info, error)));
            }
            if self.is_unsent() {
                let _ = ready!(self.stream.poll_read_ready(cx)); // the next poll looks for pending data
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.poll_head(info, &mut reading, cx)
        })
        .await
    }

    /// Returns whether there is a request of which nothing was sent.
    fn is_unsent(&self) -> bool {
        let is_unsent = |encoder: &RequestEncoder| !encoder.has_started();
        self.encoder.as_ref().is_some_and(is_unsent)
    }

    /// Returns the error, with the request if none of it was sent.
    fn no_response(&mut self, info: RequestInfo, error: io::Error) -> SendError {
        match self.encoder.take() {
            Some(encoder) if !encoder.has_started() => {
                SendError::Unsent(encoder.into_request(info), error)
            }
            _ => SendError::NoResponse(error),
        }
    }

    /// Parses only if bytes were received since the last attempt.
    fn poll_head(
        &mut self,
        info: RequestInfo,
        reading: &mut Reading,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(ResponseHead, Framing), SendError>> {
        loop {
            while self.received.len() > reading.parsed.unwrap_or_default() {
                match ResponseHead::parse(&mut self.received, info)? {
                    Some((head, _)) if head.is_interim() => reading.add_interim()?,
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => reading.parsed = Some(self.received.len()),
                }
            }
            let received = ready!(self.poll_receive(READ_BYTES, cx));
            received.map_err(|error| match reading.parsed {
                None => SendError::NoResponse(error),
                Some(_) => ParseError::malformed(error).into(), // truncated
            })?;
        }
    }

    /// Sends what can be sent now. Is ready when that was all of the request.
    ///
    /// # Errors
    /// If the request's body is incomplete, or nothing at all can be sent. A later error of the connection
    /// ends the sending without an error: a node that refuses a body may close its connection at once,
    /// and its response can still be read.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(encoder) = &mut self.encoder else {
            return Poll::Ready(Ok(()));
        };
        match ready!(encoder.poll(&mut self.stream, cx)) {
            Err(WriteError::RequestBody(error)) => return Poll::Ready(Err(error)),
            Err(WriteError::Connection(error)) if !encoder.has_started() => {
                return Poll::Ready(Err(error));
            }
            Err(WriteError::Connection(error)) => {
                self.write_closed = true;
                self.was_reset = error.kind() == ErrorKind::ConnectionReset;
            }
            Ok(()) => {}
        }
        self.encoder = None;
        Poll::Ready(Ok(()))
    }

    /// Returns the next bytes of the response's body, `None` at the end. Also sends what is left of the
    /// request.
    pub(crate) fn poll_body(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        if framing.is_ended() {
            return Poll::Ready(Ok(None));
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            match framing.decode(&mut self.received) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Decoded::End) => return Poll::Ready(Ok(None)),
                Ok(Decoded::Pending) => {}
                Err(invalid_chunk) => return Poll::Ready(Err(io::Error::other(invalid_chunk))),
            }
            match ready!(self.poll_receive(framing.room(), cx)) {
                Ok(()) => {}
                Err(error) if *framing == Framing::UntilClose && self.is_end(&error) => {
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Waits until more bytes have been received.
    ///
    /// # Errors
    /// If the connection has ended.
    fn poll_receive(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_read(room, cx);
        if read.is_pending() {
            self.release_buffer();
        }
        read
    }

    fn poll_read(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_read_ready(cx))?; // before a buffer is allocated
        self.received.reserve(room);
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.received);
        Poll::Ready(match ready!(read)? {
            0 => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the connection ended",
            )),
            _ => Ok(()),
        })
    }

    /// Returns whether the node has closed the connection in order.
    fn is_end(&self, error: &io::Error) -> bool {
        error.kind() == ErrorKind::UnexpectedEof && !self.was_reset
    }

    /// Releases the memory of the buffer if it is empty.
    pub(crate) fn release_buffer(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// Returns the connection for another protocol. `None` if the request has not been sent completely.
    pub(crate) fn into_upgraded(self) -> Option<UpgradedStream> {
        let is_sent = self.encoder.is_none();
        is_sent.then_some(UpgradedStream {
            stream: self.stream,
            received: self.received,
            permit: self.permit,
        })
    }

    /// Returns whether it can take a request, as far as is known on this side.
    pub(crate) fn is_idle(&self) -> bool {
        self.encoder.is_none() && !self.write_closed && !self.has_pending_data()
    }

    /// Returns whether something was received and not parsed, be it the end or an error. Calls the kernel
    /// only after it has reported an event.
    fn has_pending_data(&self) -> bool {
        let would_block = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
        !self.received.is_empty() || !self.stream.try_read(&mut [0]).is_err_and(would_block)
    }
}

#[cfg(test)]
mod tests;
