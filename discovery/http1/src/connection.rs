//! A connection's task: receive a request, serve it, write the response, and then the next one.
//!
//! A request is not decoded before the response to the one before it has ended. So nothing of one decides
//! about the other ([RFC 9112, section 9.3.2][1]), and what cannot be parsed costs no response that was due
//! earlier.
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc9112#section-9.3.2

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::{ConnectionType, Payload, Request, Response, StatusCode};
use actix_service::Service;
use bytes::{BufMut, Bytes};
use futures_util::Stream;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::head::{Head, HeadError, Semantics};
use crate::io::{Io, Next, Receiving};
use crate::limits::Limits;
use crate::response::{Delimiting, put_chunk_size, put_head};

/// Data of a body up to this size is copied behind what was written before it, in bytes. That is cheaper
/// than writing two parts.
const COPIED_BYTES: usize = 4 << 10;

/// The limits of one connection, and what becomes of it apart from its requests.
pub trait Downstream: 'static {
    /// Returns the limits of this connection.
    fn limits(&self) -> Limits;

    /// Prepares a request before it is served, such as by an extension.
    fn prepare(&self, request: &mut Request);

    /// Returns the response to a head that is refused. `began` is when its first byte was received. The
    /// connection is closed behind it.
    fn refuse(&self, error: HeadError, began: Instant) -> Response<BoxBody>;

    /// Records that the connection is closed because the client was too slow.
    fn timed_out(&self, timeout: Timeout);
}

/// A port that is like others: it has these limits, and a head that is refused gets the fault as
/// `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
impl Downstream for Limits {
    fn limits(&self) -> Limits {
        *self
    }

    fn prepare(&self, _: &mut Request) {}

    fn refuse(&self, error: HeadError, _: Instant) -> Response<BoxBody> {
        let status = error.status();
        let title = status.canonical_reason().unwrap_or_default();
        let problem = format!(
            r#"{{"title":"{title}","status":{},"detail":"{error}"}}"#,
            status.as_u16()
        );
        Response::build(status)
            .content_type("application/problem+json")
            .body(problem)
            .map_into_boxed_body()
    }

    fn timed_out(&self, _: Timeout) {}
}

/// What a client was too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// A request's head.
    Head,
    /// Reading a response.
    Response,
}

/// Serves a connection until its end. `leaving` is ready when it has to end: at once if it is idle, else
/// with the next response.
pub(crate) async fn serve<A, B>(
    stream: TcpStream,
    app: &A,
    downstream: &impl Downstream,
    leaving: impl Future<Output = ()>,
) where
    A: Service<Request, Response: Into<Response<B>>, Error: Into<Response<BoxBody>>>,
    B: MessageBody,
{
    let connection = Connection {
        peer: stream.peer_addr().ok(),
        io: Rc::new(RefCell::new(Io::new(stream, downstream.limits()))),
        app,
        downstream,
    };
    if let Err(error) = connection.run(pin!(leaving)).await
        && error.kind() == ErrorKind::TimedOut
    {
        downstream.timed_out(Timeout::Response);
        connection.io.borrow().reset_on_close();
    }
}

struct Connection<'a, A, D> {
    io: Rc<RefCell<Io>>,
    peer: Option<SocketAddr>,
    app: &'a A,
    downstream: &'a D,
}

/// What follows a response.
enum Then {
    NextRequest,
    Close,
    /// Nothing: the client has gone.
    Drop,
}

