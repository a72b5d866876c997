//! One attempt at one node.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::rt::spawn;
use discovery::InFlight;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;
use upstream::{
    Connection, ParseError, Pool, Request, ResponseBody, ResponseHead, SendError, is_local,
};

use super::outlier::{End, FailureKind};
use crate::error::Reason;

/// The failure of an attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection, so that nothing was sent.
    NotConnected(io::Error),
    /// There is no connection in time, so that nothing was sent.
    ConnectTimeout(io::Error),
    /// There is no connection for a reason of this host. Not counted as a failure of the node.
    Local(io::Error),
    /// The request was sent, or part of it, and there is no valid response.
    NoResponse(Box<dyn Error>),
    /// A pooled connection was closed before a byte of the response. Its node may have closed it while this
    /// request was sent. Not counted as a failure of the node.
    ClosedBeforeReuse(io::Error),
    /// Another parser could find a different end of the response.
    AmbiguousFraming(&'static str),
}

impl Failure {
    fn of_connecting(error: io::Error) -> Self {
        if is_local(&error) {
            Self::Local(error)
        } else if error.kind() == ErrorKind::TimedOut {
            Self::ConnectTimeout(error)
        } else {
            Self::NotConnected(error)
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected(_) | Self::ConnectTimeout(_) => Reason::ConnectFailed,
            Self::Local(_) => Reason::Overloaded,
            Self::NoResponse(_) | Self::ClosedBeforeReuse(_) | Self::AmbiguousFraming(_) => {
                Reason::BadUpstream
            }
        }
    }

    /// Returns the kind of the failure, which decides what it reports about the node.
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::NotConnected(_) => FailureKind::NotConnected,
            Self::ConnectTimeout(_) => FailureKind::ConnectTimeout,
            Self::Local(_) => FailureKind::Local,
            Self::NoResponse(_) => FailureKind::NoResponse,
            Self::ClosedBeforeReuse(_) => FailureKind::ClosedBeforeReuse,
            Self::AmbiguousFraming(_) => FailureKind::AmbiguousFraming,
        }
    }

    /// Returns the description of the failure, for the log and the client.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::NotConnected(error) | Self::ConnectTimeout(error) | Self::Local(error) => {
                format!("no connection: {error}")
            }
            Self::NoResponse(error) => format!("no answer: {error}"),
            Self::ClosedBeforeReuse(error) => format!("no answer: {error}"),
            Self::AmbiguousFraming(detail) => (*detail).to_owned(),
        }
    }
}

pub(super) type Sent = Result<(ResponseHead, ResponseBody), Failure>;

/// An attempt that has not ended.
pub(super) struct Attempt<'a> {
    pub(super) endpoint: InFlight,
    pub(super) began: Instant,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Connecting(Connecting),
    Sending(LocalBoxFuture<'a, Sent>),
}

/// A connection that is being opened. It needs no request.
type Connecting = LocalBoxFuture<'static, Result<Connection, Failure>>;

/// The end of a stage.
pub(super) enum StageEnd {
    /// There is a connection, over which nothing was sent.
    Connected(Connection),
    Sent(Sent),
}

impl<'a> Attempt<'a> {
    pub(super) fn connect(endpoint: InFlight, began: Instant, pool: &Rc<Pool>) -> Self {
        let connection = connect(pool.clone(), endpoint.address);
        Self {
            endpoint,
            began,
            stage: Stage::Connecting(connection.boxed_local()),
        }
    }

