use std::rc::Rc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

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
        Self {
            payload,
            patience: client.pause(),
            client,
            allowed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.payload, Payload::None)
    }

    /// The next piece, `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        let asked = Instant::now();
        let piece = timeout(self.patience, self.payload.next()).await;
        let Some(piece) = piece.map_err(|_| Cut::TooSlow)? else {
            self.client.body_ended();
            return Ok(None);
        };
        let piece = piece.map_err(Cut::Broken)?;
        let left = self.allowed.checked_sub(piece.len() as u64);
        self.allowed = left.ok_or(Cut::TooLarge)?;
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * length / BYTES_PER_SECOND;
        let patience = self.patience.saturating_sub(asked.elapsed()) + earned;
        self.patience = patience.min(self.client.pause());
        Ok(Some(piece))
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
