//! A connection's socket, and what has been read and not decoded, encoded and not written.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::deadline::Deadline;
use crate::framing::{Decoded, Framing, InvalidChunk, READ_BYTES};
use crate::head::{Head, HeadError, MAX_HEAD_BYTES, has_empty_line};
use crate::limits::{Allowance, Limits};

/// The least number of bytes per second of a response that is read, once the pauses are used up.
const WRITTEN_PER_SECOND: u32 = 4 << 10;

/// The same for a request's body.
const BODY_PER_SECOND: u32 = 500;

/// This number of bytes of a head, or of a body that is discarded, extends their time by a second.
const BYTES_PER_SECOND: u32 = 64 << 10;

/// A request with more bytes is read in parts of [`BULK_READ_BYTES`]: fewer calls, more memory.
const BULK_BYTES: u64 = 128 << 10;
const BULK_READ_BYTES: usize = 16 << 10;

/// This number of bytes is written at once, however much more of the body is ready.
const FLUSH_BYTES: usize = 16 << 10;

/// The time for which a body that has no consumer is read, so that the response is not lost.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The time that a client has to notice that its connection ends.
const LINGER_TIME: Duration = Duration::from_millis(500);

/// The state of one connection. Shared by its task and the consumer of the request's body.
pub(crate) struct Io {
    stream: TcpStream,
    limits: Limits,
    received: BytesMut,
    /// Whether the client has closed its side.
    is_eof: bool,
    out: BytesMut,
    /// Written behind `out`, and `tail` behind it.
    data: Bytes,
    tail: &'static [u8],
    /// Of the request's body.
    framing: Framing,
    /// Bytes received of the request that is served.
    request_bytes: u64,
    /// Data of the body that was decoded ahead.
    decoded: Vec<Bytes>,
    /// Whether `100 Continue` has to precede the body.
    pub(crate) expects_continue: bool,
    /// Counts requests: the body of an earlier one has no data.
    request: u64,
    /// The consumer of the body, while it waits.
    consumer: Option<Waker>,
    body_pause: Allowance,
    body_awaited_since: Option<Instant>,
    write_pause: Allowance,
    unwritten_since: Option<Instant>,
    deadline: Deadline,
}

/// What follows on a connection.
pub(crate) enum Next {
    Request(Box<Head>),
    /// A head that has to be refused.
    Refused(HeadError),
    /// The end: the client has closed its side or has been idle for too long.
    End,
}

/// The state of a head that is being received.
pub(crate) struct Receiving {
    pub(crate) began: Instant,
    by: Instant,
    is_first: bool,
    has_begun: bool,
    /// The number of bytes that was searched for an empty line, and the number from which parsing again pays:
    /// otherwise a head that arrives byte by byte would cost time in proportion to its square.
    searched: usize,
    parse_at: usize,
}

impl Receiving {
    pub(crate) fn new(limits: &Limits, is_first: bool) -> Self {
        let now = Instant::now();
        let time = if is_first {
            limits.head
        } else {
            limits.keep_alive
        };
        Self {
            began: now,
            by: now + time,
            is_first,
            has_begun: false,
            searched: 0,
            parse_at: 0,
        }
    }
}

