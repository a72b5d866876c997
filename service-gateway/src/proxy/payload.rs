use std::io::ErrorKind;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::error::{Reason, Refusal};

/// A request's body, up to a maximum size. Its connection limits the time.
pub(super) struct Intake {
    payload: Payload,
    /// The number of bytes that may follow.
    allowed: u64,
}

/// The reason for which a body has ended early.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client has gone, or the body is malformed.
    Broken(PayloadError),
    TooSlow,
    TooLarge,
}

impl Intake {
    pub(super) fn new(payload: Payload, allowed: u64) -> Self {
        Self { payload, allowed }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.payload, Payload::None)
    }

    /// Returns the next data, `None` at the end. It is never empty: as a chunk that would be the last.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        loop {
            return Poll::Ready(match ready!(self.payload.poll_next_unpin(cx)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => self.count(data.len()).map(|()| Some(data)),
                Some(Err(PayloadError::Io(error))) if error.kind() == ErrorKind::TimedOut => {
                    Err(Cut::TooSlow)
                }
                Some(Err(error)) => Err(Cut::Broken(error)),
                None => Ok(None),
            });
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Cut> {
        let left = self.allowed.checked_sub(bytes as u64);
        self.allowed = left.ok_or(Cut::TooLarge)?;
        Ok(())
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
