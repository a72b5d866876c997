//! A client's connection, and what a client may take its time for.
//!
//! What actix limits itself, the head of a connection's first request and the pause between two, it
//! sets new timers for. Here all heads and pauses have a limit and share one, and so do answers that
//! nobody reads. What a request's body may take is limited where it is read, in `proxy/intake.rs`.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::Config;
use crate::alarm::Alarm;
use crate::error::Reason;
use crate::head_refusal::{FirstLine, HeadRefusals, MAX_HEAD_BYTES, reason_of, written_by_parser};

/// What is left of a body that nobody wants is read for so long, so that the answer is not lost.
const REST: Duration = Duration::from_secs(2);

/// So many bytes of it, or of a head, buy one more second.
const BYTES_PER_SECOND: u32 = 64 << 10;

/// The least that has to be read of an answer in a second, in bytes, once the pauses are used up.
const READ_PER_SECOND: u32 = 4 << 10;

/// How long a connection over the limit may take for the head of its request: others wait for its
/// place.
const OVER_LIMIT_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of bytes read before actix decodes them, and read ahead of the consumer of a
/// request's body or of the end of a response. actix alone would read 128 KiB, whether or not they are
/// consumed, and keep a buffer of that size for as long as the connection lasts.
const READ_BYTES: usize = 8 << 10;

/// The same once a request has more than [`BULK_BYTES`]: larger reads cost less time and more memory.
const BULK_READ_BYTES: usize = 16 << 10;

/// A request of more bytes is read with [`BULK_READ_BYTES`].
const BULK_BYTES: usize = 128 << 10;

/// A head may be too large if more bytes than this were received since the last one. Some of its bytes
/// may have been received before: a few times [`BULK_READ_BYTES`].
const LARGE_HEAD_BYTES: usize = MAX_HEAD_BYTES / 2;

/// How long a client has to see that its connection ends.
const LINGER: Duration = Duration::from_millis(500);

/// All clients of all workers: how many there are, and what each may do.
#[derive(Debug)]
pub(crate) struct Clients {
    head: Duration,
    between: Duration,
    pub(crate) pause: Duration,
    max_connections: usize,
    max_in_flight: usize,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    is_draining: AtomicBool,
    /// Notified whenever the last connection has gone.
    all_closed: Notify,
    /// In the order of [`Slow`].
    cut: [AtomicU64; 2],
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slow {
    /// The head of a request took too long.
    Head,
    /// Nobody read the answer.
    Reader,
}

/// What a connection and the requests that come over it know of each other.
pub(crate) struct Client {
    all: Arc<Clients>,
    peer: Option<IpAddr>,
    refusals: Rc<HeadRefusals>,
    /// There were enough without this one.
    pub(crate) is_surplus: bool,
    awaited: Cell<Awaited>,
    /// Whether more of a request's body is to come.
    has_more_body: Cell<bool>,
    /// Bytes read since actix last decoded, or since the consumer of the request's body last waited.
    read: Cell<usize>,
    /// Bytes read since the last request began: of its body, and of the next head.
    request_bytes: Cell<usize>,
    /// Whether reading ahead is limited: the request's body has a consumer, or the
    /// request has no body and is being answered.
    is_paced: Cell<bool>,
    /// The connection's task, while reading is paused.
    paused: Cell<Option<Waker>>,
    /// When the head began that is awaited or answered.
    head_began: Cell<Instant>,
    first_line: Cell<FirstLine>,
    /// Whether all bytes of earlier responses have been written, and no request has begun since.
    is_flushed: Cell<bool>,
    /// Whether a head was refused, which ends the connection.
    is_refused: Cell<bool>,
    /// Of the request that is being answered.
    alarm: RefCell<Alarm>,
}

/// What has to come from a client, and by when.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// Another request, or the end.
    Request(Instant),
    /// The rest of a head that has begun.
    Head(Instant),
    /// The rest of a body that nobody wants.
    Rest(Instant),
    /// Nothing: the request is being answered.
    Nothing,
}

/// A client's connection. Reading and writing fail once the client is too slow.
pub(crate) struct ClientStream {
    stream: TcpStream,
    client: Rc<Client>,
    /// Since when nothing can be written because nobody reads.
    unread_since: Option<Instant>,
    /// How much longer that may last. What is read buys more.
    patience: Duration,
    /// When it is closed whatever still comes, once it is being closed.
    closed_by: Option<Instant>,
    /// The rest of the response that goes out in place of actix's own.
    farewell: Option<Bytes>,
    alarm: Alarm,
}

/// A request that is being answered, until the end of its answer.
pub(crate) struct Exchange {
    pub(crate) client: Rc<Client>,
    /// There were enough without this one, or connections enough without its own.
    pub(crate) is_surplus: bool,
    /// Whether the size of the request's head has to be checked.
    pub(crate) may_have_large_head: bool,
}

