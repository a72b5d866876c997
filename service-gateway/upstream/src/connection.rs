use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::poll_read_buf;

use super::head::{Asked, Head};
use super::sending::{Request, Sending};
use super::upload::Interrupted;
use http1::{Decoded, Framing, READ_BYTES};

/// The most interim responses to one request. Servers send one or two. A node that sends them without end
/// would keep its worker busy until the deadline.
const MAX_INTERIM_RESPONSES: usize = 16;

/// A connection to a node, over which goes one request at a time.
///
/// No task stands behind it: whoever waits for an answer sends the request and reads the answer. So
/// both wake one task, the client's, and no other. Empty buffers are given back while nothing comes.
pub(super) struct Connection {
    stream: TcpStream,
    /// What has come, and was not taken yet.
    received: BytesMut,
    /// `None` when all of the request was sent, or the node does not listen any more.
    sending: Option<Sending>,
    is_deaf: bool,
    /// Linux tells of a reset once. If writing has met it, reading meets what looks like an end.
    is_reset: bool,
    /// Whatever becomes of the connection, it counts among those that may be open.
    permit: OwnedSemaphorePermit,
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The connection ended, or the node spoke, before any of the request was sent.
    Unsent(Request, io::Error),
    /// It ended later, before anything came, or the client's body broke off.
    Failed(io::Error),
    /// What came is no answer, or not a whole one.
    Nonsense(Box<dyn Error>),
    /// What came could be read in another way.
    Unclear(&'static str),
}

/// The progress of reading a response's head.
#[derive(Default)]
struct Reading {
    /// The bytes that were parsed and are not yet a head. `None` until something comes.
    parsed: Option<usize>,
    interim_responses: usize,
}

impl Reading {
    fn add_interim(&mut self) -> Result<(), Unanswered> {
        self.parsed = Some(0);
        self.interim_responses += 1;
        if self.interim_responses > MAX_INTERIM_RESPONSES {
            let detail = format!("more than {MAX_INTERIM_RESPONSES} interim responses");
            return Err(Unanswered::Nonsense(detail.into()));
        }
        Ok(())
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            sending: None,
            is_deaf: false,
            is_reset: false,
            permit,
        }
    }

