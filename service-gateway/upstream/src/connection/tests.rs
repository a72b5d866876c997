use super::*;
use crate::body::ResponseBody;
use crate::pool::Pool;
use crate::request::RequestBody;
use futures_util::FutureExt;
use futures_util::future::join;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The time after which a test fails.
const TIMEOUT: Duration = Duration::from_secs(20);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.expect("in time")
}

/// Returns a connection, and the node's end of it.
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
        info: RequestInfo::default(),
    }
}

fn full(body: &[u8]) -> RequestBody {
    RequestBody::Full(Bytes::copy_from_slice(body))
}

/// Reads a head as the node, and sends a response.
async fn respond(node: &mut TcpStream, response: &[u8]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(node.read_u8().await.unwrap());
    }
    node.write_all(response).await.unwrap();
}

/// Returns the response's body, and whether its connection can be reused.
async fn receive(response: &[u8]) -> (io::Result<Vec<u8>>, bool) {
    let (mut connection, mut node) = connected().await;
    let (pool, address) = (Pool::unlimited(TIMEOUT), node.local_addr().unwrap());
    let sending = connection.send(request(full(b"")));
    let (received, ()) = in_time(join(sending, respond(&mut node, response))).await;
    let (head, framing) = received.unwrap();
    if framing == Framing::UntilClose || response.ends_with(b"part") {
        node.shutdown().await.unwrap();
    }
    let mut body = ResponseBody::new(connection, framing, head.closes, address, pool.clone());
    let mut whole = Vec::new();
    let ended = poll_fn(|cx| {
        loop {
            match ready!(body.poll_chunk(cx)) {
                Ok(Some(chunk)) => whole.extend(chunk),
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
async fn a_connection_is_reused_after_a_complete_response() {
    for (lines, is_reused) in [
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
        let (body, reused) = receive(format!("HTTP/1.1 {lines}").as_bytes()).await;
        assert_eq!(body.unwrap(), b"hi");
        assert_eq!(reused, is_reused, "{lines}");
    }
}

#[actix_web::test]
async fn interim_responses_are_dropped() {
    let (body, _) = receive(
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
        let sending = connection.send(request(full(b"")));
        let (received, ()) = in_time(join(sending, respond(&mut node, response.as_bytes()))).await;
        assert_eq!(received.is_ok(), is_read, "{count}: {received:?}");
    }
}

#[actix_web::test]
async fn only_a_close_delimited_body_may_end_early() {
    let (body, _) = receive(b"HTTP/1.1 200 OK\r\n\r\nto the end").await;
    assert_eq!(body.unwrap(), b"to the end");
    for cut in [
        "content-length: 9\r\n\r\npart",
        "transfer-encoding: chunked\r\n\r\n4\r\npart",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{cut}");
        let (body, is_reused) = receive(response.as_bytes()).await;
        assert_eq!(body.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(!is_reused);
    }
}

#[actix_web::test]
async fn early_data_is_not_a_response() {
    let early = b"HTTP/1.1 204 No Content\r\n\r\n";
    for early in [&early[..], b""] {
        let (mut connection, mut node) = connected().await;
        assert!(connection.is_idle());
        node.write_all(early).await.unwrap();
        node.shutdown().await.unwrap();
        in_time(connection.stream.readable()).await.unwrap();
        assert!(!connection.is_idle());
        let sent = in_time(connection.send(request(full(b"")))).await;
        assert!(matches!(sent, Err(SendError::Unsent(..))));
    }
}

#[actix_web::test]
async fn a_truncated_head_is_an_error() {
    for (response, is_invalid) in [
        (&b"HTTP/1.1 200 O"[..], true),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", true),
        (b"", false),
    ] {
        let (mut connection, mut node) = connected().await;
        let sending = connection.send(request(full(b"")));
        let responding = async {
            respond(&mut node, response).await;
            node.shutdown().await.unwrap();
        };
        let (received, ()) = in_time(join(sending, responding)).await;
        match received.unwrap_err() {
            SendError::InvalidResponse(_) => assert!(is_invalid),
            SendError::NoResponse(_) => assert!(!is_invalid),
            other => panic!("{other:?}"),
        }
    }
}

#[actix_web::test]
async fn an_unfinished_upload_prevents_reuse() {
    let (mut connection, mut node) = connected().await;
    let large = full(&vec![b'x'; 64 << 20]); // more than the sockets buffer
    let sending = connection.send(request(large));
    let responding = respond(&mut node, b"HTTP/1.1 204 No Content\r\n\r\n");
    let (received, ()) = in_time(join(sending, responding)).await;
    received.unwrap();
    assert!(!connection.is_idle());
}

#[actix_web::test]
async fn a_response_before_a_reset_is_read() {
    let (mut connection, mut node) = connected().await;
    let large = full(&vec![b'x'; 64 << 20]);
    let mut sending = pin!(connection.send(request(large)));
    assert!(sending.as_mut().now_or_never().is_none());
    let refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
    node.write_all(refusal).await.unwrap();
    node.set_zero_linger().unwrap();
    drop(node);
    let (head, _) = in_time(sending).await.unwrap();
    assert_eq!(head.status, 413);
}

#[actix_web::test]
async fn a_reset_does_not_end_a_close_delimited_body() {
    for is_closed in [true, false] {
        let (mut connection, mut node) = connected().await;
        let large = request(full(&vec![b'x'; 64 << 20]));
        let sending = connection.send(large);
        let responding = respond(&mut node, b"HTTP/1.1 200 OK\r\n\r\nhi");
        let (received, ()) = in_time(join(sending, responding)).await;
        let (_, mut framing) = received.unwrap();
        if is_closed {
            node.shutdown().await.unwrap();
        }
        node.set_zero_linger().unwrap();
        drop(node);
        let mut next = async || in_time(poll_fn(|cx| connection.poll_body(&mut framing, cx))).await;
        assert_eq!(next().await.unwrap().unwrap(), "hi");
        assert_eq!(next().await.is_ok(), is_closed);
    }
}

#[actix_web::test]
async fn an_unsent_request_is_returned() {
    let (mut connection, node) = connected().await;
    node.set_zero_linger().unwrap();
    drop(node);
    in_time(connection.stream.readable()).await.unwrap();
    let sent = in_time(connection.send(request(full(b"body")))).await;
    let Err(SendError::Unsent(request, _)) = sent else {
        panic!("{sent:?}");
    };
    assert_eq!(request.head, "POST / HTTP/1.1\r\n\r\n");
    assert!(matches!(request.body, RequestBody::Full(body) if body == "body"));
}
