use std::io::ErrorKind;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::error::{Reason, Refusal};

/// The payload of a request, up to a maximum size. Its connection limits the time.
pub(super) struct LimitedPayload {
    payload: Payload,
    /// The number of bytes that may follow.
    allowed: u64,
}

/// The reason for which a body is incomplete.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client has closed the connection, or the body is malformed.
    Invalid(PayloadError),
    TooSlow,
    TooLarge,
}

impl LimitedPayload {
    pub(super) fn new(payload: Payload, allowed: u64) -> Self {
        Self { payload, allowed }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.payload, Payload::None)
    }

    /// Returns the next bytes, `None` at the end. They are never empty: an empty chunk would terminate the body.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            return Poll::Ready(match ready!(self.payload.poll_next_unpin(cx)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => self.count(data.len()).map(|()| Some(data)),
                Some(Err(PayloadError::Io(error))) if error.kind() == ErrorKind::TimedOut => {
                    Err(BodyError::TooSlow)
                }
                Some(Err(error)) => Err(BodyError::Invalid(error)),
                None => Ok(None),
            });
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), BodyError> {
        let left = self.allowed.checked_sub(bytes as u64);
        self.allowed = left.ok_or(BodyError::TooLarge)?;
        Ok(())
    }
}

impl BodyError {
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Invalid(error) => Reason::BadRequest.because(error),
            Self::TooSlow => Reason::SlowRequest.because("the request's body came too slowly"),
            Self::TooLarge => Reason::TooLarge.because("the request's body is larger than allowed"),
        }
    }
}
