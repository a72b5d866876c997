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

/// A node's body on its way to the client. It carries on the request's body too, which may outlast
/// the answer's head, and counts as a request in flight until it is dropped.
pub(super) struct Download {
    pub(super) body: ResponseBody,
    pub(super) size: BodySize,
    pub(super) upload: ClientBody,
    pub(super) idle: Idle,
    pub(super) endpoint: InFlight,
    pub(super) exchange: Exchange,
}

/// Why a body ends before its end.
pub(super) type Broken = Box<dyn std::error::Error>;

/// Ends what has been waiting for too long. Costs nothing while there is nothing to wait for.
pub(super) struct Idle {
    limit: Duration,
    waits_since: Option<Instant>,
}

impl MessageBody for Download {
    type Error = Broken;

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
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(match this.upload.cut() {
                Some(refusal) => this.broken(refusal.detail.into()),
                None => this.broken(error.into()),
            }))),
            Poll::Pending if this.is_late(cx) => {
                Poll::Ready(Some(Err(this.broken("no data in time".into()))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Download {
    /// Whether neither body has moved for too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let upload = self.upload.moved_at();
        self.idle.poll_expired(upload, &self.exchange.client, cx)
    }

    /// Logs why the body ends before its end.
    fn broken(&self, error: Broken) -> Broken {
        log::debug!(instance:% = self.endpoint.address, error:%; "response body ended early");
        error
    }
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        let waits_since = None;
        Self { limit, waits_since }
    }

    pub(super) fn reset(&mut self) {
        self.waits_since = None;
    }

    /// Whether nothing has moved for too long, neither this way nor, since `other_way`, the other.
    pub(super) fn poll_expired(
        &mut self,
        other_way: Option<Instant>,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> bool {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let moved = other_way.map_or(since, |moved| moved.max(since));
        client.poll_over(moved + self.limit, cx).is_ready()
    }
}
