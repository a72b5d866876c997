//! Upgrades to WebSocket ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455#section-4)): after the node's
//! `101`, bytes are forwarded in both directions without being parsed.

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

use super::attempts::UpstreamResponse;
use super::response::with_head;
use super::response_body::IdleTimeout;
use crate::client::Exchange;
use crate::error::{Reason, Refusal};

/// The number of bytes that room is made for before a read from the node.
const READ_BYTES: usize = 16 << 10;

/// The time without data from the node after which a gateway that is shutting down closes the connection.
const SHUTDOWN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns whether `Upgrade` contains WebSocket.
pub(super) fn is_mentioned(request: &HttpRequest) -> bool {
    let is_websocket = |value: &HeaderValue| {
        let name = value.as_bytes().trim_ascii();
        name.eq_ignore_ascii_case(b"websocket")
    };
    request.headers().get_all(UPGRADE).any(is_websocket)
}

/// Returns whether a request is an upgrade to WebSocket. Without `upgrade` in `Connection` it is not: the
/// sender of `Upgrade` has to list it there ([RFC 9110, section 7.8][1]), so the field passed a proxy that
/// does not forward upgrades. Such a request is forwarded as any other, without the field.
///
/// # Errors
/// If another parser could take the upgrade for an ordinary request. The two would then disagree on the bytes
/// that follow it on its connection.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.8
pub(super) fn is_requested(request: &HttpRequest) -> Result<bool, Refusal> {
    let headers = request.headers();
    if !is_mentioned(request) || !lists_upgrade(headers) {
        return Ok(false);
    }
    let is_valid = request.head().upgrade()
        && *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && headers.get_all(UPGRADE).count() == 1
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING);
    if is_valid {
        Ok(true)
    } else {
        Err(Reason::BadRequest.because("invalid upgrade to websocket"))
    }
}

/// Returns whether `Connection` contains `upgrade`.
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
    response: UpstreamResponse,
    payload: Payload,
    exchange: Exchange,
    leaving: CancellationToken,
) -> Result<HttpResponse, Refusal> {
    let attempts = response.attempts;
    let Some(connection) = response.body.into_upgraded() else {
        let refusal = Reason::BadUpstream.because("no upgraded connection");
        return Err(Refusal {
            attempts,
            ..refusal
        });
    };
    let served_by = response.endpoint.clone();
    let tunnel = Tunnel::new(connection, payload, response.endpoint, exchange, leaving);
    let mut upgraded = with_head(response.head, &served_by, attempts, BoxBody::new(tunnel));
    upgraded
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    upgraded
        .head_mut()
        .set_connection_type(ConnectionType::Upgrade);
    Ok(upgraded)
}

/// The upgraded connection as the body of the `101`: its content is what the node sends, and polling it also
/// forwards what the client sends.
struct Tunnel {
    node: OwnedReadHalf,
    buffer: BytesMut,
    forwarding: Option<LocalBoxFuture<'static, ()>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    idle: IdleTimeout,
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
        let forwarding = Some(forward(payload, sink).boxed_local());
        Self {
            node,
            buffer: upgraded.received,
            forwarding,
            leaving: Box::pin(leaving.cancelled_owned()),
            idle: IdleTimeout::new(SHUTDOWN_IDLE_TIMEOUT),
            _endpoint: endpoint,
            _permit: upgraded.permit,
            exchange,
        }
    }

    /// Returns whether the gateway is shutting down and the node has been idle: neither end would close the
    /// connection.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let client = &self.exchange.client;
        self.leaving.as_mut().poll(cx).is_ready() && self.idle.poll_expired(None, client, cx)
    }
}

/// Forwards what the client sends until one of them closes its side.
async fn forward(mut payload: Payload, mut node: OwnedWriteHalf) {
    while let Some(Ok(bytes)) = payload.next().await {
        if node.write_all(&bytes).await.is_err() {
            return; // reading from the node returns the error
        }
    }
    let _ = node.shutdown().await; // the same
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
            .forwarding
            .as_mut()
            .is_some_and(|forwarding| forwarding.poll_unpin(cx).is_ready())
        {
            this.forwarding = None;
        }
        if !this.buffer.is_empty() {
            // It was received with the head.
            return Poll::Ready(Some(Ok(this.buffer.split().freeze())));
        }
        this.buffer.reserve(READ_BYTES);
        match poll_read_buf(Pin::new(&mut this.node), cx, &mut this.buffer) {
            Poll::Ready(Ok(0)) => Poll::Ready(None),
            Poll::Ready(Ok(_)) => {
                this.idle.reset();
                Poll::Ready(Some(Ok(this.buffer.split().freeze())))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending if this.is_over(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
