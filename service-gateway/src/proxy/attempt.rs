//! One attempt at one node.

use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::upload::RequestBody;
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
}

impl Failure {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected(_) => Reason::ConnectFailed,
            Self::NoAnswer(_) => Reason::BadUpstream,
        }
    }

    /// What happened, with its causes.
    pub(super) fn detail(&self) -> String {
        let (Self::NotConnected(error) | Self::NoAnswer(error)) = self;
        let mut causes = error.to_string();
        let mut error: &dyn std::error::Error = error;
        while let Some(source) = error.source() {
            causes = format!("{causes}: {source}");
            error = source;
        }
        causes
    }
}

/// Sends a request, and waits for the head of the answer.
pub(super) async fn send(
    upstreams: &Upstreams,
    request: http::Request<RequestBody>,
) -> Result<http::Response<Incoming>, Failure> {
    let answer = upstreams.request(request).await;
    answer.map_err(|error| match error.is_connect() {
        true => Failure::NotConnected(error),
        false => Failure::NoAnswer(error),
    })
}
