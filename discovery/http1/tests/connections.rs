//! Connections over real sockets, in front of a small application.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::{Bytes, Payload, get, post, route};
use actix_web::{App, HttpResponse, rt};
use futures_util::{StreamExt, TryStreamExt, stream};
use http1::{Limits, Options, Worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

async fn echo(body: Payload) -> HttpResponse {
    HttpResponse::Ok().streaming(body)
}

/// Returns the length of the body, or the kind of its fault.
async fn count(body: Payload) -> HttpResponse {
    let bytes = body.try_fold(0, async |sum, data| Ok(sum + data.len()));
    match bytes.await {
        Ok(bytes) => HttpResponse::Ok().body(bytes.to_string()),
        Err(error) => HttpResponse::BadRequest().body(error.to_string()),
    }
}

/// A body that fails behind its first chunk.
async fn broken() -> HttpResponse {
    let chunks = [
        Ok(Bytes::from_static(b"part")),
        Err(std::io::Error::other("broken")),
    ];
    HttpResponse::Ok().streaming(stream::iter(chunks))
}

async fn endless() -> HttpResponse {
    let chunk = Bytes::from(vec![b'x'; 60_000]);
    HttpResponse::Ok().streaming(stream::repeat(chunk).map(Ok::<_, std::io::Error>))
}

fn start(limits: Limits) -> (SocketAddr, ServerHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options {
        workers: 1,
        max_connections: 100,
        shutdown_timeout: LIMIT,
    };
    let server = http1::serve("test", listener, &options, move || Worker {
        app: App::new()
            .route("/", route().to(async || "hello"))
            .route("/echo", post().to(echo))
            .route("/count", post().to(count))
            .route("/broken", get().to(broken))
            .route("/endless", get().to(endless)),
        connect: move |_: &TcpStream| limits,
    })
    .unwrap();
    let handle = server.handle();
    rt::spawn(server);
    (address, handle)
}

/// Sends bytes and returns all that is received until the connection ends.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut received)).await;
    read.expect("the end of the connection").unwrap();
    String::from_utf8(received).unwrap()
}

async fn up_to(stream: &mut TcpStream, end: &str) -> String {
    let mut received = String::new();
    while !received.ends_with(end) {
        let byte = timeout(LIMIT, stream.read_u8()).await;
        received.push(char::from(byte.expect("a byte").unwrap()));
    }
    received
}

/// Returns the statuses of the responses.
fn statuses(received: &str) -> Vec<&str> {
    let heads = received.split("HTTP/1.").skip(1);
    heads.map(|head| &head[2..5]).collect()
}

#[actix_web::test]
async fn pipelined_requests_get_a_response_each() {
    let (address, _server) = start(Limits::DEFAULT);
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    let head = get.replace("GET", "HEAD");
    let last = get.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let received = exchange(address, &[get, &head, post, &last, get].concat()).await;
    assert_eq!(statuses(&received), ["200"; 4], "{received}");
    assert_eq!(received.matches("content-length: 5\r\n").count(), 3);
    assert_eq!(received.matches("\r\n\r\nhello").count(), 2);
    assert_eq!(received.matches("\r\n2\r\nhi\r\n0\r\n\r\n").count(), 1);
    assert_eq!(received.matches("connection: close\r\n").count(), 1);
}

#[actix_web::test]
async fn a_malformed_head_is_refused_behind_the_responses_due() {
    let (address, _server) = start(Limits::DEFAULT);
    let received = exchange(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n}").await;
    assert_eq!(statuses(&received), ["200", "400"], "{received}");
    assert!(received.contains("hello") && received.contains("connection: close\r\n"));
    assert!(received.contains("application/problem+json"));
}

#[actix_web::test]
async fn a_malformed_body_reaches_the_application_as_an_error() {
    let (address, _server) = start(Limits::DEFAULT);
    for body in ["zz\r\n", "2\r\nabc"] {
        let head = "POST /count HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let received = exchange(address, &[head, body].concat()).await;
        assert_eq!(statuses(&received), ["400"], "{received}");
        assert!(received.contains("connection: close\r\n"), "{received}");
    }
}

#[actix_web::test]
async fn an_expected_100_precedes_the_body() {
    let (address, _server) = start(Limits::DEFAULT);
    for (path, then) in [("/count", "200"), ("/none", "404")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
             expect: 100-continue\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let first = up_to(&mut stream, "\r\n\r\n").await;
        if then == "200" {
            assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
            stream.write_all(b"body").await.unwrap();
            let rest = rest(&mut stream).await;
            assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\n4"));
        } else {
            assert!(first.starts_with("HTTP/1.1 404 Not Found\r\n"), "{first}");
            rest(&mut stream).await;
        }
    }
}

#[actix_web::test]
async fn a_pause_in_a_body_is_an_error() {
    let (address, _server) = start(Limits::new(LIMIT, LIMIT, SHORT));
    let head = "POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\npa";
    let received = exchange(address, head).await;
    assert_eq!(statuses(&received), ["400"], "{received}");
}

#[actix_web::test]
async fn heads_and_idle_connections_have_a_limit() {
    let (address, _server) = start(Limits::new(SHORT, SHORT, LIMIT));
    assert_eq!(exchange(address, "").await, "");
    assert_eq!(statuses(&exchange(address, "GET / HT").await), ["408"]);
    let received = exchange(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(statuses(&received), ["200"], "{received}");
}

#[actix_web::test]
async fn a_client_that_does_not_read_is_closed() {
    let (address, _server) = start(Limits::new(LIMIT, LIMIT, SHORT));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    // A reset shows in the state of the socket, without reading.
    let reset = timeout(LIMIT, stream.ready(tokio::io::Interest::ERROR));
    reset.await.expect("the reset").unwrap();
}

#[actix_web::test]
async fn a_response_that_breaks_is_not_whole() {
    let (address, _server) = start(Limits::DEFAULT);
    let received = exchange(address, "GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(received.ends_with("\r\n4\r\npart\r\n"), "{received}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /broken HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut received = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut received)).await;
    let error = read.expect("the end").expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[actix_web::test]
async fn a_body_of_any_size_is_echoed_while_it_arrives() {
    const BYTES: usize = 8 << 20;
    let (address, _server) = start(Limits::DEFAULT);
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = async {
        let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {BYTES}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&vec![b'x'; BYTES]).await.unwrap();
    };
    let receiving = async {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        received.iter().filter(|byte| **byte == b'x').count()
    };
    let both = timeout(LIMIT, async { tokio::join!(sending, receiving) });
    assert_eq!(both.await.expect("the echo").1, BYTES);
}

#[actix_web::test]
async fn a_stopped_server_closes_idle_connections() {
    let (address, server) = start(Limits::DEFAULT);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(get).await.unwrap();
    up_to(&mut stream, "hello").await;
    let stopped = server.stop(true);
    assert_eq!(rest(&mut stream).await, "");
    timeout(LIMIT, stopped)
        .await
        .expect("the end of the server");
}
