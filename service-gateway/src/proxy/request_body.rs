use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use upstream::{BodySource, RequestBody};

use super::payload::{BodyError, LimitedPayload};
use crate::error::Refusal;

/// The maximum size of a body that is held for a retry, in bytes.
const MAX_HELD_BYTES: u64 = 64 << 10;

/// The body of a client's request, while it may be sent to a node.
pub(super) enum ClientBody {
    /// All of it was received, so that it can be sent more than once. It counts among the bytes that may be
    /// held, unless it is empty.
    Held {
        bytes: Bytes,
        _memory: Option<OwnedSemaphorePermit>,
    },
    /// It is sent to a node as it is received.
    Streaming(Rc<BodyStream>),
}

/// A body that is forwarded while it is received, and its progress.
pub(super) struct BodyStream {
    /// `None` if the rest is discarded.
    payload: RefCell<Option<LimitedPayload>>,
    /// The number of bytes that are left. `None` if the length is unknown.
    left: Cell<Option<u64>>,
    progress: Cell<Progress>,
    error: RefCell<Option<BodyError>>,
}

#[derive(Clone, Copy)]
enum Progress {
    NotStarted,
    /// Everything received has been forwarded: more is expected from the client.
    AwaitsClient,
    /// The node has to receive the next bytes, or to respond, since this time.
    AwaitsNode(Instant),
}

impl ClientBody {
    /// Creates the body of a request without one.
    pub(super) fn empty() -> Self {
        Self::Held {
            bytes: Bytes::new(),
            _memory: None,
        }
    }

    /// Receives a body of at most [`MAX_HELD_BYTES`] if there is `memory` for it, a permit for each byte. Any
    /// other is sent as it is received.
    ///
    /// # Errors
    /// If the body is incomplete, malformed, too slow or too large.
    pub(super) async fn receive(
        mut payload: LimitedPayload,
        length: Option<u64>,
        memory: Option<&Arc<Semaphore>>,
    ) -> Result<Self, BodyError> {
        if payload.is_empty() {
            return Ok(Self::empty());
        }
        let Some(permit) = memory.and_then(|memory| permit(memory, length?)) else {
            return Ok(Self::Streaming(Rc::new(BodyStream {
                payload: RefCell::new(Some(payload)),
                left: Cell::new(length),
                progress: Cell::new(Progress::NotStarted),
                error: RefCell::default(),
            })));
        };
        let mut held = BytesMut::with_capacity(permit.num_permits());
        while let Some(bytes) = poll_fn(|cx| payload.poll_next(cx)).await? {
            held.extend_from_slice(&bytes);
        }
        Ok(Self::Held {
            bytes: held.freeze(),
            _memory: Some(permit),
        })
    }

    /// Returns the body for the next node. `None` if it has been sent in part.
    pub(super) fn send(&self) -> Option<RequestBody> {
        match self {
            Self::Held { bytes, .. } => Some(RequestBody::Full(bytes.clone())),
            Self::Streaming(stream) => match stream.progress.get() {
                Progress::NotStarted => Some(RequestBody::streaming(stream.clone())),
                Progress::AwaitsClient | Progress::AwaitsNode(_) => None,
            },
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// Returns whether the node waits for more of it from the client.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::Held { .. } => false,
            Self::Streaming(stream) => matches!(stream.progress.get(), Progress::AwaitsClient),
        }
    }

    /// Returns the refusal of a request whose body is incomplete.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Held { .. } => None,
            Self::Streaming(stream) => stream.error.borrow().as_ref().map(BodyError::refusal),
        }
    }

    /// Returns the time at which the node was sent the last bytes, or the current time while more is expected
    /// from the client. `None` before a body is streamed.
    pub(super) fn last_progress(&self) -> Option<Instant> {
        let Self::Streaming(stream) = self else {
            return None;
        };
        match stream.progress.get() {
            Progress::NotStarted => None,
            Progress::AwaitsClient => Some(Instant::now()),
            Progress::AwaitsNode(since) => Some(since),
        }
    }
}

/// Returns a permit to hold a body of this length, if it is short enough and there is memory for it.
fn permit(memory: &Arc<Semaphore>, length: u64) -> Option<OwnedSemaphorePermit> {
    let length = u32::try_from(length)
        .ok()
        .filter(|length| u64::from(*length) <= MAX_HELD_BYTES)?;
    memory.clone().try_acquire_many_owned(length).ok()
}

impl BodySource for BodyStream {
    fn is_chunked(&self) -> bool {
        self.left.get().is_none()
    }

    /// Takes nothing from the client before the first call.
    fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.progress.set(Progress::AwaitsClient);
        let mut payload = self.payload.borrow_mut();
        let chunk = match &mut *payload {
            Some(payload) => ready!(payload.poll_next(cx)),
            None => return Poll::Ready(Err(incomplete())),
        };
        self.progress.set(Progress::AwaitsNode(Instant::now()));
        let chunk = chunk.map_err(|error| {
            *self.error.borrow_mut() = Some(error);
            incomplete()
        })?;
        // The server ends a body where its length does. The node must not receive another length.
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let left = self.left.get().map(|left| left.checked_sub(length));
        let is_valid = match (left, &chunk) {
            (Some(None), _) => false,
            (Some(Some(left)), None) => left == 0,
            _ => true,
        };
        self.left.set(left.flatten());
        Poll::Ready(if is_valid {
            Ok(chunk)
        } else {
            Err(incomplete())
        })
    }

    fn close(&self) {
        if !matches!(self.progress.get(), Progress::NotStarted) {
            self.payload.take(); // so that the server discards the rest
        }
    }
}

fn incomplete() -> io::Error {
    io::Error::other("the request's body is incomplete")
}
