//! Bodies that are larger than memory should be, and go on while they arrive.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use discovery::MemoryRegistry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Gateway, Upstream, greeter, is_echoed, until};

const MANY: usize = 64 << 20;

/// More than all the buffers between two ends of a connection through the gateway: those of four
/// sockets, and its own.
const ALL_BUFFERS: usize = 24 << 20;

/// No progress for so long is none at all.
const STALL: Duration = Duration::from_millis(500);

#[actix_web::test]
async fn sixteen_megabytes_are_echoed_while_they_are_sent() {
    let registry = MemoryRegistry::default();
    greeter(&registry, "version=v1").await;
    let gateway = Gateway::following("--route /=greeter", registry);
    for in_chunks in [false, true] {
        let client = gateway.connect().await;
        is_echoed(client, "/echo", 16 << 20, in_chunks).await;
    }
}

#[actix_web::test]
async fn a_slow_reader_stalls_the_node_and_not_the_gateways_memory() {
    let sent = Rc::new(Cell::new(0));
    let counter = sent.clone();
    let upstream = Upstream::new(move |mut peer| {
        let counter = counter.clone();
        async move {
            peer.head().await.unwrap();
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MANY}\r\n\r\n"))
                .await;
            let piece = vec![b'x'; 65536];
            while counter.get() < MANY {
                peer.stream.write_all(&piece).await.unwrap();
                counter.set(counter.get() + piece.len());
            }
        }
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.head().await.unwrap();
    stalls(&sent).await;
    assert!(sent.get() < ALL_BUFFERS, "{} were taken", sent.get());

    let mut left = MANY - client.received.len();
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        left -= client.stream.read(&mut piece).await.unwrap();
    }
    assert_eq!(sent.get(), MANY);
}

#[actix_web::test]
async fn a_slow_node_stalls_the_client_and_not_the_gateways_memory() {
    let go_on = Rc::new(Cell::new(false));
    let signal = go_on.clone();
    let upstream = Upstream::new(move |mut peer| {
        let signal = signal.clone();
        async move {
            let head = peer.head().await.unwrap();
            assert_eq!(
                head.header("content-length"),
                Some(MANY.to_string().as_str())
            );
            until("the signal", async || signal.get()).await;
            let mut left = MANY - peer.received.len();
            let mut piece = vec![0; 1 << 20];
            while left > 0 {
                left -= peer.stream.read(&mut piece).await.unwrap();
            }
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nread")
                .await;
        }
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {MANY}\r\n\r\n"
        ))
        .await;
    let piece = vec![b'x'; 65536];
    let mut sent = 0;
    while let Ok(written) = timeout(STALL, client.stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < ALL_BUFFERS, "{sent} were taken");
    }
    go_on.set(true);
    while sent < MANY {
        let size = piece.len().min(MANY - sent);
        sent += client.stream.write(&piece[..size]).await.unwrap();
    }
    client.answer("POST").await.is_ok("read");
}

/// Waits until a count stands still.
async fn stalls(count: &Cell<usize>) {
    let mut last = usize::MAX;
    while std::mem::replace(&mut last, count.get()) != count.get() {
        tokio::time::sleep(STALL).await;
    }
}

#[actix_web::test]
async fn a_stream_arrives_piece_by_piece() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        for n in 0..5 {
            peer.send(format!("1\r\n{n}\r\n")).await;
            peer.bytes(1).await.unwrap(); // the client has it
        }
        peer.send("0\r\n\r\n").await;
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n")
        .await;
    client.head().await.unwrap();
    for n in 0..5 {
        assert_eq!(
            client.chunk().await.unwrap(),
            Some(n.to_string().into_bytes())
        );
        client.send("x").await;
    }
    assert_eq!(client.chunk().await.unwrap(), None);
}
