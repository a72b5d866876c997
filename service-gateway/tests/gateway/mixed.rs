//! Many requests of all kinds at once: nobody gets somebody else's answer.

use std::rc::Rc;

use crate::support::{Gateway, Message, Upstream, Wire};

const CONNECTIONS: usize = 8;
const REQUESTS: usize = 1250;

/// Answers with the request's id in the way that its path asks for.
fn answer(request: &Message) -> (String, bool) {
    let mut path = request.start.split(' ').nth(1).unwrap().split('/');
    let (kind, id) = (path.nth(1).unwrap(), path.next().unwrap());
    let body = format!("{id} {}", request.text());
    let length = body.len();
    let ok = format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\n");
    let answer = match kind {
        "sized" => format!("{ok}content-length: {length}\r\n\r\n{body}"),
        "chunked" => {
            format!("{ok}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
        }
        "closing" => format!("{ok}\r\n{body}"),
        "hints" => format!(
            "HTTP/1.1 103 Early Hints\r\nx-id: {id}\r\n\r\n{ok}content-length: {length}\r\n\r\n{body}"
        ),
        "head" => format!("{ok}content-length: 100\r\n\r\n"),
        "nothing" => format!("HTTP/1.1 204 No Content\r\nx-id: {id}\r\n\r\n"),
        "unmodified" => {
            format!("HTTP/1.1 304 Not Modified\r\nx-id: {id}\r\ncontent-length: 100\r\n\r\n")
        }
        "error" => format!(
            "HTTP/1.1 400 Bad Request\r\nx-id: {id}\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
        "early" => format!("{ok}content-length: {length}\r\n\r\n{body}and more than that"),
        _ => unreachable!("{kind}"),
    };
    (answer, ["closing", "early"].contains(&kind))
}

async fn node() -> Upstream {
    Upstream::new(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let (answer, closes) = answer(&request);
            if peer.try_send(answer).await.is_err() || closes {
                return;
            }
        }
    })
    .await
}

const KINDS: [&str; 9] = [
    "sized",
    "chunked",
    "closing",
    "hints",
    "head",
    "nothing",
    "unmodified",
    "error",
    "early",
];

/// One request with an id of its own, and the check that its answer is that one's.
async fn ask(client: &mut Wire, number: usize, id: &str) {
    let kind = KINDS[number % KINDS.len()];
    let body = "x".repeat(number * 37 % 3000);
    let target = format!("/{kind}/{id}");
    let method = match (kind, number % 4) {
        ("head", _) => "HEAD",
        ("closing" | "early", _) | (_, 0) => "GET", // may be repeated when a kept connection ends
        (_, 1) => "PUT",
        (_, 2) => "POST",
        _ => "DELETE",
    };
    let body = if ["GET", "HEAD"].contains(&method) {
        ""
    } else {
        body.as_str()
    };
    if number.is_multiple_of(3) && !body.is_empty() {
        let length = body.len();
        client
            .send(format!(
                "{method} {target} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ))
            .await;
    } else {
        client.send_with_body(method, &target, body).await;
    }
    let answer = client.answer(method).await;
    assert_eq!(
        answer.header("x-id"),
        Some(id),
        "{kind} {method}: {answer:?}"
    );
    assert!(answer.whole, "{kind}: {answer:?}");
    if !["head", "nothing", "unmodified"].contains(&kind) {
        assert_eq!(answer.text(), format!("{id} {body}"), "{kind}");
    }
}

#[actix_web::test]
async fn of_ten_thousand_mixed_requests_none_gets_anothers_answer() {
    let nodes = [node().await, node().await, node().await];
    let gateway = Rc::new(Gateway::with("--workers 2", &nodes.each_ref()).await);
    let clients = (0..CONNECTIONS).map(|client| {
        let gateway = gateway.clone();
        actix_web::rt::spawn(async move {
            let mut wire = gateway.connect().await;
            for number in 0..REQUESTS {
                ask(
                    &mut wire,
                    number * 7 + client,
                    &format!("{client}-{number}"),
                )
                .await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let asked: usize = nodes.iter().map(Upstream::count).sum();
    assert!(asked >= CONNECTIONS * REQUESTS, "{asked}");
}
