use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::pool::Pool;
use super::stream::Stream;
use super::upload::RequestBody;

/// The most of a node's answer that is read ahead of a slow client.
const READ_AHEAD: usize = 64 << 10;

/// A connection to a node.
///
/// No task stands behind it: whoever wants something of it moves it on by [polling](Self::poll) it.
/// So a request and its answer wake one task, the client's, and no other. Nothing else but the node
/// can wake who waits here, so what hyper's own two ends say to each other is looked up with a waker
/// that does nothing.
pub(super) struct Connection {
    requests: SendRequest<RequestBody>,
    /// In a box, since it is large and changes hands twice for a request. `None` once it was dropped.
    driver: Option<Box<http1::Connection<Stream, RequestBody>>>,
    ended: bool,
}

/// Why no answer came, and the request if nothing of it was sent.
pub(super) type Unanswered = TrySendError<Request<RequestBody>>;

impl Connection {
    /// # Errors
    /// If hyper refuses to begin, which it never does.
    pub(super) async fn new(stream: TcpStream) -> Result<Self, hyper::Error> {
        let begun = http1::Builder::new()
            .max_buf_size(READ_AHEAD)
            .handshake(Stream::new(stream));
        let (requests, driver) = begun.await?;
        Ok(Self {
            requests,
            driver: Some(Box::new(driver)),
            ended: false,
        })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut answer = pin!(self.requests.try_send_request(request));
        let quiet = &mut Context::from_waker(Waker::noop());
        let answer = poll_fn(|cx| {
            self.poll(cx);
            let answered = answer.as_mut().poll(quiet);
            if answered.is_pending() && self.ended {
                self.driver = None; // and hyper says why
                return answer.as_mut().poll(quiet);
            }
            answered
        });
        unconstrained(answer).await // nobody would wake us if Tokio had us wait for our turn
    }

    /// Does what can be done now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.ended
            && let Some(driver) = &mut self.driver
        {
            self.ended = driver.poll_unpin(cx).is_ready();
        }
    }

    /// Whether it can take a request, as far as can be seen from here. From now on it wakes nobody.
    pub(super) fn is_idle(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.requests.is_ready()
    }

    /// What is left when the node has switched protocols: the stream, and what came over it already.
    pub(super) async fn into_stream(mut self) -> Option<(TcpStream, Bytes)> {
        poll_fn(|cx| {
            self.poll(cx);
            if self.ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let parts = self.driver?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}

/// A node's body on its way, and the connection that it comes over. Dropped at its end, it gives the
/// connection back for the next request; dropped before, it closes it.
pub(super) struct AnswerBody {
    incoming: Incoming, // the first to be dropped, or the connection would wait for it
    lent: Lent,
}

struct Lent {
    connection: Option<Connection>,
    node: SocketAddr,
    pool: Rc<Pool>,
}

impl AnswerBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection,
        node: SocketAddr,
        pool: Rc<Pool>,
    ) -> Self {
        let connection = Some(connection);
        let lent = Lent {
            connection,
            node,
            pool,
        };
        Self { incoming, lent }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let quiet = &mut Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut self.incoming).poll_frame(quiet);
        let Some(connection) = &mut self.lent.connection else {
            return frame;
        };
        if frame.is_ready() {
            return frame;
        }
        connection.poll(cx);
        Pin::new(&mut self.incoming).poll_frame(quiet)
    }

    /// The connection without its body.
    pub(super) fn into_connection(mut self) -> Option<Connection> {
        self.lent.connection.take()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(self.node, connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join;
    use http_body_util::{Either, Full};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    /// Who waits that long waits in vain.
    const LIMIT: Duration = Duration::from_secs(20);

    /// A connection, and the node's end of it.
    async fn connected() -> (Connection, TcpStream) {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connection = Connection::new(stream).await.unwrap();
        (connection, node.accept().await.unwrap().0)
    }

    /// Sends a request with this body, of which the node reads the head before it answers.
    async fn exchanged(
        connection: &mut Connection,
        node: &mut TcpStream,
        body: Vec<u8>,
        answer: &str,
    ) -> Response<Incoming> {
        let body = Either::Left(Full::from(body));
        let request = Request::post("/").header("host", "a").body(body).unwrap();
        let answering = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(node.read_u8().await.unwrap());
            }
            node.write_all(answer.as_bytes()).await.unwrap();
        };
        let exchange = join(connection.exchange(request), answering);
        let (answered, ()) = timeout(LIMIT, exchange).await.unwrap();
        answered.unwrap_or_else(|error| panic!("{}", error.into_error()))
    }

    #[tokio::test]
    async fn a_node_that_closes_is_rid_of_its_connection_before_anybody_reads_its_answer() {
        let (mut connection, mut node) = connected().await;
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
        let _unread = exchanged(&mut connection, &mut node, Vec::new(), answer).await;
        let ended = poll_fn(|cx| {
            connection.poll(cx);
            match connection.ended {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        timeout(LIMIT, ended).await.unwrap();
        let end = timeout(LIMIT, node.read(&mut [0])).await.unwrap();
        assert_eq!(end.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_whose_request_is_still_being_sent_takes_no_other() {
        let (mut connection, mut node) = connected().await;
        let body = vec![b'x'; 64 << 20]; // more than fits on the way
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        exchanged(&mut connection, &mut node, body, answer).await;
        assert!(!connection.is_idle());
        let reading = async {
            let mut left = 64 << 20;
            let mut piece = vec![0; 1 << 20];
            while left > 0 {
                left -= node.read(&mut piece).await.unwrap();
            }
        };
        let mut reading = pin!(reading);
        let sent = poll_fn(|cx| {
            connection.poll(cx);
            reading.as_mut().poll(cx)
        });
        timeout(LIMIT, sent).await.unwrap();
        assert!(connection.is_idle());
    }
}
