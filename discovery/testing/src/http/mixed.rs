//! Requests and responses of every kind, mixed.

use super::{Message, Upstream, Wire};

/// The kinds of responses, one path each.
const KINDS: [&str; 12] = [
    "sized",
    "chunked",
    "closing",
    "hints",
    "head",
    "nothing",
    "unmodified",
    "error",
    "early",
    "both",
    "lengths",
    "garbage",
];

/// The kinds that are invalid.
const BROKEN: [&str; 3] = ["both", "lengths", "garbage"];

/// Starts a node whose responses have the request's id and the kind in its path: `/sized/ID`.
pub async fn node() -> Upstream {
    Upstream::new(|mut peer| async move {
        // Not recorded: there are many.
        while let Some(request) = Wire::request(&mut peer).await {
            let (pieces, closes) = answer(&request);
            for piece in pieces {
                if peer.try_send(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if closes {
                return;
            }
        }
    })
    .await
}

/// Returns the parts of a response to write, and true if the connection ends then.
fn answer(request: &Message) -> (Vec<String>, bool) {
    let target = request.start.split(' ').nth(1).unwrap();
    let mut path = target.rsplit('/');
    let (id, kind) = (path.next().unwrap(), path.next().unwrap());
    let body = format!("{id} {}", request.text());
    let length = body.len();
    let ok = format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\n");
    let sized = format!("{ok}content-length: {length}\r\n\r\n{body}");
    let in_chunks = format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    let answer = match kind {
        "sized" => sized,
        "chunked" => format!("{ok}{in_chunks}"),
        "closing" => format!("{ok}\r\n{body}"),
        "hints" => {
            let hints = format!("HTTP/1.1 103 Early Hints\r\nx-id: {id}\r\n\r\n");
            let goes_on = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
            return (vec![hints, goes_on, sized], false);
        }
        "head" => format!("{ok}content-length: 100\r\n\r\n"),
        "nothing" => format!("HTTP/1.1 204 No Content\r\nx-id: {id}\r\ncontent-length: 7\r\n\r\n"),
        "unmodified" => {
            format!("HTTP/1.1 304 Not Modified\r\nx-id: {id}\r\ncontent-length: 100\r\n\r\n")
        }
        "error" => format!(
            "HTTP/1.1 400 Bad Request\r\nx-id: {id}\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
        "early" => format!("{sized}and more than that"),
        "both" => format!("{ok}content-length: {length}\r\n{in_chunks}"),
        "lengths" => format!("{ok}content-length: 1\r\ncontent-length: {length}\r\n\r\n{body}"),
        "garbage" => format!("{id} {body}"),
        _ => unreachable!("{kind}"),
    };
    let closes = ["closing", "early"].contains(&kind) || BROKEN.contains(&kind);
    (vec![answer], closes)
}

/// Sends one request with a unique id to such nodes. Its number selects its kind; `prefix` is a path
/// before theirs. Returns false for a 502 that is allowed: a reused connection ended during a request
/// that may not be repeated.
///
/// # Errors
/// If the response is another one.
pub async fn ask(client: &mut Wire, prefix: &str, number: usize, id: &str) -> Result<bool, String> {
    let kind = KINDS[number % KINDS.len()];
    let method = method(kind, number);
    let body = match method {
        "GET" | "HEAD" => String::new(),
        _ => "x".repeat(number * 37 % 3000),
    };
    let in_chunks = number.is_multiple_of(5) && !body.is_empty();
    let target = format!("{prefix}/{kind}/{id}");
    send(client, method, &target, &body, in_chunks).await;
    let answer = client.answer(method).await;
    let may_fail = method == "POST" || in_chunks;
    match answer.status() {
        502 if BROKEN.contains(&kind) => Ok(true),
        502 if may_fail && answer.json()["reason"] == "bad_upstream" => Ok(false),
        _ if is_right(&answer, kind, id, &body) => Ok(true),
        _ => Err(format!("{kind} {method} {id}: {answer:?}")),
    }
}

fn is_right(answer: &Message, kind: &str, id: &str, body: &str) -> bool {
    let has_no_body = ["head", "nothing", "unmodified"].contains(&kind);
    answer.whole
        && !BROKEN.contains(&kind)
        && answer.header("x-id") == Some(id)
        && (has_no_body || answer.text() == format!("{id} {body}"))
}

fn method(kind: &str, number: usize) -> &'static str {
    match kind {
        "head" => "HEAD",
        _ if BROKEN.contains(&kind) => "POST", // goes to one node only
        "closing" | "early" => "GET",          // may be repeated when a kept connection ends
        _ => ["GET", "PUT", "POST", "DELETE"][number / KINDS.len() % 4],
    }
}

async fn send(client: &mut Wire, method: &str, target: &str, body: &str, in_chunks: bool) {
    let length = body.len();
    if in_chunks {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        let framing = "transfer-encoding: chunked\r\n\r\n";
        client
            .send(format!("{head}{framing}{length:x}\r\n{body}\r\n0\r\n\r\n"))
            .await;
    } else {
        client.send_with_body(method, target, body).await;
    }
}
