use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::intake::{Cut, Intake};

/// The largest body held so that it can be sent again.
const HELD_BYTES: u64 = 64 << 10;

/// What a node gets: nothing or what is held in memory, or the client's body as it arrives.
#[derive(Debug)]
pub(super) enum RequestBody {
    Held(Bytes),
    Upload(Upload),
}

/// The side of a request's body that the upstream's connection reads, one piece at a time.
///
/// The client's side cannot leave its thread, and the connection wants a body that can. So a
/// [`Pump`] carries the pieces from one to the other; the [`ClientBody`] owns it.
#[derive(Debug)]
pub(super) struct Upload {
    pieces: mpsc::Receiver<Piece>,
    /// Sent at the first read. Unsent, nothing was taken from the client yet.
    begin: Option<oneshot::Sender<()>>,
    is_chunked: bool,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

/// The client's body broke off, so the node must not take what it got for the whole.
#[derive(Debug)]
pub(super) struct Interrupted;

/// Carries a client's body to an [`Upload`]. Returns the body if none of it was asked for.
type Pump = LocalBoxFuture<'static, Result<Option<Intake>, Cut>>;

/// A request's body, from the client's hands to a node's.
pub(super) struct ClientBody {
    state: State,
    /// None unless it goes on as it arrives.
    moved: Option<Moved>,
}

/// How far a body is on its way from the client to the node.
type Moved = Rc<Cell<Progress>>;

#[derive(Clone, Copy, Default)]
enum Progress {
    #[default]
    NotBegun,
    /// The node has all there is. Whatever is late now, it is not the node.
    AwaitsClient,
    /// Since then the node has to take the next piece, or to answer.
    AwaitsNode(Instant),
}

enum State {
    /// All of it is here, so that it can be sent more than once.
    Held(Bytes),
    /// None of it was read yet.
    Unread(Intake, Option<u64>),
    /// It goes to a node as it arrives.
    Sending(Pump, Option<u64>),
    /// It went to a node, or got lost on the way.
    Gone,
    /// The client broke the limits.
    Cut(Cut),
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
    /// When the client does not send what it announced, or not as it has to.
    pub(super) async fn take(
        mut intake: Intake,
        length: Option<u64>,
        idempotent: bool,
    ) -> Result<Self, Cut> {
        if intake.is_empty() {
            return Ok(Self::empty());
        }
        let Some(length) = length.filter(|length| idempotent && *length <= HELD_BYTES) else {
            return Ok(State::Unread(intake, length).into());
        };
        let mut held = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(piece) = intake.next().await? {
            held.extend_from_slice(&piece);
        }
        Ok(State::Held(held.freeze()).into())
    }

    /// What to send to the next node, `None` if the body is gone.
    pub(super) fn send(&mut self) -> Option<RequestBody> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Held(bytes) => {
                self.state = State::Held(bytes.clone());
                Some(RequestBody::Held(bytes))
            }
            State::Unread(intake, length) => {
                let moved = self.moved.get_or_insert_default().clone();
                let (upload, pump) = Upload::new(intake, length.is_none(), moved);
                self.state = State::Sending(pump, length);
                Some(RequestBody::Upload(upload))
            }
            State::Sending(..) | State::Gone => None,
            State::Cut(cut) => {
                self.state = State::Cut(cut);
                None
            }
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

    /// How the client broke the limits, if it did.
    pub(super) fn cut(&self) -> Option<&Cut> {
        match &self.state {
            State::Cut(cut) => Some(cut),
            _ => None,
        }
    }

    /// Carries on what is being sent, once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let State::Sending(pump, length) = &mut self.state else {
            return;
        };
        if let Poll::Ready(ended) = pump.poll_unpin(cx) {
            self.state = match ended {
                Ok(Some(unread)) => State::Unread(unread, *length),
                Ok(None) | Err(Cut::Broken(_)) => State::Gone,
                Err(cut) => State::Cut(cut),
            };
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_))
    }

    /// Since when the node has to do something, if the body goes on as it arrives: now, as long as the
    /// client has to send more.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        match self.moved.as_ref()?.get() {
            Progress::NotBegun => None,
            Progress::AwaitsClient => Some(Instant::now()),
            Progress::AwaitsNode(since) => Some(since),
        }
    }
}

impl From<State> for ClientBody {
    fn from(state: State) -> Self {
        Self { state, moved: None }
    }
}

impl Upload {
    fn new(intake: Intake, is_chunked: bool, moved: Moved) -> (Self, Pump) {
        let (sender, pieces) = mpsc::channel(1);
        let (begin, begun) = oneshot::channel();
        let upload = Self {
            pieces,
            begin: Some(begin),
            is_chunked,
        };
        (upload, Box::pin(pump(intake, sender, begun, moved)))
    }
}

async fn pump(
    mut intake: Intake,
    pieces: mpsc::Sender<Piece>,
    begun: oneshot::Receiver<()>,
    moved: Moved,
) -> Result<Option<Intake>, Cut> {
    if begun.await.is_err() {
        return Ok(Some(intake));
    }
    loop {
        moved.set(Progress::AwaitsClient);
        let piece = intake.next().await;
        moved.set(Progress::AwaitsNode(Instant::now()));
        let piece = piece?.map_or(Piece::End, Piece::Data);
        let is_last = matches!(piece, Piece::End);
        // Sending fails when the connection has no more use for the body.
        if pieces.send(piece).await.is_err() || is_last {
            return Ok(None);
        }
    }
}

impl RequestBody {
    /// Whether its length is not known before its end.
    pub(super) fn is_chunked(&self) -> bool {
        matches!(self, Self::Upload(upload) if upload.is_chunked)
    }
}

impl Upload {
    pub(super) fn is_chunked(&self) -> bool {
        self.is_chunked
    }

    /// The next piece, which is not empty, and `None` at the end.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Interrupted>> {
        if let Some(begin) = self.begin.take() {
            // Without a pump there are no pieces either: the next line tells.
            let _ = begin.send(());
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) => Ok(None),
            None => Err(Interrupted),
        })
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client's body broke off")
    }
}

impl std::error::Error for Interrupted {}
