//! Upgrades to WebSocket ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455#section-4)): once the
//! node has agreed, bytes go both ways unread.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use discovery::InFlight;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use upstream::UpgradedStream;
use upstream::fields::connection_options;

use super::attempts::Answer;
use super::response::with_head;
use super::response_body::Idle;
use crate::client::Exchange;
use crate::error::{Reason, Refusal};

/// How much is read from the node at once.
const READ_BYTES: usize = 16 << 10;

/// How long a node has to be quiet before a gateway that leaves hangs up.
const QUIET: Duration = Duration::from_secs(1);

/// Whether a request names WebSocket as something it could go on with.
pub(super) fn is_mentioned(request: &HttpRequest) -> bool {
    let is_websocket = |value: &HeaderValue| {
        let name = value.as_bytes().trim_ascii();
        name.eq_ignore_ascii_case(b"websocket")
    };
    request.headers().get_all(UPGRADE).any(is_websocket)
}

/// Reports whether a request is an upgrade to WebSocket. Without `upgrade` in `Connection` it is not: the
/// sender of `Upgrade` has to list it there ([RFC 9110, section 7.8][1]), so the field came through a proxy
/// that does not pass upgrades on. Such a request is proxied as any other, without the field.
///
/// # Errors
/// If it is one in a way that another reader would take for an ordinary request. What follows
/// such a request on its connection would then be read differently by the two.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.8
pub(super) fn is_requested(request: &HttpRequest) -> Result<bool, Refusal> {
    let headers = request.headers();
    if !is_mentioned(request) || !lists_upgrade(headers) {
        return Ok(false);
    }
    let sound = request.head().upgrade()
        && *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && headers.get_all(UPGRADE).count() == 1
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING);
    if sound {
        Ok(true)
    } else {
        Err(Reason::BadRequest.because("not a sound upgrade to websocket"))
    }
}

/// Reports whether `Connection` contains `upgrade`.
fn lists_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).map(HeaderValue::as_bytes);
    let mut listed = lines.flat_map(connection_options);
    listed.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Responds with the node's `101`. Its body is the upgraded connection.
///
/// # Errors
/// If the node has not received the whole request.
pub(super) fn respond(
    answer: Answer,
    payload: Payload,
    exchange: Exchange,
    leaving: CancellationToken,
) -> Result<HttpResponse, Refusal> {
    let attempts = answer.attempts;
    let Some(upgraded) = answer.body.into_upgraded() else {
        let refusal = Reason::BadUpstream.because("no upgraded connection");
        return Err(Refusal {
            attempts,
            ..refusal
        });
    };
    let served_by = answer.endpoint.clone();
    let tunnel = Tunnel::new(upgraded, payload, answer.endpoint, exchange, leaving);
    let mut response = with_head(answer.head, &served_by, attempts, BoxBody::new(tunnel));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
        .head_mut()
        .set_connection_type(ConnectionType::Upgrade);
    Ok(response)
}

/// The upgraded connection, as the body of the answer to the upgrade: what the node sends is its
/// content, and polling it carries what the client sends.
struct Tunnel {
    node: OwnedReadHalf,
    buffer: BytesMut,
    upload: Option<LocalBoxFuture<'static, ()>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    quiet: Idle,
    _endpoint: InFlight,
    _permit: OwnedSemaphorePermit,
    exchange: Exchange,
}

impl Tunnel {
    fn new(
        upgraded: UpgradedStream,
        payload: Payload,
        endpoint: InFlight,
        exchange: Exchange,
        leaving: CancellationToken,
    ) -> Self {
        let (node, sink) = upgraded.stream.into_split();
        let upload = Some(carry(payload, sink).boxed_local());
        Self {
            node,
            buffer: upgraded.received,
            upload,
            leaving: Box::pin(leaving.cancelled_owned()),
            quiet: Idle::new(QUIET),
            _endpoint: endpoint,
            _permit: upgraded.permit,
            exchange,
        }
    }

    /// Whether this gateway leaves, and the node has been quiet for a while: nobody else would end it.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let client = &self.exchange.client;
        self.leaving.as_mut().poll(cx).is_ready() && self.quiet.poll_expired(None, client, cx)
    }
}

/// Carries what the client sends until it, or the node, has had enough.
async fn carry(mut payload: Payload, mut node: OwnedWriteHalf) {
    while let Some(Ok(bytes)) = payload.next().await {
        if node.write_all(&bytes).await.is_err() {
            return; // reading from the node will tell
        }
    }
    let _ = node.shutdown().await; // likewise
}

impl MessageBody for Tunnel {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        if this
            .upload
            .as_mut()
            .is_some_and(|upload| upload.poll_unpin(cx).is_ready())
        {
            this.upload = None;
        }
        if !this.buffer.is_empty() {
            // It came right behind the head.
            return Poll::Ready(Some(Ok(this.buffer.split().freeze())));
        }
        this.buffer.reserve(READ_BYTES);
        match poll_read_buf(Pin::new(&mut this.node), cx, &mut this.buffer) {
            Poll::Ready(Ok(0)) => Poll::Ready(None),
            Poll::Ready(Ok(_)) => {
                this.quiet.reset();
                Poll::Ready(Some(Ok(this.buffer.split().freeze())))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending if this.is_over(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