impl<A, D: Downstream> Connection<'_, A, D> {
    async fn run<B>(&self, mut leaving: Pin<&mut impl Future<Output = ()>>) -> io::Result<()>
    where
        A: Service<Request, Response: Into<Response<B>>, Error: Into<Response<BoxBody>>>,
        B: MessageBody,
    {
        let limits = self.downstream.limits();
        let mut is_leaving = false;
        for is_first in std::iter::once(true).chain(std::iter::repeat(false)) {
            let mut receiving = Receiving::new(&limits, is_first);
            let next = poll_fn(|cx| {
                let mut io = self.io.borrow_mut();
                if let Poll::Ready(next) = io.poll_next(&mut receiving, cx)? {
                    return Poll::Ready(Ok(next));
                }
                is_leaving = is_leaving || leaving.as_mut().poll(cx).is_ready();
                if is_leaving && io.is_idle() {
                    return Poll::Ready(io::Result::Ok(Next::End));
                }
                Poll::Pending
            });
            let then = match next.await? {
                Next::Request(head) => self.serve(*head, leaving.as_mut(), &mut is_leaving).await?,
                Next::Refused(error) => self.refuse(error, receiving.began).await?,
                Next::End => Then::Close,
            };
            match then {
                Then::NextRequest => {}
                Then::Close => break,
                Then::Drop => return Ok(()),
            }
        }
        let mut by = None;
        poll_fn(|cx| self.io.borrow_mut().poll_close(&mut by, cx)).await
    }

    async fn refuse(&self, error: HeadError, began: Instant) -> io::Result<Then> {
        if error == HeadError::TooSlow {
            self.downstream.timed_out(Timeout::Head);
        }
        let mut response = self.downstream.refuse(error, began);
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
        self.respond(response, Semantics::of_refused()).await
    }

    async fn serve<B>(
        &self,
        head: Head,
        leaving: Pin<&mut impl Future<Output = ()>>,
        is_leaving: &mut bool,
    ) -> io::Result<Then>
    where
        A: Service<Request, Response: Into<Response<B>>, Error: Into<Response<BoxBody>>>,
        B: MessageBody,
    {
        let (mut request, semantics) = (head.request, head.semantics);
        let has_body = !head.framing.is_ended();
        let number = self
            .io
            .borrow_mut()
            .begin_request(head.framing, semantics.expects_continue);
        if has_body || semantics.proposes_upgrade {
            let body: Pin<Box<dyn Stream<Item = _>>> = Box::pin(Body {
                io: self.io.clone(),
                request: number,
            });
            *request.payload() = Payload::Stream { payload: body };
        }
        request.head_mut().peer_addr = self.peer;
        self.downstream.prepare(&mut request);
        let mut leaving = leaving;
        let mut call = pin!(self.app.call(request));
        let response = poll_fn(|cx| {
            if let Poll::Ready(response) = call.as_mut().poll(cx) {
                *is_leaving = *is_leaving || leaving.as_mut().poll(cx).is_ready();
                return Poll::Ready(Some(response));
            }
            let mut io = self.io.borrow_mut();
            if let Poll::Ready(Err(_)) = io.poll_flush(cx) {
                return Poll::Ready(None);
            }
            io.poll_gone(cx).map(|()| None)
        });
        match response.await {
            None => Ok(Then::Drop),
            Some(Ok(response)) => {
                let mut response = response.into();
                if *is_leaving {
                    response
                        .head_mut()
                        .set_connection_type(ConnectionType::Close);
                }
                self.respond(response, semantics).await
            }
            Some(Err(error)) => self.respond(error.into(), semantics).await,
        }
    }

    async fn respond<B: MessageBody>(
        &self,
        response: Response<B>,
        request: Semantics,
    ) -> io::Result<Then> {
        let (response, body) = response.into_parts();
        let (size, switches) = (
            body.size(),
            response.status() == StatusCode::SWITCHING_PROTOCOLS,
        );
        let delimiting = Delimiting::new(response.head(), size, request);
        let mut closes = !request.keeps_alive
            || response.head().connection_type() == ConnectionType::Close
            || delimiting == Delimiting::UntilClose
            || request.proposes_upgrade;
        {
            let mut io = self.io.borrow_mut();
            if switches {
                io.switch_protocols();
            } else if io.expects_continue || !io.has_whole_body() {
                // What is left of it must not be taken for a request, and may be more than is worth reading. A
                // client that still waits for 100 may send it or not.
                closes = true;
                let is_read = Rc::strong_count(&self.io) > 1;
                if io.expects_continue && is_read && !response.status().is_client_error() {
                    io.out().put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
            }
            io.expects_continue = false;
            put_head(io.out(), &response, size, request, closes);
        }
        drop(response);
        let written = Writing {
            io: &self.io,
            delimiting,
            is_whole: false,
            is_over: false,
        };
        let is_whole = match written.run(body).await? {
            None => return Ok(Then::Drop),
            Some(is_whole) => is_whole,
        };
        if !is_whole && delimiting == Delimiting::UntilClose && !switches {
            // Or it would look like a whole one.
            self.io.borrow().reset_on_close();
            return Ok(Then::Drop);
        }
        if closes || !is_whole {
            return Ok(Then::Close);
        }
        Ok(Then::NextRequest)
    }
}

