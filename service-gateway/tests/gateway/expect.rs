//! `Expect: 100-continue` ([RFC 9110, section 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)).

use crate::support::{Gateway, Upstream};

fn head(target: &str, length: u64, fields: &str) -> String {
    format!(
        "PUT {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\
         expect: 100-continue\r\n{fields}\r\n"
    )
}

/// The first response is the final one, and closes: the body may follow or not.
#[actix_web::test]
async fn a_refused_head_gets_no_100() {
    let upstream = Upstream::saying("hi").await;
    let flags = "--route /a=test --route /b=empty --max-body 1000";
    let gateway = Gateway::with(flags, &[&upstream]).await;
    for (head, status, reason) in [
        (head("/a", 1001, ""), 413, "too_large"),
        (head("/c", 4, ""), 404, "no_route"),
        (head("/a/..", 4, ""), 400, "bad_request"),
        (head("/b", 4, ""), 503, "no_instance"),
        (
            head("/a", 4, "x-service-tags: version=v9\r\n"),
            503,
            "no_instance",
        ),
    ] {
        for with_body in [true, false] {
            let mut client = gateway.connect().await;
            client.send(&head).await;
            let hidden = "GET /a HTTP/1.1\r\nhost: test\r\n\r\n";
            if with_body {
                let _ = client.try_send(hidden.repeat(3)).await;
            }
            let answer = client.answer("PUT").await;
            answer.is_refused(status, reason, 0);
            assert!(answer.closes(), "{answer:?}");
            client.ends().await;
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[actix_web::test]
async fn a_body_that_is_read_gets_one_100() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    for method in ["PUT", "POST", "PUT"] {
        let head = head("/", 4, "").replace("PUT", method);
        client.send(&head).await;
        assert_eq!(client.answer(method).await.status(), 100);
        client.send("body").await;
        let answer = client.answer(method).await;
        answer.is_ok("hi");
        assert!(!answer.closes());
    }
    assert_eq!(upstream.count(), 3);
}

#[actix_web::test]
async fn no_100_without_a_body_or_in_http_1_0() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.send(head("/", 0, "")).await;
    client.answer("PUT").await.is_ok("hi");
    let old = head("/", 4, "").replace("HTTP/1.1", "HTTP/1.0");
    client.send(old + "body").await;
    client.answer("PUT").await.is_ok("hi");
}
