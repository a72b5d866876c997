//! Connections to nodes, and what hyper's own do not know of themselves.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use http::{Extensions, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// Makes a [`Connection`] of every connection that hyper's connector makes.
#[derive(Clone)]
pub(super) struct Connector(pub(super) HttpConnector);

/// A connection to a node. It remembers whether an answer came over it, and what the node still
/// says can be read after it has stopped listening: a node that refuses an upload may close its
/// connection at once, and hyper gives up at the first write that fails.
pub(super) struct Connection {
    stream: TokioIo<TcpStream>,
    kept: Kept,
    is_deaf: bool,
}

/// Whether a connection was kept from an earlier request. Its node may have closed it just when the
/// next one was sent: that is nobody's fault, and says nothing about the node.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Past>);

/// What came over a connection so far.
#[derive(Default)]
struct Past {
    answered: AtomicBool,
    unclear: AtomicBool,
}

impl Kept {
    /// An answer came over this connection.
    pub(super) fn mark(answer: &Response<Incoming>) {
        if let Some(Self(past)) = answer.extensions().get() {
            past.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Nobody knows where this answer ends, so nothing more is read from its connection, which ends
    /// it before another request is sent.
    pub(super) fn give_up(answer: &Response<Incoming>) {
        if let Some(Self(past)) = answer.extensions().get() {
            past.unclear.store(true, Ordering::Relaxed);
        }
    }

    /// Whether an answer had come over this connection before.
    pub(super) fn was(connection: &Connected) -> bool {
        let mut extensions = Extensions::new();
        connection.get_extras(&mut extensions);
        let kept = extensions.get();
        kept.is_some_and(|Self(past)| past.answered.load(Ordering::Relaxed))
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = BoxFuture<'static, Result<Connection, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, node: Uri) -> Self::Future {
        let connection = |stream| Connection {
            stream,
            kept: Kept::default(),
            is_deaf: false,
        };
        self.0.call(node).map_ok(connection).boxed()
    }
}

impl hyper_util::client::legacy::connect::Connection for Connection {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.kept.clone())
    }
}

impl Connection {
    /// A write that fails counts as done: what comes, or does not come, from the node tells.
    fn written(&mut self, result: io::Result<usize>, length: usize) -> io::Result<usize> {
        self.is_deaf |= result.is_err();
        Ok(result.unwrap_or(length))
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.kept.0.unclear.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(())); // the end
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.written(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces));
        Poll::Ready(self.written(result, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
