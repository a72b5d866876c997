use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http1::Framing;

use crate::connection::{Connection, UpgradedStream};
use crate::pool::Pool;

/// The body of a response, and the connection that it is received over. When it is dropped at its end, the
/// connection returns to the pool; when it is dropped before, the connection is closed.
pub struct ResponseBody {
    /// `None` after an error.
    connection: Option<Connection>,
    framing: Framing,
    /// Set if the connection cannot be reused.
    closes: bool,
    node: SocketAddr,
    pool: Rc<Pool>,
}

impl ResponseBody {
    /// Creates the body behind a head that was received over `connection`. `closes` is
    /// [`ResponseHead::closes`](crate::ResponseHead::closes).
    pub fn new(
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

    /// Returns the next bytes, `None` at the end. Also sends what is left of the request.
    ///
    /// # Errors
    /// If the connection ends before the body, if a chunk is malformed, or if the request's body is
    /// incomplete.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into())); // after an error
        };
        let chunk = connection.poll_body(&mut self.framing, cx);
        if let Poll::Ready(Err(_)) = chunk {
            self.connection = None;
        }
        chunk
    }

    /// Returns the connection for another protocol. `None` if the request has not been sent completely.
    pub fn into_upgraded(mut self) -> Option<UpgradedStream> {
        self.connection.take()?.into_upgraded()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && self.framing.is_ended()
            && !self.closes
        {
            connection.release_buffer();
            self.pool.put(self.node, connection);
        }
    }
}
