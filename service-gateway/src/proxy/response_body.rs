use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use discovery::InFlight;
use tokio::time::Instant;
use upstream::ResponseBody;

use super::request_body::ClientBody;
use crate::client::{Client, Exchange};

/// The body of a response to a client. It also sends what is left of the request's body, and counts as a
/// request in flight until it is dropped.
pub(super) struct ResponseStream {
    pub(super) body: ResponseBody,
    pub(super) size: BodySize,
    pub(super) request_body: ClientBody,
    pub(super) idle: IdleTimeout,
    pub(super) endpoint: InFlight,
    pub(super) exchange: Exchange,
}

/// The reason for which a body ends early.
pub(super) type BodyError = Box<dyn std::error::Error>;

/// A timeout for bodies without progress. It has no cost while there is progress.
pub(super) struct IdleTimeout {
    limit: Duration,
    pending_since: Option<Instant>,
}

impl MessageBody for ResponseStream {
    type Error = BodyError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        match this.body.poll_chunk(cx) {
            Poll::Ready(Ok(Some(chunk))) => {
                this.idle.reset();
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(match this.request_body.refusal() {
                Some(refusal) => this.log_error(refusal.detail.into()),
                None => this.log_error(error.into()),
            }))),
            Poll::Pending if this.is_idle(cx) => {
                Poll::Ready(Some(Err(this.log_error("no data in time".into()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl ResponseStream {
    /// Returns whether neither body has had progress for too long.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let request = self.request_body.last_progress();
        self.idle.poll_expired(request, &self.exchange.client, cx)
    }

    /// Logs the reason for which the body ends early.
    fn log_error(&self, error: BodyError) -> BodyError {
        log::debug!(instance:% = self.endpoint.address, error:%; "response body ended early");
        error
    }
}

impl IdleTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        let pending_since = None;
        Self {
            limit,
            pending_since,
        }
    }

    pub(super) fn reset(&mut self) {
        self.pending_since = None;
    }

    /// Returns whether there has been no progress for too long: neither in this direction nor, since `other`,
    /// in the other one.
    pub(super) fn poll_expired(
        &mut self,
        other: Option<Instant>,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> bool {
        let since = *self.pending_since.get_or_insert_with(Instant::now);
        let progress = other.map_or(since, |other| other.max(since));
        client.poll_over(progress + self.limit, cx).is_ready()
    }
}
