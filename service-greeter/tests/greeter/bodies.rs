use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use awc::Client;
use awc::ws::{CloseCode, Frame, Message};
use futures_util::{SinkExt, StreamExt};
use testing::http::Wire;
use testing::within_limit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::started::Started;

#[actix_web::test]
async fn a_slow_answer_takes_the_time_it_was_asked_to() {
    let greeter = Started::new(&[]);
    let started = Instant::now();
    let mut response = Client::new()
        .get(greeter.url("/slow?ms=120"))
        .send()
        .await
        .unwrap();
    assert!(started.elapsed() >= Duration::from_millis(120));
    assert_eq!(response.body().await.unwrap(), r#"{"waited_ms":120}"#);
}

#[actix_web::test]
async fn bytes_are_as_many_as_announced_and_each_is_known() {
    let greeter = Started::new(&[]);
    for length in [0, 1, 26, 65_520, 65_521, 3_000_000] {
        let request = Client::new().get(greeter.url(&format!("/bytes/{length}")));
        let mut response = request.send().await.unwrap();
        assert_eq!(
            response.headers().get("content-length").unwrap(),
            &length.to_string()
        );
        let bytes = response.body().limit(4_000_000).await.unwrap();
        assert_eq!(bytes.len(), length);
        let known = bytes.iter().zip((b'a'..=b'z').cycle());
        assert!(known.into_iter().all(|(byte, expected)| *byte == expected));
    }
}

#[actix_web::test]
async fn a_stream_sends_each_chunk_when_it_is_due() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    wire.send("GET /stream?n=2&ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let head = wire.read_to("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    // The second one is due in ten minutes.
    assert_eq!(wire.read_to("2\n\r\n").await, "D\r\nchunk 1 of 2\n\r\n");

    let mut response = Client::new()
        .get(greeter.url("/stream?n=3&ms=1"))
        .send()
        .await
        .unwrap();
    let text = response.body().await.unwrap();
    assert_eq!(text, "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n");
}

#[actix_web::test]
async fn an_echo_comes_back_while_the_body_is_still_being_sent() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    wire.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: a/b\r\ncontent-length: 10\r\n\r\n")
        .await;
    wire.send("hello").await;
    assert!(wire.read_to("\r\n\r\n").await.contains("content-type: a/b"));
    assert_eq!(wire.read_to("hello\r\n").await, "5\r\nhello\r\n");
    wire.send("world").await;
    assert_eq!(wire.read_to_close().await, "5\r\nworld\r\n0\r\n\r\n");
}

#[actix_web::test]
async fn an_echo_of_any_size_is_never_held_as_a_whole() {
    const SIZE: usize = 64 << 20;
    let greeter = Started::new(&[]);
    let (mut reader, mut writer) = Wire::connect(greeter.address).await.stream.into_split();
    let sending = async {
        let head = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {SIZE}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..SIZE / 65_536 {
            writer.write_all(&[b'x'; 65_536]).await.unwrap();
        }
    };
    let receiving = async {
        let (mut received, mut part) = (0, vec![0; 65_536]);
        loop {
            match reader.read(&mut part).await.unwrap() {
                0 => return received,
                n => received += part[..n].iter().filter(|byte| **byte == b'x').count(),
            }
        }
    };
    // Neither side waits for the other: an echo that did would fill both directions and stand still.
    let both = within_limit(
        "the whole echo",
        futures_util::future::join(sending, receiving),
    );
    assert_eq!(both.await.1, SIZE);
}

#[actix_web::test]
async fn a_short_echo_keeps_the_connection() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    for _ in 0..2 {
        wire.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
            .await;
        let answer = wire.read_to("0\r\n\r\n").await;
        assert!(!answer.contains("connection: close"), "{answer}");
        assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{answer}");
    }
}

#[actix_web::test]
async fn a_websocket_echoes_until_the_instance_says_goodbye() {
    let greeter = Started::new(&["--drain", "10m"]);
    let (response, mut socket) = Client::new()
        .ws(greeter.url("/ws"))
        .connect()
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for (message, echo) in [
        (Message::Text("hello".into()), Frame::Text("hello".into())),
        (
            Message::Binary(Bytes::from_static(&[0, 255])),
            Frame::Binary(Bytes::from_static(&[0, 255])),
        ),
        (Message::Ping("p".into()), Frame::Pong("p".into())),
    ] {
        socket.send(message).await.unwrap();
        assert_eq!(
            within_limit("an echo", socket.next())
                .await
                .unwrap()
                .unwrap(),
            echo
        );
    }
    let leaving = greeter.stop();
    let goodbye = within_limit("a goodbye", socket.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(goodbye, Frame::Close(Some(CloseCode::Away.into())));
    leaving.abort();
}

#[actix_web::test]
async fn a_goodbye_is_answered_and_then_the_connection_ends() {
    let greeter = Started::new(&[]);
    let url = greeter.url("/ws");
    let (_, mut socket) = Client::new().ws(url).connect().await.unwrap();
    let goodbye = Some(CloseCode::Normal.into());
    socket.send(Message::Close(goodbye.clone())).await.unwrap();
    let answer = within_limit("a goodbye", socket.next()).await;
    assert_eq!(answer.unwrap().unwrap(), Frame::Close(goodbye));
    let end = within_limit("the end of the connection", socket.next()).await;
    assert!(end.is_none_or(|end| end.is_err()));
}
