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

use super::payload::{Cut, Intake};
use crate::error::Refusal;

/// The largest body held so that it can be sent again.
const HELD_BYTES: u64 = 64 << 10;

/// A request's body, as long as there may be a node to send it to.
pub(super) enum ClientBody {
    /// All of it is here, so that it can be sent more than once. It counts among the bytes that may be
    /// held, unless it is empty.
    Held {
        bytes: Bytes,
        _memory: Option<OwnedSemaphorePermit>,
    },
    /// It goes to a node as it arrives.
    Arriving(Rc<Arrival>),
}

/// How far a body is on its way from the client to the node.
pub(super) struct Arrival {
    /// `None` if nobody wants the rest.
    intake: RefCell<Option<Intake>>,
    /// How much is to come, `None` if the client does not say.
    left: Cell<Option<u64>>,
    progress: Cell<Progress>,
    /// Why it broke off.
    cut: RefCell<Option<Cut>>,
}

#[derive(Clone, Copy)]
enum Progress {
    NotBegun,
    /// The node has all there is. Whatever is late now, it is not the node.
    AwaitsClient,
    /// Since then the node has to take the next piece, or to answer.
    AwaitsNode(Instant),
}

impl ClientBody {
    /// The body of a request that has none.
    pub(super) fn empty() -> Self {
        Self::Held {
            bytes: Bytes::new(),
            _memory: None,
        }
    }

    /// Takes a body over. One of at most [`HELD_BYTES`] is read now if there is `memory` for it, a
    /// permit for each byte; any other is sent as it arrives.
    ///
    /// # Errors
    /// When the client does not send what it announced, or not as it has to.
    pub(super) async fn take(
        mut intake: Intake,
        length: Option<u64>,
        memory: Option<&Arc<Semaphore>>,
    ) -> Result<Self, Cut> {
        if intake.is_empty() {
            return Ok(Self::empty());
        }
        let Some(permit) = memory.and_then(|memory| permit(memory, length?)) else {
            return Ok(Self::Arriving(Rc::new(Arrival {
                intake: RefCell::new(Some(intake)),
                left: Cell::new(length),
                progress: Cell::new(Progress::NotBegun),
                cut: RefCell::default(),
            })));
        };
        let mut held = BytesMut::with_capacity(permit.num_permits());
        while let Some(piece) = poll_fn(|cx| intake.poll_next(cx)).await? {
            held.extend_from_slice(&piece);
        }
        Ok(Self::Held {
            bytes: held.freeze(),
            _memory: Some(permit),
        })
    }

    /// What to send to the next node, `None` if the body is gone.
    pub(super) fn send(&self) -> Option<RequestBody> {
        match self {
            Self::Held { bytes, .. } => Some(RequestBody::Full(bytes.clone())),
            Self::Arriving(arrival) => match arrival.progress.get() {
                Progress::NotBegun => Some(RequestBody::streaming(arrival.clone())),
                Progress::AwaitsClient | Progress::AwaitsNode(_) => None,
            },
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// Whether more of it is to come from the client.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::Held { .. } => false,
            Self::Arriving(arrival) => matches!(arrival.progress.get(), Progress::AwaitsClient),
        }
    }

    /// How the client broke it off, if it did.
    pub(super) fn cut(&self) -> Option<Refusal> {
        match self {
            Self::Held { .. } => None,
            Self::Arriving(arrival) => arrival.cut.borrow().as_ref().map(Cut::refusal),
        }
    }

    /// Since when the node has to do something, if the body goes on as it arrives: now, as long as the
    /// client has to send more.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        let Self::Arriving(arrival) = self else {
            return None;
        };
        match arrival.progress.get() {
            Progress::NotBegun => None,
            Progress::AwaitsClient => Some(Instant::now()),
            Progress::AwaitsNode(since) => Some(since),
        }
    }
}

/// A permit to hold so many bytes, if they are few enough for it.
fn permit(memory: &Arc<Semaphore>, length: u64) -> Option<OwnedSemaphorePermit> {
    let length = u32::try_from(length)
        .ok()
        .filter(|length| u64::from(*length) <= HELD_BYTES)?;
    memory.clone().try_acquire_many_owned(length).ok()
}

impl BodySource for Arrival {
    fn is_chunked(&self) -> bool {
        self.left.get().is_none()
    }

    /// Takes nothing from the client before the first call.
    fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.progress.set(Progress::AwaitsClient);
        let mut intake = self.intake.borrow_mut();
        let chunk = match &mut *intake {
            Some(intake) => ready!(intake.poll_next(cx)),
            None => return Poll::Ready(Err(incomplete())),
        };
        self.progress.set(Progress::AwaitsNode(Instant::now()));
        let chunk = chunk.map_err(|cut| {
            *self.cut.borrow_mut() = Some(cut);
            incomplete()
        })?;
        // The server ends a body where its length does. The node must not receive another length.
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let left = self.left.get().map(|left| left.checked_sub(length));
        let is_sound = match (left, &chunk) {
            (Some(None), _) => false,
            (Some(Some(left)), None) => left == 0,
            _ => true,
        };
        self.left.set(left.flatten());
        Poll::Ready(if is_sound {
            Ok(chunk)
        } else {
            Err(incomplete())
        })
    }

    fn close(&self) {
        if !matches!(self.progress.get(), Progress::NotBegun) {
            self.intake.take(); // so that the server discards the rest
        }
    }
}

fn incomplete() -> io::Error {
    io::Error::other("the client's body broke off")
}