impl Clients {
    pub(crate) fn new(config: &Config, max_connections: usize) -> Self {
        Self {
            head: config.head_timeout,
            between: config.keep_alive,
            pause: config.client_timeout,
            max_connections,
            max_in_flight: config.max_in_flight,
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            all_closed: Notify::new(),
            cut: Default::default(),
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Has each response from now on close its connection.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether responses close their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Waits until no connection is left.
    pub(crate) async fn all_closed(&self) {
        while self.connections() > 0 {
            self.all_closed.notified().await;
        }
    }

    pub(crate) fn cut(&self, slow: Slow) -> u64 {
        self.cut[slow as usize].load(Ordering::Relaxed)
    }
}

impl Client {
    fn new(all: Arc<Clients>, refusals: Rc<HeadRefusals>, peer: Option<SocketAddr>) -> Rc<Self> {
        let others = all.connections.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let is_surplus = others >= all.max_connections;
        let head = match is_surplus {
            true => all.head.min(OVER_LIMIT_HEAD_TIMEOUT),
            false => all.head,
        };
        Rc::new(Self {
            is_surplus,
            awaited: Cell::new(Awaited::Head(now + head)),
            has_more_body: Cell::new(false),
            read: Cell::new(0),
            request_bytes: Cell::new(0),
            is_paced: Cell::new(false),
            paused: Cell::new(None),
            head_began: Cell::new(now),
            first_line: Cell::default(),
            is_flushed: Cell::new(true),
            is_refused: Cell::new(false),
            peer: peer.map(|peer| peer.ip().to_canonical()),
            refusals,
            alarm: RefCell::default(),
            all,
        })
    }

    /// A request has come, and is being answered from now on.
    pub(crate) fn begin(self: &Rc<Self>, has_body: bool) -> Exchange {
        self.read.set(0);
        self.is_paced.set(!has_body);
        self.awaited.set(Awaited::Nothing);
        self.has_more_body.set(has_body);
        self.first_line.take();
        self.is_flushed.set(false);
        let others = self.all.in_flight.fetch_add(1, Ordering::Relaxed);
        Exchange {
            is_surplus: self.is_surplus || others >= self.all.max_in_flight,
            may_have_large_head: self.request_bytes.replace(0) > LARGE_HEAD_BYTES,
            client: self.clone(),
        }
    }

    /// How long a body may pause, in either direction.
    pub(crate) fn pause(&self) -> Duration {
        self.all.pause
    }

    /// Ready when that time is over. Has the request's task woken by then, and perhaps before. All who
    /// wait for something of this request share one alarm: whenever it rings, all of them ask again.
    pub(crate) fn poll_over(&self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.borrow_mut().poll(by, cx)
    }

    /// The request's body has been read to its end.
    pub(crate) fn body_ended(&self) {
        self.has_more_body.set(false);
        self.resume_reading();
    }

    /// The request's body has a consumer from now on: nothing more is read before it waits.
    pub(crate) fn pace_reading(&self) {
        self.is_paced.set(true);
        self.read.set(READ_BYTES);
    }

    /// The request's body has no consumer any more. What is left of it is read to be discarded.
    pub(crate) fn body_dropped(&self) {
        if self.has_more_body.get() {
            self.is_paced.set(false);
            self.resume_reading();
        }
    }

    /// Permits to read on: the consumer has all that was decoded.
    pub(crate) fn resume_reading(&self) {
        self.read.set(0);
        if let Some(task) = self.paused.take() {
            task.wake();
        }
    }

    /// Returns the number of bytes that may be read now.
    fn read_room(&self) -> usize {
        let limit = if self.request_bytes.get() > BULK_BYTES {
            BULK_READ_BYTES
        } else {
            READ_BYTES
        };
        limit.saturating_sub(self.read.get())
    }

    /// Has actix decode what was read. Reading goes on afterwards, or when it is resumed.
    fn pause_reading(&self, cx: &Context<'_>) {
        if self.is_paced.get() {
            self.paused.set(Some(cx.waker().clone()));
        } else {
            self.read.set(0);
            cx.waker().wake_by_ref();
        }
    }

    fn answered(&self) {
        self.is_paced.set(false);
        self.resume_reading();
        let now = Instant::now();
        self.awaited.set(match self.has_more_body.get() {
            true => Awaited::Rest(now + REST),
            false => Awaited::Request(now + self.all.between),
        });
    }

    fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return; // the end
        }
        self.read.set(self.read.get() + bytes.len());
        self.request_bytes
            .set(self.request_bytes.get() + bytes.len());
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let more = Duration::from_secs(1) * count / BYTES_PER_SECOND;
        self.awaited.set(match self.awaited.get() {
            Awaited::Request(_) => {
                let now = Instant::now();
                self.head_began.set(now);
                self.head_received(bytes);
                Awaited::Head(now + self.all.head)
            }
            Awaited::Head(by) => {
                self.head_received(bytes);
                Awaited::Head(by + more)
            }
            Awaited::Rest(by) => Awaited::Rest(by + more),
            Awaited::Nothing => Awaited::Nothing,
        });
    }

    fn head_received(&self, bytes: &[u8]) {
        let mut line = self.first_line.get();
        line.received(bytes);
        self.first_line.set(line);
    }

    /// Whether no request is being answered, and nothing of an earlier response is left to write.
    fn is_between_responses(&self) -> bool {
        self.is_flushed.get() && !matches!(self.awaited.get(), Awaited::Nothing)
    }

