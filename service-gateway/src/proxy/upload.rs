use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The largest body held so that it can be sent again.
const HELD_BYTES: u64 = 64 << 10;

/// What a node gets: nothing or what is held in memory, or the client's body as it arrives.
pub(super) type RequestBody = Either<Full<Bytes>, Upload>;

/// The side of a request's body that the upstream's connection reads, one piece at a time.
///
/// The client's side cannot leave its thread, and the connection wants a body that can. So a
/// [`Pump`] carries the pieces from one to the other; the [`ClientBody`] owns it.
pub(super) struct Upload {
    pieces: mpsc::Receiver<Piece>,
    /// Sent at the first read. Unsent, nothing was taken from the client yet.
    begin: Option<oneshot::Sender<()>>,
    left: Option<u64>,
    ended: bool,
}

enum Piece {
    Data(Bytes),
    End,
}

/// The client's body broke off, so the node must not take what it got for the whole.
#[derive(Debug)]
pub(super) struct Interrupted;

/// Carries a client's body to an [`Upload`]. Returns the body if none of it was asked for.
type Pump = LocalBoxFuture<'static, Option<Payload>>;

/// A request's body, from the client's hands to a node's.
pub(super) struct ClientBody {
    state: State,
    /// None unless it goes on as it arrives.
    moved: Option<Moved>,
}

/// When a piece last went from the client to the node.
type Moved = Rc<Cell<Option<Instant>>>;

enum State {
    /// All of it is here, so that it can be sent more than once.
    Held(Bytes),
    /// None of it was read yet.
    Unread(Payload, Option<u64>),
    /// It goes to a node as it arrives.
    Sending(Pump, Option<u64>),
    /// It went to a node, or got lost on the way.
    Gone,
}

impl ClientBody {
    /// The body of a request that has none.
    pub(super) fn empty() -> Self {
        State::Held(Bytes::new()).into()
    }

    /// Takes a body over. One of at most [`HELD_BYTES`] is read now if sending it twice does no
    /// harm; any other is streamed.
    ///
    /// # Errors
    /// When the client does not send what it announced.
    pub(super) async fn take(
        mut payload: Payload,
        length: Option<u64>,
        idempotent: bool,
    ) -> Result<Self, PayloadError> {
        if matches!(payload, Payload::None) || length == Some(0) {
            return Ok(Self::empty());
        }
        let Some(length) = length.filter(|length| idempotent && *length <= HELD_BYTES) else {
            return Ok(State::Unread(payload, length).into());
        };
        let mut held = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(piece) = payload.next().await {
            held.extend_from_slice(&piece?);
        }
        Ok(State::Held(held.freeze()).into())
    }

    /// What to send to the next node, `None` if the body is gone.
    pub(super) fn send(&mut self) -> Option<RequestBody> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Held(bytes) => {
                self.state = State::Held(bytes.clone());
                Some(Either::Left(Full::new(bytes)))
            }
            State::Unread(payload, length) => {
                let moved = self.moved.get_or_insert_default().clone();
                let (upload, pump) = Upload::new(payload, length, moved);
                self.state = State::Sending(pump, length);
                Some(Either::Right(upload))
            }
            State::Sending(..) | State::Gone => None,
        }
    }

    /// Takes the body back from a node that was never asked to read it.
    pub(super) async fn take_back(&mut self) {
        std::future::poll_fn(|cx| {
            self.poll(cx);
            match self.state {
                State::Sending(..) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Carries on what is being sent, for as long as this is awaited.
    pub(super) async fn carry(&mut self) -> Infallible {
        std::future::poll_fn(|cx| {
            self.poll(cx);
            Poll::Pending
        })
        .await
    }

    /// Carries on what is being sent, once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let State::Sending(pump, length) = &mut self.state else {
            return;
        };
        if let Poll::Ready(unread) = pump.poll_unpin(cx) {
            let length = *length;
            self.state = unread.map_or(State::Gone, |payload| State::Unread(payload, length));
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_))
    }

    /// When a piece of it last went on to a node, if it goes on as it arrives.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        self.moved.as_ref()?.get()
    }
}

impl From<State> for ClientBody {
    fn from(state: State) -> Self {
        Self { state, moved: None }
    }
}

impl Upload {
    fn new(payload: Payload, length: Option<u64>, moved: Moved) -> (Self, Pump) {
        let (sender, pieces) = mpsc::channel(1);
        let (begin, begun) = oneshot::channel();
        let upload = Self {
            pieces,
            begin: Some(begin),
            left: length,
            ended: false,
        };
        (upload, Box::pin(pump(payload, sender, begun, moved)))
    }
}

async fn pump(
    mut payload: Payload,
    pieces: mpsc::Sender<Piece>,
    begun: oneshot::Receiver<()>,
    moved: Moved,
) -> Option<Payload> {
    if begun.await.is_err() {
        return Some(payload);
    }
    // Sending fails when the connection has no more use for the body.
    while let Some(piece) = payload.next().await {
        pieces.send(Piece::Data(piece.ok()?)).await.ok()?;
        moved.set(Some(Instant::now()));
    }
    pieces.send(Piece::End).await.ok()?;
    None
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        if let Some(begin) = self.begin.take() {
            // Without a pump there are no pieces either: the next line tells.
            let _ = begin.send(());
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(bytes)) => {
                self.left = self
                    .left
                    .map(|left| left.saturating_sub(bytes.len() as u64));
                Some(Ok(Frame::data(bytes)))
            }
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => Some(Err(Interrupted)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client's body broke off")
    }
}

impl std::error::Error for Interrupted {}
