//! One attempt at one node.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::connection::AnswerBody;
use super::pool::Pool;
use super::upload::RequestBody;
use crate::error::Reason;

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection was made, so nothing was sent.
    NotConnected(io::Error),
    /// The request was sent, or part of it, and no answer came.
    NoAnswer(hyper::Error),
    /// The same over a connection that was kept from an earlier request. Its node may have closed it
    /// just when this one was sent: that is nobody's fault, and says nothing about the node.
    Stale(hyper::Error),
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
        match self {
            Self::NotConnected(error) => format!("no connection: {error}"),
            Self::NoAnswer(error) | Self::Stale(error) => with_causes(error),
            Self::Unclear(detail) => (*detail).to_owned(),
        }
    }
}

fn with_causes(mut error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    while let Some(source) = error.source() {
        causes = format!("{causes}: {source}");
        error = source;
    }
    causes
}

/// Sends a request, over a new connection if wanted, and waits for the head of the answer.
///
/// A kept connection that ends before anything was sent costs nothing: the request takes the next.
pub(super) async fn send(
    pool: &Rc<Pool>,
    node: SocketAddr,
    mut request: Request<RequestBody>,
    over_new: bool,
) -> Result<Response<AnswerBody>, Failure> {
    let may_switch = request.headers().contains_key(UPGRADE);
    loop {
        let kept = if over_new { None } else { pool.take(node) };
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => pool.connect(node).await.map_err(Failure::NotConnected)?,
        };
        let mut error = match connection.exchange(request).await {
            Ok(answer) => {
                return match unclear(&answer, may_switch) {
                    Some(what) => Err(Failure::Unclear(what)), // and its connection ends with it
                    None => Ok(
                        answer.map(|body| AnswerBody::new(body, connection, node, pool.clone()))
                    ),
                };
            }
            Err(error) => error,
        };
        request = match error.take_message() {
            Some(unsent) if is_kept => unsent,
            _ if is_kept => return Err(Failure::Stale(error.into_error())),
            _ => return Err(Failure::NoAnswer(error.into_error())),
        };
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
