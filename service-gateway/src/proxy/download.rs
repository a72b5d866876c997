use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use discovery::InFlight;
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::upload::ClientBody;

/// A node's body on its way to the client. It carries on the request's body too, which may outlast
/// the answer's head, and counts as a request in flight until it is dropped.
pub(super) struct Download {
    pub(super) body: Incoming,
    pub(super) size: BodySize,
    pub(super) upload: ClientBody,
    pub(super) idle: Idle,
    pub(super) endpoint: InFlight,
}

/// Ends what has been waiting for too long. Costs nothing while there is nothing to wait for.
pub(super) struct Idle {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MessageBody for Download {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        this.upload.poll(cx);
        loop {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    // To the client's encoder an empty piece would be the end. Trailers end here.
                    Ok(data) if !data.is_empty() => {
                        this.idle.reset();
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Ok(_) | Err(_) => {}
                },
                Poll::Ready(Some(Err(error))) => {
                    log::debug!(instance:% = this.endpoint.address, error:%; "answer broke off");
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if this.idle.poll_expired(cx) => {
                    log::debug!(instance:% = this.endpoint.address; "answer paused for too long");
                    return Poll::Ready(Some(Err("the answer paused for too long".into())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    fn reset(&mut self) {
        let limit = self.limit;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + limit);
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx).is_ready()
    }
}
