//! Nodes that answer something else than HTTP, or not to the end.

use std::time::{Duration, Instant};

use crate::support::{Gateway, Message, Refusing, Upstream, answers};

/// What a client gets for an answer that is these bytes and the connection's end. With a POST, so
/// that there is one attempt.
async fn answered_with(answer: &str) -> Message {
    let upstream = Upstream::closing_after(answer).await;
    let gateway = Gateway::of(&[&upstream]).await;
    let answer = gateway.connect().await.post("/", "x").await;
    assert_eq!(upstream.count(), 1);
    answer
}

#[actix_web::test]
async fn what_is_no_answer_is_a_502() {
    for answer in answers::none() {
        let got = answered_with(&answer).await;
        assert_eq!(got.status(), 502, "{answer:.60?}");
        got.is_refused(502, "bad_upstream", 1);
    }
}

#[actix_web::test]
async fn a_502_says_what_happened_and_why() {
    let refusing = Refusing::new();
    let resetting = Upstream::new(|mut peer| async move {
        peer.request().await;
        peer.stream.set_zero_linger().unwrap();
    })
    .await;
    let silent = Upstream::closing_after("").await;
    let unclear = Upstream::closing_after(&*answers::unclear()[0]).await;
    for (node, expected) in [
        (refusing.address, "no connection: Connection refused"),
        (resetting.address, "no answer: Connection reset by peer"),
        (silent.address, "no answer: the connection ended"),
        (unclear.address, "the answer has a length and chunks"),
    ] {
        let gateway = Gateway::before("", &[(node, "")]).await;
        let problem = gateway.get("/").await.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{problem}");
    }
}

#[actix_web::test]
async fn framing_that_can_be_read_in_two_ways_is_a_502() {
    for answer in answers::unclear() {
        answered_with(&answer)
            .await
            .is_refused(502, "bad_upstream", 1);
    }
}

#[actix_web::test]
async fn a_connection_with_an_unclear_answer_is_not_used_again() {
    let node = Upstream::answering(&*answers::unclear()[0]).await;
    let gateway = Gateway::of(&[&node]).await;
    for requests in 1..=3 {
        let answer = gateway.connect().await.post("/", "x").await;
        answer.is_refused(502, "bad_upstream", 1);
        assert_eq!(node.connections(), requests);
    }
}

#[actix_web::test]
async fn one_length_told_twice_is_one_length() {
    for length in [
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2, 2",
    ] {
        let answer = answered_with(&format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\nhi")).await;
        answer.is_ok("hi");
    }
}

#[actix_web::test]
async fn a_later_minor_version_is_read_as_1_1() {
    let answer = "HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::of(&[&upstream]).await;
    for _ in 0..3 {
        gateway.get("/").await.is_ok("hi");
    }
    assert_eq!(upstream.connections(), 1, "the connection is reused");
}

#[actix_web::test]
async fn switching_protocols_unasked_is_a_502() {
    for headers in [
        "",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "content-length: 2\r\n",
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\nhi");
        answered_with(&answer)
            .await
            .is_refused(502, "bad_upstream", 1);
    }
}

#[actix_web::test]
async fn what_follows_an_answer_is_never_part_of_the_next() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
    )
    .await;
    let gateway = Gateway::with("--attempts 9", &[&upstream]).await;
    let mut client = gateway.connect().await;
    for _ in 0..50 {
        client.get("/").await.is_ok("hi");
    }
}

#[actix_web::test]
async fn a_body_where_none_may_be_is_never_part_of_the_next_answer() {
    for status in ["200 OK", "204 No Content", "304 Not Modified"] {
        let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
        let length = forged.len();
        let upstream = Upstream::new(move |mut peer| async move {
            while let Some(request) = peer.request().await {
                let answer = match request.start.starts_with("HEAD") {
                    true => {
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{forged}")
                    }
                    false => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nreal".to_owned(),
                };
                if peer.try_send(answer).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        for _ in 0..20 {
            client.ask("HEAD", "/", "").await;
            client.get("/").await.is_ok("real");
        }
    }
}

#[actix_web::test]
async fn a_body_that_breaks_off_never_ends_cleanly() {
    for part in answers::cut_off() {
        let upstream = Upstream::closing_after(part.clone()).await;
        let gateway = Gateway::of(&[&upstream]).await;
        let answer = gateway.get("/").await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.whole, "{part:?}: {answer:?}");
        assert!("par".as_bytes().starts_with(&answer.body), "{answer:?}");
        assert_eq!(
            upstream.count(),
            1,
            "an answer that has begun is not asked for again"
        );
    }
}

#[actix_web::test]
async fn a_node_that_never_answers_is_a_504() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.request().await;
        peer.ends().await;
    })
    .await;
    for request in ["GET", "POST"] {
        let gateway = Gateway::with("--timeout 300ms", &[&upstream, &upstream]).await;
        let mut client = gateway.connect().await;
        let began = Instant::now();
        client
            .ask(request, "/", "")
            .await
            .is_refused(504, "timeout", 1);
        assert!(began.elapsed() >= Duration::from_millis(300));
        upstream.has_open(0).await; // nobody waits for that answer any more
        assert_eq!(upstream.request().start, format!("{request} / HTTP/1.1"));
        upstream.forget();
    }
}

/// A node that sends interim responses without end, unless the request is for `/`.
async fn sending_interim_responses() -> Upstream {
    Upstream::new(|mut peer| async move {
        while let Some(request) = peer.request().await {
            if request.start == "GET / HTTP/1.1" {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
                continue;
            }
            let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n".repeat(100);
            while peer.try_send(&hints).await.is_ok() {}
        }
    })
    .await
}

#[actix_web::test]
async fn endless_interim_responses_are_a_502() {
    let upstream = sending_interim_responses().await;
    let gateway = Gateway::with("--timeout 2s", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client
        .post("/", "x")
        .await
        .is_refused(502, "bad_upstream", 1);
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn endless_interim_responses_hold_no_worker() {
    let upstream = sending_interim_responses().await;
    let gateway = Gateway::with("--workers 1 --timeout 2s", &[&upstream]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = gateway.connect().await;
        client.send_with_body("POST", "/", "x").await;
        clients.push(client);
    }
    upstream.is_asked().await;
    gateway.get("/").await.is_ok("hi");
    for mut client in clients {
        let response = client.answer("POST").await;
        response.is_refused(502, "bad_upstream", 1);
    }
}

#[actix_web::test]
async fn a_head_that_trickles_is_a_504() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.request().await;
        let mut sent = peer.try_send("HTTP/1.1 200 OK\r\n").await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent = peer.try_send("x: y\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::with("--timeout 300ms", &[&upstream]).await;
    gateway.get("/").await.is_refused(504, "timeout", 1);
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn a_body_that_pauses_for_too_long_is_cut_off() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
            .await;
        peer.ends().await;
    })
    .await;
    let gateway = Gateway::with("--idle-timeout 300ms", &[&upstream]).await;
    let mut client = gateway.connect().await;
    let began = Instant::now();
    let answer = client.get("/").await;
    assert!(!answer.whole);
    assert_eq!((answer.status(), answer.text()), (200, "part"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    upstream.has_open(0).await;
}

#[actix_web::test]
async fn a_body_that_takes_long_and_pauses_never_is_not_cut_off() {
    let upstream = Upstream::new(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            peer.send("1\r\nx\r\n").await;
        }
        peer.send("0\r\n\r\n").await;
    })
    .await;
    let gateway = Gateway::with("--idle-timeout 1s --timeout 1s", &[&upstream]).await;
    gateway.get("/").await.is_ok("xxxxxxxxxxxx");
}