    /// Sends a request and waits for the head of the answer. What is left of the request's body by
    /// then is sent while the answer's body is read.
    ///
    /// Interim responses are read and dropped. `100` was sent to the client when its body was first
    /// read. `103` is dropped on purpose: the final response may come from another node, and clients
    /// that do not expect `103` take it for the final response ([RFC 8297, section 3][1]). Proxies have to
    /// forward both, gateways need not ([RFC 9110, section 15.2][2]).
    ///
    /// # Errors
    /// If no response comes, or one that is not valid, or more than [`MAX_INTERIM_RESPONSES`] before it.
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc8297#section-3
    /// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2
    pub(super) async fn exchange(
        &mut self,
        request: Request,
    ) -> Result<(Head, Framing), Unanswered> {
        let asked = request.asked;
        self.sending = Some(Sending::new(request));
        let mut reading = Reading::default();
        poll_fn(|cx| {
            // What is seen to come before the first byte was sent is no answer to it.
            if self.is_unsent() && !self.is_quiet() {
                let error = io::Error::other("the node spoke before it was asked, or left");
                return Poll::Ready(Err(self.unsent(asked, error)));
            }
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(self.unsent(asked, error)));
            }
            if self.is_unsent() {
                let _ = ready!(self.stream.poll_read_ready(cx)); // the next look tells
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.poll_head(asked, &mut reading, cx)
        })
        .await
    }

    /// Whether there is a request of which nothing was sent yet.
    fn is_unsent(&self) -> bool {
        let unsent = |sending: &Sending| !sending.is_begun;
        self.sending.as_ref().is_some_and(unsent)
    }

    /// The request again, if nothing of it was sent.
    fn unsent(&mut self, asked: Asked, error: io::Error) -> Unanswered {
        match self.sending.take() {
            Some(sending) if !sending.is_begun => {
                Unanswered::Unsent(sending.into_request(asked), error)
            }
            _ => Unanswered::Failed(error),
        }
    }

    /// Parses the head when more of it has come than was parsed before.
    fn poll_head(
        &mut self,
        asked: Asked,
        reading: &mut Reading,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Head, Framing), Unanswered>> {
        loop {
            while self.received.len() > reading.parsed.unwrap_or_default() {
                match Head::take(&mut self.received, asked)? {
                    Some((head, _)) if head.is_interim() => reading.add_interim()?,
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => reading.parsed = Some(self.received.len()),
                }
            }
            let received = ready!(self.poll_receive(READ_BYTES, cx));
            received.map_err(|error| match reading.parsed {
                None => Unanswered::Failed(error),
                Some(_) => Unanswered::Nonsense(error.into()), // but the beginning of an answer
            })?;
        }
    }

    /// Sends what can be sent now. Ready when that is all of the request.
    ///
    /// # Errors
    /// If the client's body breaks off, or if nothing at all can be sent. An error after that counts as
    /// done: what comes from the node, or does not come, tells. One that refuses an upload may close
    /// its connection at once, and its answer can be read nevertheless.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        match ready!(sending.poll(&mut self.stream, cx)) {
            Err(Interrupted) => return Poll::Ready(Err(io::Error::other(Interrupted))),
            Ok(Err(error)) if !sending.is_begun => return Poll::Ready(Err(error)),
            Ok(Err(error)) => {
                self.is_deaf = true;
                self.is_reset = error.kind() == ErrorKind::ConnectionReset;
            }
            Ok(Ok(())) => {}
        }
        self.sending = None;
        Poll::Ready(Ok(()))
    }

    /// The next piece of an answer's body, `None` at its end. Carries on what is left of the request, too.
    pub(super) fn poll_body(
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
                Ok(Decoded::Data(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(Decoded::End) => return Poll::Ready(Ok(None)),
                Ok(Decoded::Pending) => {}
                Err(garbled) => return Poll::Ready(Err(io::Error::other(garbled))),
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

    /// Waits until more has come.
    ///
    /// # Errors
    /// If nothing more will come.
    fn poll_receive(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_read(room, cx);
        if read.is_pending() {
            self.give_back();
        }
        read
    }

    fn poll_read(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_read_ready(cx))?; // before there is a buffer
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

    /// Whether the node has said all it had to say.
    fn is_end(&self, error: &io::Error) -> bool {
        error.kind() == ErrorKind::UnexpectedEof && !self.is_reset
    }

    /// Gives the buffer back if there is nothing in it.
    pub(super) fn give_back(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// The stream, what has come over it, and its permit. `None` if there is more to send.
    pub(super) fn into_stream(self) -> Option<(TcpStream, BytesMut, OwnedSemaphorePermit)> {
        let is_sent = self.sending.is_none();
        is_sent.then_some((self.stream, self.received, self.permit))
    }

    /// Whether it can take a request, as far as can be seen from here.
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none() && !self.is_deaf && self.is_quiet()
    }

    /// Whether nothing has come, not even the end. Asks the kernel only if it has told of something.
    fn is_quiet(&self) -> bool {
        let read = || self.stream.try_read(&mut [0]);
        self.received.is_empty() && read().is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::answer_body::AnswerBody;
    use crate::proxy::pool::Pool;
    use crate::proxy::upload::RequestBody;
    use futures_util::FutureExt;
    use futures_util::future::join;
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    /// Who waits that long waits in vain.
    const LIMIT: Duration = Duration::from_secs(20);

    async fn in_time<T>(wanted: impl Future<Output = T>) -> T {
        timeout(LIMIT, wanted).await.expect("it comes in time")
    }

    /// A connection, and the node's end of it.
    async fn connected() -> (Connection, TcpStream) {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (
            Connection::new(stream, permit),
            node.accept().await.unwrap().0,
        )
    }

    fn request(body: RequestBody) -> Request {
        Request {
            head: BytesMut::from("POST / HTTP/1.1\r\n\r\n"),
            body,
            asked: Asked::default(),
        }
    }

    fn held(body: &[u8]) -> RequestBody {
        RequestBody::Held(Bytes::copy_from_slice(body))
    }

    /// Has the node read a whole head, and say something then.
    async fn asked(node: &mut TcpStream, answer: &[u8]) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(node.read_u8().await.unwrap());
        }
        node.write_all(answer).await.unwrap();
    }

    /// The answer's body, and whether its connection can be used again.
    async fn answered(answer: &[u8]) -> (io::Result<Vec<u8>>, bool) {
        let (mut connection, mut node) = connected().await;
        let (pool, address) = (Pool::unlimited(LIMIT), node.local_addr().unwrap());
        let exchange = connection.exchange(request(held(b"")));
        let (answered, ()) = in_time(join(exchange, asked(&mut node, answer))).await;
        let (head, framing) = answered.unwrap();
        if framing == Framing::UntilClose || answer.ends_with(b"part") {
            node.shutdown().await.unwrap();
        }
        let mut body = AnswerBody::new(connection, framing, head.closes, address, pool.clone());
        let mut whole = Vec::new();
        let ended = poll_fn(|cx| {
            loop {
                match ready!(body.poll_piece(cx)) {
                    Ok(Some(piece)) => whole.extend(piece),
                    Ok(None) => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        });
        let ended = in_time(ended).await;
        drop(body);
        (ended.map(|()| whole), pool.take(address).is_some())
    }

    #[actix_web::test]
    async fn a_connection_is_used_again_if_its_answer_ended_well() {
        for (lines, is_kept) in [
            ("200 OK\r\ncontent-length: 2\r\n\r\nhi", true),
            (
                "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                true,
            ),
            ("200 OK\r\ncontent-length: 2\r\n\r\nhi, and more", false),
            (
                "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
                false,
            ),
            ("200 OK\r\n\r\nhi", false),
        ] {
            let (body, kept) = answered(format!("HTTP/1.1 {lines}").as_bytes()).await;
            assert_eq!(body.unwrap(), b"hi");
            assert_eq!(kept, is_kept, "{lines}");
        }
    }

    #[actix_web::test]
    async fn interim_answers_are_passed_over() {
        let (body, _) = answered(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        )
        .await;
        assert_eq!(body.unwrap(), b"hi");
    }

    #[actix_web::test]
    async fn interim_responses_are_limited() {
        for (count, is_read) in [
            (MAX_INTERIM_RESPONSES, true),
            (MAX_INTERIM_RESPONSES + 1, false),
        ] {
            let (mut connection, mut node) = connected().await;
            let response = format!(
                "{}HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count)
            );
            let exchange = connection.exchange(request(held(b"")));
            let (exchanged, ()) =
                in_time(join(exchange, asked(&mut node, response.as_bytes()))).await;
            assert_eq!(exchanged.is_ok(), is_read, "{count}: {exchanged:?}");
        }
    }

    #[actix_web::test]
    async fn a_body_that_breaks_off_is_an_error_and_one_until_the_end_is_none() {
        let (body, _) = answered(b"HTTP/1.1 200 OK\r\n\r\nto the end").await;
        assert_eq!(body.unwrap(), b"to the end");
        for cut in [
            "content-length: 9\r\n\r\npart",
            "transfer-encoding: chunked\r\n\r\n4\r\npart",
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{cut}");
            let (body, is_kept) = answered(said.as_bytes()).await;
            assert_eq!(body.unwrap_err().kind(), ErrorKind::UnexpectedEof);
            assert!(!is_kept);
        }
    }

    #[actix_web::test]
    async fn what_comes_before_a_request_is_no_answer_to_it() {
        let early = b"HTTP/1.1 204 No Content\r\n\r\n";
        for early in [&early[..], b""] {
            let (mut connection, mut node) = connected().await;
            assert!(connection.is_idle());
            node.write_all(early).await.unwrap();
            node.shutdown().await.unwrap();
            in_time(connection.stream.readable()).await.unwrap();
            assert!(!connection.is_idle());
            let unsent = in_time(connection.exchange(request(held(b"")))).await;
            assert!(matches!(unsent, Err(Unanswered::Unsent(..))));
        }
    }

    #[actix_web::test]
    async fn the_beginning_of_an_answer_is_none() {
        for (said, is_nonsense) in [
            (&b"HTTP/1.1 200 O"[..], true),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n", true),
            (b"", false),
        ] {
            let (mut connection, mut node) = connected().await;
            let exchange = connection.exchange(request(held(b"")));
            let says = async {
                asked(&mut node, said).await;
                node.shutdown().await.unwrap();
            };
            let (answered, ()) = in_time(join(exchange, says)).await;
            match answered.unwrap_err() {
                Unanswered::Nonsense(_) => assert!(is_nonsense),
                Unanswered::Failed(_) => assert!(!is_nonsense),
                other => panic!("{other:?}"),
            }
        }
    }

    #[actix_web::test]
    async fn a_connection_whose_request_is_still_being_sent_takes_no_other() {
        let (mut connection, mut node) = connected().await;
        let large = held(&vec![b'x'; 64 << 20]); // more than fits on the way
        let exchange = connection.exchange(request(large));
        let asked = asked(&mut node, b"HTTP/1.1 204 No Content\r\n\r\n");
        let (answered, ()) = in_time(join(exchange, asked)).await;
        answered.unwrap();
        assert!(!connection.is_idle());
    }

    #[actix_web::test]
    async fn what_a_node_said_before_it_stopped_listening_is_read() {
        let (mut connection, mut node) = connected().await;
        let large = held(&vec![b'x'; 64 << 20]);
        let mut exchange = pin!(connection.exchange(request(large)));
        assert!(exchange.as_mut().now_or_never().is_none());
        let refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
        node.write_all(refusal).await.unwrap();
        node.set_zero_linger().unwrap();
        drop(node);
        let (head, _) = in_time(exchange).await.unwrap();
        assert_eq!(head.status, 413);
    }

    #[actix_web::test]
    async fn an_answer_until_the_end_is_whole_if_the_end_came_before_a_reset() {
        for says_so in [true, false] {
            let (mut connection, mut node) = connected().await;
            let large = request(held(&vec![b'x'; 64 << 20]));
            let exchange = connection.exchange(large);
            let asked = asked(&mut node, b"HTTP/1.1 200 OK\r\n\r\nhi");
            let (answered, ()) = in_time(join(exchange, asked)).await;
            let (_, mut framing) = answered.unwrap();
            if says_so {
                node.shutdown().await.unwrap();
            }
            node.set_zero_linger().unwrap();
            drop(node);
            let mut next =
                async || in_time(poll_fn(|cx| connection.poll_body(&mut framing, cx))).await;
            assert_eq!(next().await.unwrap().unwrap(), "hi");
            assert_eq!(next().await.is_ok(), says_so);
        }
    }

    #[actix_web::test]
    async fn a_request_of_which_nothing_was_sent_comes_back() {
        let (mut connection, node) = connected().await;
        node.set_zero_linger().unwrap();
        drop(node);
        in_time(connection.stream.readable()).await.unwrap();
        let unsent = in_time(connection.exchange(request(held(b"body")))).await;
        let Err(Unanswered::Unsent(request, _)) = unsent else {
            panic!("{unsent:?}");
        };
        assert_eq!(request.head, "POST / HTTP/1.1\r\n\r\n");
        assert!(matches!(request.body, RequestBody::Held(body) if body == "body"));
    }
}
