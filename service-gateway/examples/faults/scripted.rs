//! Clients and nodes that do what a fault says, byte by byte: those of the gateway's tests.

#![allow(dead_code, reason = "the tests use more of it")]
#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

#[path = "../../tests/gateway/support/answers.rs"]
pub(crate) mod answers;
#[path = "../../tests/gateway/support/echo.rs"]
mod echo;
#[path = "../../tests/gateway/support/limit.rs"]
mod limit;
#[path = "../../tests/gateway/support/message.rs"]
mod message;
#[path = "../../tests/gateway/support/mixed.rs"]
pub(crate) mod mixed;
#[path = "../../tests/gateway/support/requests.rs"]
pub(crate) mod requests;
#[path = "../../tests/gateway/support/upstream.rs"]
mod upstream;
#[path = "../../tests/gateway/support/wire.rs"]
mod wire;

pub(crate) use echo::is_echoed;
pub(crate) use limit::{until, within_limit};
pub(crate) use message::Message;
pub(crate) use upstream::Upstream;
pub(crate) use wire::Wire;

/// A node that gives the answer that the path says, `/0` the first one, and closes the connection.
pub(crate) async fn answering_by_number(answers: Vec<String>) -> Upstream {
    let answers = std::rc::Rc::new(answers);
    Upstream::new(move |mut peer| {
        let answers = answers.clone();
        async move {
            let request = peer.request().await.unwrap();
            let number = request.start.split(['/', ' ']).nth(2).unwrap();
            let number: usize = number.parse().unwrap();
            let _ = peer.try_send(&answers[number]).await; // the gateway may have seen enough
        }
    })
    .await
}
