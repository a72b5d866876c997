//! One attempt at one node.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connection::{Connector, Kept};
use super::upload::RequestBody;
use crate::error::Reason;

/// A worker's connections to all nodes.
pub(super) struct Upstreams {
    /// Kept for the next request.
    kept: Client<Connector, RequestBody>,
    /// Made for one request.
    new: Client<Connector, RequestBody>,
}

/// Idle connections to a node are given up after this, before the node does it (the greeter after
/// 75 s): a request must not meet a connection that is just being closed. hyper looks as often, so
/// some are kept for twice as long. With thousands of nodes, keeping them longer costs memory, and
/// hardly any is used again.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// The most idle connections that a worker keeps to one node.
const POOL_SIZE: usize = 64;

/// The most of a node's answer that is read ahead of a slow client.
const READ_AHEAD: usize = 64 << 10;

pub(super) fn upstreams(connect_timeout: Duration) -> Upstreams {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    let client = |pool_size| {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(pool_size)
            .http1_max_buf_size(READ_AHEAD)
            .build(Connector(connector.clone()))
    };
    Upstreams {
        kept: client(POOL_SIZE),
        new: client(0),
    }
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection was made, so nothing was sent.
    NotConnected(Error),
    /// The request was sent, or part of it, and no answer came.
    NoAnswer(Error),
    /// The same over a connection that was kept from an earlier request.
    Stale(Error),
    /// An answer came that others could read in another way.
    Unclear(&'static str),
}

impl Failure {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected(_) => Reason::ConnectFailed,
            Self::NoAnswer(_) | Self::Stale(_) | Self::Unclear(_) => Reason::BadUpstream,
        }
    }

    /// What happened, with its causes.
    pub(super) fn detail(&self) -> String {
        let error = match self {
            Self::NotConnected(error) | Self::NoAnswer(error) | Self::Stale(error) => error,
            Self::Unclear(detail) => return (*detail).to_owned(),
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

/// Sends a request, over a new connection if wanted, and waits for the head of the answer.
pub(super) async fn send(
    upstreams: &Upstreams,
    request: http::Request<RequestBody>,
    over_new: bool,
) -> Result<Response<Incoming>, Failure> {
    let may_switch = request.headers().contains_key(UPGRADE);
    let client = if over_new {
        &upstreams.new
    } else {
        &upstreams.kept
    };
    let answer = client.request(request).await.map_err(Failure::from)?;
    Kept::mark(&answer);
    match unclear(&answer, may_switch) {
        Some(what) => {
            Kept::give_up(&answer);
            Err(Failure::Unclear(what))
        }
        None => Ok(answer),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.connect_info() {
            _ if error.is_connect() => Self::NotConnected(error),
            Some(connection) if Kept::was(connection) => Self::Stale(error),
            _ => Self::NoAnswer(error),
        }
    }
}

/// What hyper takes and a proxy must not: where the body ends would be known here, and not to
/// whoever reads the head alone ([RFC 9112, section 6.3][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
fn unclear(answer: &Response<Incoming>, may_switch: bool) -> Option<&'static str> {
    let headers = answer.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|coding| coding.as_bytes().trim_ascii());
    let chunked = coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Some("the answer has a transfer coding that nobody asked for");
    }
    if coding.is_some() && headers.contains_key(CONTENT_LENGTH) {
        return Some("the answer has a length and chunks");
    }
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    (switches && !may_switch).then_some("the answer switches protocols, and nobody asked for that")
}
