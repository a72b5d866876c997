use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Connection;
use super::pool::Pool;
use http1::Framing;

/// A node's body on its way, and the connection that it comes over. Dropped at its end, it gives the
/// connection back for the next request; dropped before, it closes it.
pub(super) struct AnswerBody {
    /// `None` once it broke off.
    connection: Option<Connection>,
    framing: Framing,
    /// Whether the connection is of no use behind it.
    closes: bool,
    node: SocketAddr,
    pool: Rc<Pool>,
}

impl AnswerBody {
    pub(super) fn new(
        connection: Connection,
        framing: Framing,
        closes: bool,
        node: SocketAddr,
        pool: Rc<Pool>,
    ) -> Self {
        Self {
            connection: Some(connection),
            framing,
            closes,
            node,
            pool,
        }
    }

    /// The next piece, `None` at the end. Carries on what is left of the request, too.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into())); // it broke off before
        };
        let piece = connection.poll_body(&mut self.framing, cx);
        if let Poll::Ready(Err(_)) = piece {
            self.connection = None;
        }
        piece
    }

    /// The connection without its body, what has come over it, and its permit. `None` if there is more
    /// to send.
    pub(super) fn into_stream(mut self) -> Option<(TcpStream, BytesMut, OwnedSemaphorePermit)> {
        self.connection.take()?.into_stream()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && self.framing.is_ended()
            && !self.closes
        {
            connection.give_back();
            self.pool.put(self.node, connection);
        }
    }
}
