//! One attempt at one node.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::connection::AnswerBody;
use super::pool::Pool;
use super::upload::RequestBody;
use crate::error::Reason;

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection was made, so nothing was sent.
    NotConnected(io::Error),
    /// The request was sent, or part of it, and no answer came.
    NoAnswer(hyper::Error),
    /// The same over a connection that was kept from an earlier request. Its node may have closed it
    /// just when this one was sent: that is nobody's fault, and says nothing about the node.
    Stale(hyper::Error),
    /// An answer came that others could read in another way.
    Unclear(&'static str),
}

impl Failure {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected(_) => Reason::ConnectFailed,
            Self::NoAnswer(_) | Self::Stale(_) | Self::Unclear(_) => Reason::BadUpstream,
        }
    }

    /// What happened, with its causes.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::NotConnected(error) => format!("no connection: {error}"),
            Self::NoAnswer(error) | Self::Stale(error) => with_causes(error),
            Self::Unclear(detail) => (*detail).to_owned(),
        }
    }
}

fn with_causes(mut error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    while let Some(source) = error.source() {
        causes = format!("{causes}: {source}");
        error = source;
    }
    causes
}

/// Sends a request, over a new connection if wanted, and waits for the head of the answer.
///
/// A kept connection that ends before anything was sent costs nothing: the request takes the next.
pub(super) async fn send(
    pool: &Rc<Pool>,
    node: SocketAddr,
    mut request: Request<RequestBody>,
    over_new: bool,
) -> Result<Response<AnswerBody>, Failure> {
    let may_switch = request.headers().contains_key(UPGRADE);
    loop {
        let kept = if over_new { None } else { pool.take(node) };
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => pool.connect(node).await.map_err(Failure::NotConnected)?,
        };
        let mut error = match connection.exchange(request).await {
            Ok(answer) => {
                return match unclear(&answer, may_switch) {
                    Some(what) => Err(Failure::Unclear(what)), // and its connection ends with it
                    None => Ok(
                        answer.map(|body| AnswerBody::new(body, connection, node, pool.clone()))
                    ),
                };
            }
            Err(error) => error,
        };
        request = match error.take_message() {
            Some(unsent) if is_kept => unsent,
            _ if is_kept => return Err(Failure::Stale(error.into_error())),
            _ => return Err(Failure::NoAnswer(error.into_error())),
        };
    }
}

/// What hyper takes and a proxy must not: where the body ends would be known here, and not to
/// whoever reads the head alone ([RFC 9112, section 6.3][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
fn unclear(answer: &Response<Incoming>, may_switch: bool) -> Option<&'static str> {
    let headers = answer.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|coding| coding.as_bytes().trim_ascii());
    let chunked = coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Some("the answer has a transfer coding that nobody asked for");
    }
    if coding.is_some() && headers.contains_key(CONTENT_LENGTH) {
        return Some("the answer has a length and chunks");
    }
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    (switches && !may_switch).then_some("the answer switches protocols, and nobody asked for that")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::connection::Connection;
    use actix_web::rt::spawn;
    use http_body_util::{Either, Full};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::consume_budget;
    use tokio::time::timeout;

    /// Who waits that long waits in vain.
    const LIMIT: Duration = Duration::from_secs(20);

    fn request() -> Request<RequestBody> {
        let body = Either::Left(Full::default());
        Request::post("/").header("host", "a").body(body).unwrap()
    }

    /// Its end has come before the connection can be seen to be there.
    #[actix_web::test]
    async fn a_new_connection_that_ends_at_once_is_not_tried_again() {
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
        let pool = Pool::new(LIMIT);
        let mut sending = pin!(send(&pool, node, request(), false));
        let mut is_first = true;
        let sent = poll_fn(|cx| {
            let sent = sending.as_mut().poll(cx);
            if std::mem::take(&mut is_first) {
                is_closed.recv().unwrap();
            }
            sent
        });
        let sent = timeout(LIMIT, sent).await.unwrap();
        assert!(matches!(sent, Err(Failure::NoAnswer(_))));
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
    }

    /// When a task has done much already, Tokio lets it see nothing new: not the end of a connection
    /// either, until the request is about to be sent.
    #[actix_web::test]
    async fn a_kept_connection_that_ended_before_anything_was_sent_costs_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (node, pool) = (listener.local_addr().unwrap(), Pool::new(LIMIT));
        let stream = TcpStream::connect(node).await.unwrap();
        let stream = stream.into_std().unwrap();
        let watched = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        pool.put(node, Connection::new(stream).await.unwrap());
        drop(listener.accept().await.unwrap());
        watched.readable().await.unwrap();

        let answering = spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.read_u8().await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            peer.write_all(answer).await.unwrap();
            peer
        });
        let mut sending = pin!(send(&pool, node, request(), false));
        let mut is_first = true;
        let sent = poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                for _ in 0..1000 {
                    let _ = pin!(consume_budget()).poll(cx);
                }
            }
            sending.as_mut().poll(cx)
        });
        let answer = timeout(LIMIT, sent).await.unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
        answering.await.unwrap();
    }
}
