//! Why awc does not speak to the nodes that requests are proxied to: two things that awc 3.11 does with what
//! a node may send. Whoever wants to go back to awc finds these tests failing when that becomes safe.

use std::time::Duration;

use awc::Client;
use awc::error::PayloadError;
use tokio::time::timeout;

use crate::support::{Gateway, Upstream, within_limit};

/// Answers each path with itself, after an interim answer and a moment: until the next request
/// comes, if that is sooner.
async fn hinting() -> Upstream {
    Upstream::new(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let path = request.start.split(' ').nth(1).unwrap();
            let length = path.len();
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")
                .await;
            let _ = timeout(Duration::from_millis(300), peer.stream.readable()).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
            if peer.try_send(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn awc_gives_one_user_the_answer_to_another() {
    let upstream = hinting().await;
    let client = Client::new();
    let mut got = Vec::new();
    for user in ["ada", "eve"] {
        let url = format!("http://{}/{user}", upstream.address);
        let mut answer = within_limit("an answer", client.get(url).send())
            .await
            .unwrap();
        let body = answer.body().await.unwrap();
        got.push((
            answer.status().as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
        ));
    }
    assert_eq!(
        got[0],
        (103, String::new()),
        "the interim answer is taken for the answer"
    );
    assert_eq!(
        got[1],
        (200, "/ada".to_owned()),
        "and the answer for that to the next request"
    );

    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for user in ["/ada", "/eve"] {
        client.get(user).await.is_ok(user);
    }
}

#[actix_web::test]
async fn awc_takes_a_broken_body_for_a_whole_one() {
    let upstream = Upstream::closing_after(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n64\r\npart",
    )
    .await;
    let url = format!("http://{}/", upstream.address);
    let client = Client::builder().timeout(Duration::from_secs(10)).finish();
    let mut answer = within_limit("an answer", client.get(url).send())
        .await
        .unwrap();
    let body: Result<_, PayloadError> = within_limit("its body", answer.body()).await;
    assert_eq!(
        body.unwrap(),
        "hellopart",
        "no error tells that most of it is missing"
    );

    let gateway = Gateway::of(&[&upstream]).await;
    assert!(!gateway.get("/").await.whole);
}