    /// Sends the request over a connection. `is_reused` is whether it was pooled.
    pub(super) fn send(
        endpoint: InFlight,
        began: Instant,
        pool: &'a Rc<Pool>,
        (connection, is_reused): (Connection, bool),
        request: Request,
    ) -> Self {
        let response = send(pool, endpoint.address, connection, is_reused, request);
        Self {
            endpoint,
            began,
            stage: Stage::Sending(response.boxed_local()),
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::Connecting(_))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StageEnd> {
        Poll::Ready(match &mut self.stage {
            Stage::Connecting(connection) => match ready!(connection.poll_unpin(cx)) {
                Ok(connection) => StageEnd::Connected(connection),
                Err(failure) => StageEnd::Sent(Err(failure)),
            },
            Stage::Sending(response) => StageEnd::Sent(ready!(response.poll_unpin(cx))),
        })
    }

    /// Gives up an attempt without a connection, as the request is sent over another one. It continues to
    /// connect, for a later request and for the report if it fails.
    pub(super) fn leave_connecting(self, pool: &Rc<Pool>) {
        let Stage::Connecting(connection) = self.stage else {
            return;
        };
        let (endpoint, pool) = (self.endpoint, pool.clone());
        spawn(async move {
            match connection.await {
                Ok(connection) => pool.put(endpoint.address, connection),
                Err(failure) => End::Failed(failure.kind()).report(false).record(&endpoint),
            }
        });
    }
}

async fn connect(pool: Rc<Pool>, node: SocketAddr) -> Result<Connection, Failure> {
    let connection = pool.connect(node).await;
    connection.map_err(Failure::of_connecting)
}

/// Sends a request and waits for the head of the response.
///
/// If a pooled connection turns out to be closed before anything was sent, the request is sent over the next
/// one. This is not another attempt.
async fn send(
    pool: &Rc<Pool>,
    node: SocketAddr,
    mut connection: Connection,
    mut is_reused: bool,
    mut request: Request,
) -> Sent {
    loop {
        request = match connection.send(request).await {
            Ok((head, framing)) => {
                let body = ResponseBody::new(connection, framing, head.closes, node, pool.clone());
                return Ok((head, body));
            }
            Err(SendError::Unsent(unsent, _)) if is_reused => unsent,
            Err(SendError::NoResponse(error)) if is_reused => {
                return Err(Failure::ClosedBeforeReuse(error));
            }
            Err(SendError::Unsent(_, error) | SendError::NoResponse(error)) => {
                return Err(Failure::NoResponse(error.into()));
            }
            Err(SendError::InvalidResponse(ParseError::Malformed(error))) => {
                return Err(Failure::NoResponse(error));
            }
            Err(SendError::InvalidResponse(ParseError::AmbiguousFraming(fault))) => {
                return Err(Failure::AmbiguousFraming(fault)); // and its connection is closed
            }
        };
        (connection, is_reused) = match pool.take(node) {
            Some(connection) => (connection, true),
            None => (connect(pool.clone(), node).await?, false),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use futures_util::future::join;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;
    use upstream::{RequestBody, RequestInfo};

    /// The time after which a test fails.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Sends a request as the first attempt does.
    async fn attempt(pool: &Rc<Pool>, node: SocketAddr) -> Sent {
        let (connection, is_reused) = match pool.take(node) {
            Some(connection) => (connection, true),
            None => (connect(pool.clone(), node).await?, false),
        };
        send(pool, node, connection, is_reused, request()).await
    }

    fn unlimited_pool() -> Rc<Pool> {
        Pool::new(TIMEOUT, Arc::new(Semaphore::new(1 << 10)))
    }

    fn request() -> Request {
        Request {
            head: BytesMut::from("POST / HTTP/1.1\r\nhost: a\r\n\r\n"),
            body: RequestBody::Full(Bytes::new()),
            info: RequestInfo::default(),
        }
    }

    /// The end is received before the connection is reported as open.
    #[actix_web::test]
    async fn a_closed_new_connection_is_not_retried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (node, accepted) = (
            listener.local_addr().unwrap(),
            Arc::new(AtomicUsize::new(0)),
        );
        let (count, (closed, is_closed)) = (accepted.clone(), mpsc::channel());
        thread::spawn(move || {
            for connection in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                drop(connection);
                let _ = closed.send(()); // the test may be over
            }
        });
        let pool = unlimited_pool();
        let mut sending = pin!(attempt(&pool, node));
        let mut is_first = true;
        let sent = poll_fn(|cx| {
            let sent = sending.as_mut().poll(cx);
            if std::mem::take(&mut is_first) {
                is_closed.recv().unwrap();
            }
            sent
        });
        let sent = timeout(TIMEOUT, sent).await.unwrap();
        assert!(matches!(sent, Err(Failure::NoResponse(_))));
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
    }

    #[actix_web::test]
    async fn missing_descriptors_are_a_local_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::new(TIMEOUT, Arc::new(Semaphore::new(0)));
        let sent = attempt(&pool, listener.local_addr().unwrap()).await;
        let failure = sent.err().unwrap();
        assert!(matches!(failure, Failure::Local(_)));
        assert_eq!(failure.reason(), Reason::Overloaded);
    }

    /// The end has been received, and Tokio has not reported it: nothing can be sent.
    #[actix_web::test]
    async fn a_closed_pooled_connection_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (node, pool) = (listener.local_addr().unwrap(), unlimited_pool());
        pool.put(node, pool.connect(node).await.unwrap());
        let (ended, _) = listener.accept().await.unwrap();
        ended.set_zero_linger().unwrap();
        drop(ended);

        let responding = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.read_u8().await.unwrap();
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            peer.write_all(response).await.unwrap();
        };
        let sent = join(attempt(&pool, node), responding);
        let (response, ()) = timeout(TIMEOUT, sent).await.unwrap();
        assert_eq!(response.unwrap().0.status, 200);
    }
}