    /// Refuses the head that is awaited. Returns the response.
    fn refuse(&self, reason: Reason) -> Bytes {
        self.is_refused.set(true);
        let began = self.head_began.get();
        self.refusals.refuse(reason, self.peer, began)
    }

    /// The server of this connection failed. What its parser refused right behind another request, so
    /// that the guard could not send a response of its own, is counted and logged here.
    pub(crate) fn failed(&self, error: &DispatchError) {
        if let DispatchError::Parse(error) = error
            && !self.is_refused.get()
        {
            self.refuse(reason_of(error));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.all.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.all_closed.notify_one();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.all.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.client.answered();
    }
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, all: Arc<Clients>, refusals: Rc<HeadRefusals>) -> Self {
        Self {
            patience: all.pause,
            client: Client::new(all, refusals, stream.peer_addr().ok()),
            stream,
            farewell: None,
            unread_since: None,
            closed_by: None,
            alarm: Alarm::default(),
        }
    }

    /// What this connection and its requests share.
    pub(crate) fn client(&self) -> Rc<Client> {
        self.client.clone()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Fails when the time is over, else sees to it that the task looks again by then.
    fn check(&mut self, by: Instant, cx: &mut Context<'_>) -> io::Result<()> {
        match self.alarm.poll(by, cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Nothing has come. Is that all right? If a client has been idle for too long, this is the end, as
    /// if the client had said so.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let awaited = self.client.awaited.get();
        let by = match awaited {
            Awaited::Request(by) | Awaited::Head(by) | Awaited::Rest(by) => by,
            Awaited::Nothing => return Poll::Pending,
        };
        if self.unread_since.is_some() {
            return Poll::Pending; // first it has to read
        }
        ready!(self.alarm.poll(by, cx));
        match awaited {
            Awaited::Request(_) => return Poll::Ready(Ok(())),
            Awaited::Head(_) => {
                self.client.all.cut[Slow::Head as usize].fetch_add(1, Ordering::Relaxed);
                let response = self.client.refuse(Reason::SlowRequest);
                let _ = self.stream.try_write(&response); // it is closed in any case
            }
            Awaited::Rest(_) | Awaited::Nothing => {}
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Something was read: the kernel took more. A trickle does not buy the time that it takes.
    fn read_on(&mut self, bytes: usize) {
        let waited = self.unread_since.take().map(|since| since.elapsed());
        let pause = self.client.pause();
        if waited.is_none() && self.patience == pause {
            return; // nearly always
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / READ_PER_SECOND;
        let left = self.patience.saturating_sub(waited.unwrap_or_default());
        self.patience = (left + earned).min(pause);
    }

    /// Nothing can be written. Is that all right?
    fn check_writing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let since = *self.unread_since.get_or_insert_with(Instant::now);
        self.check(since + self.patience, cx).inspect_err(|_| {
            // Or the kernel would keep what it holds for somebody who does not want it.
            let _ = self.stream.set_zero_linger();
            self.client.all.cut[Slow::Reader as usize].fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Sends the rest of the response to a refused head, and closes the connection.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut rest) = self.farewell.clone().filter(Bytes::has_remaining) {
            let written = ready!(self.poll_write_through(cx, &rest))?;
            rest.advance(written);
            self.farewell = Some(rest);
        }
        self.poll_close(cx)
    }

    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(bytes)) => self.read_on(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.check_writing(cx)?,
        }
        written
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        // What is closed while more comes is reset, and the last answer may be lost with it. So the
        // rest is read for a moment, until the client has seen the end.
        let by = *self
            .closed_by
            .get_or_insert_with(|| Instant::now() + LINGER);
        let mut rest = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut rest);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && Instant::now() < by => {}
                Poll::Pending if self.check(by, cx).is_ok() => return Poll::Pending,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.client.read_room();
        if room == 0 {
            self.client.pause_reading(cx);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let stream = Pin::new(&mut self.stream);
        let read = if buffer.remaining() > room {
            poll_read_buf(stream, cx, &mut (&mut *buffer).limit(room)).map_ok(drop)
        } else {
            stream.poll_read(cx, buffer)
        };
        if read.is_pending() {
            if !self.client.is_paced.get() {
                self.client.read.set(0); // actix has decoded what it has
            }
            return self.poll_silence(cx);
        }
        self.client.received(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.farewell.is_none() && self.client.is_between_responses() {
            let reason = written_by_parser(bytes, self.client.first_line.get());
            self.client.is_flushed.set(false);
            self.farewell = reason.map(|reason| self.client.refuse(reason));
        }
        if self.farewell.is_some() {
            ready!(self.poll_farewell(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_through(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // When actix has ended an answer it does not read again by itself: it has to be woken.
        if let Awaited::Request(by) = self.client.awaited.get()
            && self.unread_since.is_none()
            && self.alarm.poll(by, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        if !matches!(self.client.awaited.get(), Awaited::Nothing) {
            self.client.is_flushed.set(true); // actix flushes when it has written all that it holds
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}