impl Io {
    pub(crate) fn new(stream: TcpStream, limits: Limits) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            is_eof: false,
            out: BytesMut::new(),
            data: Bytes::new(),
            tail: b"",
            framing: Framing::Length(0),
            request_bytes: 0,
            decoded: Vec::new(),
            expects_continue: false,
            request: 0,
            consumer: None,
            body_pause: Allowance::new(limits.pause, BODY_PER_SECOND),
            body_awaited_since: None,
            write_pause: Allowance::new(limits.pause, WRITTEN_PER_SECOND),
            unwritten_since: None,
            deadline: Deadline::default(),
            limits,
        }
    }

    /// The buffer for what is written next.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Writes `data` behind what is in the buffer, without a copy, and `tail` behind it. Nothing else may be put
    /// into the buffer before it has been written.
    pub(crate) fn put_data(&mut self, data: Bytes, tail: &'static [u8]) {
        (self.data, self.tail) = (data, tail);
    }

    /// Returns whether so much is unwritten that more has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() >= FLUSH_BYTES || !self.data.is_empty() || !self.tail.is_empty()
    }

    /// Reads once, at most `room` bytes.
    fn poll_read(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.is_empty() && self.stream.poll_read_ready(cx)?.is_pending() {
            self.received = BytesMut::new(); // a connection that waits needs no buffer
            return Poll::Pending;
        }
        self.received.reserve(room);
        let stream = Pin::new(&mut self.stream);
        let read = ready!(poll_read_buf(
            stream,
            cx,
            &mut (&mut self.received).limit(room)
        ))?;
        self.request_bytes += read as u64;
        self.is_eof |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Receives the next request's head. Refusals and the end of the connection are results, too; an error is
    /// that of the socket.
    pub(crate) fn poll_next(
        &mut self,
        head: &mut Receiving,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Next>> {
        loop {
            if !self.received.is_empty() {
                self.begin_head(head);
                match self.take_head(head) {
                    Ok(Some(head)) => return Poll::Ready(Ok(Next::Request(Box::new(head)))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Ok(Next::Refused(error))),
                }
            }
            if self.is_eof {
                return Poll::Ready(Ok(Next::End));
            }
            match self.poll_read(READ_BYTES, cx)? {
                Poll::Ready(bytes) if head.has_begun => head.by += extension(bytes),
                Poll::Ready(_) => {}
                Poll::Pending => {
                    if self.received.is_empty() {
                        self.out = BytesMut::new();
                    }
                    ready!(self.deadline.poll(head.by, cx));
                    return Poll::Ready(Ok(if head.has_begun {
                        Next::Refused(HeadError::TooSlow)
                    } else {
                        Next::End
                    }));
                }
            }
        }
    }

    fn begin_head(&mut self, head: &mut Receiving) {
        if head.has_begun {
            return;
        }
        head.has_begun = true;
        if !head.is_first {
            head.began = Instant::now();
            head.by = head.began + self.limits.head;
        }
    }

    fn take_head(&mut self, head: &mut Receiving) -> Result<Option<Head>, HeadError> {
        let length = self.received.len();
        let is_due = length >= head.parse_at || length > MAX_HEAD_BYTES;
        if !is_due && !has_empty_line(&self.received, head.searched) {
            head.searched = length;
            return Ok(None);
        }
        head.searched = length;
        head.parse_at = length + length / 8;
        Head::take(&mut self.received)
    }

    /// Whether nothing has been received that has not been decoded.
    pub(crate) fn is_idle(&self) -> bool {
        self.received.is_empty()
    }

    /// Begins to serve a request. Returns its number.
    pub(crate) fn begin_request(&mut self, framing: Framing, expects_continue: bool) -> u64 {
        self.framing = framing;
        self.expects_continue = expects_continue && !self.framing.is_ended();
        self.request_bytes = 0;
        self.decoded.clear();
        self.body_awaited_since = None;
        self.body_pause = Allowance::new(self.limits.pause, BODY_PER_SECOND);
        self.request += 1;
        self.request
    }

    /// What is received from now on belongs to another protocol.
    pub(crate) fn switch_protocols(&mut self) {
        self.framing = Framing::UntilClose;
    }

    pub(crate) fn is_request(&self, request: u64) -> bool {
        self.request == request
    }

    /// The next data of the request's body, `None` at its end.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let since = *self.body_awaited_since.get_or_insert_with(Instant::now);
        loop {
            match self.decode() {
                Ok(Decoded::Data(data)) => {
                    self.body_awaited_since = None;
                    self.expects_continue = false; // the client has not waited
                    self.body_pause.moved(data.len(), since.elapsed());
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Decoded::End) => {
                    self.expects_continue = false;
                    return Poll::Ready(None);
                }
                Ok(Decoded::Pending) => {}
                Err(error) => {
                    return Poll::Ready(Some(Err(io::Error::new(ErrorKind::InvalidData, error))));
                }
            }
            if self.is_eof {
                return Poll::Ready(match self.framing {
                    Framing::UntilClose => None,
                    _ => Some(Err(ErrorKind::UnexpectedEof.into())),
                });
            }
            if std::mem::take(&mut self.expects_continue) {
                self.out.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                let _ = self.poll_flush(cx)?; // if it is pending, the connection's task goes on with it
            }
            let is_pending = self.poll_read(self.body_room(), cx)?.is_pending();
            if is_pending {
                match &mut self.consumer {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => self.consumer = Some(cx.waker().clone()),
                }
                if matches!(self.framing, Framing::UntilClose) {
                    return Poll::Pending; // another protocol may be silent
                }
                ready!(self.deadline.poll(since + self.body_pause.left(), cx));
                return Poll::Ready(Some(Err(ErrorKind::TimedOut.into())));
            }
        }
    }

    fn body_room(&self) -> usize {
        if self.request_bytes > BULK_BYTES {
            BULK_READ_BYTES
        } else {
            READ_BYTES
        }
    }

    fn decode(&mut self) -> Result<Decoded, InvalidChunk> {
        if !self.decoded.is_empty() {
            return Ok(Decoded::Data(self.decoded.remove(0)));
        }
        self.framing.decode(&mut self.received)
    }

    /// Decodes what has been received of the body. Returns whether that was the end of it.
    pub(crate) fn has_whole_body(&mut self) -> bool {
        while let Ok(Decoded::Data(data)) = self.framing.decode(&mut self.received) {
            self.decoded.push(data);
        }
        self.framing.is_ended()
    }

    /// Is ready when the client has closed its side, or the connection has failed, while a request is
    /// served. A part of what it has sent may not have been received by then: reading ahead has a limit.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_eof {
            let room = READ_BYTES.saturating_sub(self.received.len());
            if room == 0 {
                return Poll::Pending;
            }
            match ready!(self.poll_read(room, cx)) {
                Ok(0) if matches!(self.framing, Framing::UntilClose) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
            if let Some(consumer) = self.consumer.take() {
                consumer.wake();
            }
        }
        // After an upgrade this is the end of one direction. The other one may last for a pause.
        if matches!(self.framing, Framing::UntilClose) {
            let since = *self.body_awaited_since.get_or_insert_with(Instant::now);
            return self.deadline.poll(since + self.limits.pause, cx);
        }
        Poll::Ready(())
    }

    /// Writes what has been encoded.
    ///
    /// # Errors
    /// If the connection fails, or the client does not read ([`ErrorKind::TimedOut`]).
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.out.is_empty() && self.data.is_empty() && self.tail.is_empty()) {
            let stream = Pin::new(&mut self.stream);
            let written = match (&self.out[..], &self.data[..], self.tail) {
                // One part takes the kernel less time as such.
                (part, [], []) | ([], part, []) => stream.poll_write(cx, part),
                (out, data, tail) => {
                    let parts = [out, data, tail].map(IoSlice::new);
                    stream.poll_write_vectored(cx, &parts)
                }
            };
            match written? {
                Poll::Ready(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(bytes) => self.written(bytes),
                Poll::Pending => {
                    let since = *self.unwritten_since.get_or_insert_with(Instant::now);
                    ready!(self.deadline.poll(since + self.write_pause.left(), cx));
                    return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, bytes: usize) {
        if let Some(since) = self.unwritten_since.take() {
            self.write_pause.moved(bytes, since.elapsed());
        } else if self.write_pause.left() < self.limits.pause {
            self.write_pause.moved(bytes, Duration::ZERO);
        }
        let mut left = bytes;
        for part in [
            &mut self.out as &mut dyn Buf,
            &mut self.data,
            &mut self.tail,
        ] {
            let count = left.min(part.remaining());
            part.advance(count);
            left -= count;
        }
        if self.data.is_empty() {
            self.data = Bytes::new(); // so that its memory can be used for the next read
        }
    }

    /// Closes the connection in order: closes this side, and reads until the client closes its own or the time
    /// is over. A connection that is closed while more arrives is reset, and the last response may be lost
    /// with it.
    pub(crate) fn poll_close(
        &mut self,
        by: &mut Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let has_rest = !self.framing.is_ended();
        let by = match by {
            Some(by) => by,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                self.received = BytesMut::new();
                let time = if has_rest { DISCARD_TIME } else { LINGER_TIME };
                by.insert(Instant::now() + time)
            }
        };
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        while !self.is_eof && Instant::now() < *by {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            if Pin::new(&mut self.stream)
                .poll_read(cx, &mut buffer)?
                .is_pending()
            {
                return self.deadline.poll(*by, cx).map(Ok);
            }
            self.is_eof = buffer.filled().is_empty();
            if has_rest {
                *by += extension(buffer.filled().len());
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the kernel drop what it holds when the connection closes, and reset the connection.
    pub(crate) fn reset_on_close(&self) {
        let _ = self.stream.set_zero_linger(); // a socket that fails has nothing left to drop
    }
}

/// The time that bytes give back.
fn extension(bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(1) * bytes / BYTES_PER_SECOND
}
