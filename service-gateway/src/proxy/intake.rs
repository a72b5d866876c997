use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Reason, Refusal};

/// The least that has to come in a second. Who sends less uses up the time for pauses; more gives
/// it back.
const BYTES_PER_SECOND: u32 = 500;

/// What comes of a request's body, as long as it keeps to the limits.
pub(super) struct Intake {
    payload: Payload,
    client: Rc<Client>,
    /// How long may be waited for the next piece.
    patience: Duration,
    /// Since when it is waited for.
    asked: Option<Instant>,
    /// How much more may come.
    allowed: u64,
}

/// Why no more of a body comes.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client is gone, or what it sends makes no sense.
    Broken(PayloadError),
    TooSlow,
    TooLarge,
}

impl Intake {
    pub(super) fn new(payload: Payload, client: Rc<Client>, allowed: u64) -> Self {
        if !matches!(payload, Payload::None) {
            client.pace_reading();
        }
        Self {
            payload,
            patience: client.pause(),
            client,
            asked: None,
            allowed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.payload, Payload::None)
    }

    /// The next piece, `None` at the end. It is never empty: as a chunk that would be the last.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        let asked = *self.asked.get_or_insert_with(Instant::now);
        let piece = loop {
            match self.payload.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {}
                Poll::Ready(piece) => break piece,
                Poll::Pending => {
                    self.client.resume_reading();
                    ready!(self.client.poll_over(asked + self.patience, cx));
                    return Poll::Ready(Err(Cut::TooSlow));
                }
            }
        };
        self.asked = None;
        Poll::Ready(match piece {
            Some(Ok(piece)) => self.count(piece.len(), asked).map(|()| Some(piece)),
            Some(Err(error)) => Err(Cut::Broken(error)),
            None => {
                self.client.body_ended();
                Ok(None)
            }
        })
    }

    fn count(&mut self, bytes: usize, asked: Instant) -> Result<(), Cut> {
        let left = self.allowed.checked_sub(bytes as u64);
        self.allowed = left.ok_or(Cut::TooLarge)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / BYTES_PER_SECOND;
        let patience = self.patience.saturating_sub(asked.elapsed()) + earned;
        self.patience = patience.min(self.client.pause());
        Ok(())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.client.body_dropped();
    }
}

impl Cut {
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Broken(error) => Reason::BadRequest.because(error),
            Self::TooSlow => Reason::SlowRequest.because("the request's body came too slowly"),
            Self::TooLarge => Reason::TooLarge.because("the request's body is larger than allowed"),
        }
    }
}