/// A response's body on its way to the client.
struct Writing<'a> {
    io: &'a RefCell<Io>,
    delimiting: Delimiting,
    is_whole: bool,
    is_over: bool,
}

impl Writing<'_> {
    /// Writes a response whose head is in the buffer. Returns whether its body was whole, and `None` if the
    /// client has gone.
    async fn run(mut self, body: impl MessageBody) -> io::Result<Option<bool>> {
        let mut body = pin!(body);
        if let Delimiting::None | Delimiting::Length(0) = self.delimiting {
            (self.is_over, self.is_whole) = (true, true);
        }
        poll_fn(|cx| self.poll(body.as_mut(), cx)).await
    }

    fn poll(
        &mut self,
        mut body: Pin<&mut impl MessageBody>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<bool>>> {
        loop {
            if self.is_over || self.io.borrow().is_full() {
                ready!(self.io.borrow_mut().poll_flush(cx))?;
            }
            if self.is_over {
                return Poll::Ready(Ok(Some(self.is_whole)));
            }
            match body.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(data))) => self.put(data),
                Poll::Ready(Some(Err(_))) => self.is_over = true,
                Poll::Ready(None) => self.end(),
                Poll::Pending => {
                    let mut io = self.io.borrow_mut();
                    if let Poll::Ready(Err(error)) = io.poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return io.poll_gone(cx).map(|()| Ok(None));
                }
            }
        }
    }

    fn put(&mut self, mut data: Bytes) {
        let mut io = self.io.borrow_mut();
        let tail: &[u8] = match &mut self.delimiting {
            _ if data.is_empty() => return,
            Delimiting::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX);
                data.truncate(length);
                *left -= data.len() as u64;
                (self.is_over, self.is_whole) = (*left == 0, *left == 0);
                b""
            }
            Delimiting::Chunked => {
                put_chunk_size(io.out(), data.len());
                b"\r\n"
            }
            Delimiting::None | Delimiting::UntilClose => b"",
        };
        if data.len() > COPIED_BYTES {
            io.put_data(data, tail);
        } else {
            io.out().put_slice(&data);
            io.out().put_slice(tail);
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        self.is_whole = !matches!(self.delimiting, Delimiting::Length(_));
        if self.delimiting == Delimiting::Chunked {
            self.io.borrow_mut().out().put_slice(b"0\r\n\r\n");
        }
    }
}

/// The body of a request, for the application.
struct Body {
    io: Rc<RefCell<Io>>,
    request: u64,
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut io = self.io.borrow_mut();
        if !io.is_request(self.request) {
            return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
        }
        let data = ready!(io.poll_body(cx));
        Poll::Ready(data.map(|data| {
            data.map_err(|error| match error.kind() {
                ErrorKind::InvalidData => PayloadError::EncodingCorrupted,
                ErrorKind::UnexpectedEof => PayloadError::Incomplete(Some(error)),
                _ => PayloadError::Io(error),
            })
        }))
    }
}
