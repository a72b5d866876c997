//! One attempt at one node, and whether another node may be tried after it.

use std::time::Duration;

use actix_web::http::Method;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::upload::{ClientBody, RequestBody};
use crate::error::Reason;

/// A worker's connections to all nodes.
pub(super) type Upstreams = Client<HttpConnector, RequestBody>;

/// Idle connections to a node are given up after this, before the node does it (the greeter after
/// 75 s): a request must not meet a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// The most idle connections that a worker keeps to one node.
const POOL_SIZE: usize = 64;

/// The most of a node's answer that is read ahead of a slow client.
const READ_AHEAD: usize = 64 << 10;

pub(super) fn upstreams(connect_timeout: Duration) -> Upstreams {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .http1_max_buf_size(READ_AHEAD)
        .build(connector)
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection was made, so nothing was sent.
    NotConnected(Error),
    /// The request was sent, or part of it, and no answer came.
    NoAnswer(Error),
    /// The time for the whole request is over.
    Late,
}

impl Failure {
    /// Whether another node may have the request: always if nothing was sent, else if sending it
    /// twice does no harm ([RFC 9110, section 9.2.2][1]) and its body is still there.
    ///
    /// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
    pub(super) fn permits_another(&self, method: &Method, body_is_held: bool) -> bool {
        match self {
            Self::NotConnected(_) => true,
            Self::NoAnswer(_) => is_idempotent(method) && body_is_held,
            Self::Late => false,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected(_) => Reason::ConnectFailed,
            Self::NoAnswer(_) => Reason::BadUpstream,
            Self::Late => Reason::Timeout,
        }
    }

    /// What happened, with its causes.
    pub(super) fn detail(&self) -> String {
        let (Self::NotConnected(error) | Self::NoAnswer(error)) = self else {
            return "no answer in time".into();
        };
        let mut causes = error.to_string();
        let mut error: &dyn std::error::Error = error;
        while let Some(source) = error.source() {
            causes = format!("{causes}: {source}");
            error = source;
        }
        causes
    }
}

pub(super) fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ]
    .contains(method)
}

/// Sends a request and waits for the head of the answer, carrying on the client's body meanwhile.
pub(super) async fn send(
    upstreams: &Upstreams,
    request: http::Request<RequestBody>,
    body: &mut ClientBody,
    deadline: Instant,
) -> Result<http::Response<Incoming>, Failure> {
    let mut answer = upstreams.request(request);
    let answer = std::future::poll_fn(|cx| {
        body.poll(cx);
        answer.poll_unpin(cx)
    });
    match timeout_at(deadline, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) if error.is_connect() => Err(Failure::NotConnected(error)),
        Ok(Err(error)) => Err(Failure::NoAnswer(error)),
        Err(_) => Err(Failure::Late),
    }
}
