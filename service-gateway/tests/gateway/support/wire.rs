use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::message::Framing;
use super::{Message, within_limit};

/// One end of a connection, for those who care about every byte.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// What arrived and was not asked for yet.
    pub(crate) received: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: the other side has no more to say.
    Closed,
    /// Broken off.
    Reset,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends, or tells that the other side is gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within_limit("sending", self.stream.write_all(bytes.as_ref())).await
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends a GET and reads its answer.
    pub(crate) async fn get(&mut self, target: &str) -> Message {
        self.ask("GET", target, "").await
    }

    /// Sends a request without a body and reads its answer. Every header ends with CRLF.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, headers: &str) -> Message {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
        ))
        .await;
        self.answer(method).await
    }

    /// Sends a POST with a length and reads its answer.
    pub(crate) async fn post(&mut self, target: &str, body: &str) -> Message {
        self.send_with_body("POST", target, body).await;
        self.answer("POST").await
    }

    pub(crate) async fn send_with_body(&mut self, method: &str, target: &str, body: &str) {
        let length = body.len();
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    /// Sends a piece over and over, as a client does that looks for an answer only in between. Returns
    /// how many bytes it sent before the answer came: `most` or more if none did.
    pub(crate) async fn send_until_answered(&mut self, piece: &str, most: usize) -> usize {
        let mut sent = 0;
        while sent < most && !self.has_answer() && self.try_send(piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    }

    /// Whether something has arrived.
    pub(crate) fn has_answer(&mut self) -> bool {
        let _ = self.stream.try_read_buf(&mut self.received); // nothing, or the end: told by others
        !self.received.is_empty()
    }

    /// Reads once, or tells that nothing comes any more.
    async fn read(&mut self) -> Result<(), End> {
        match within_limit("bytes", self.stream.read_buf(&mut self.received)).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }

    /// The next `count` bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.received.len() < count {
            self.read().await?;
        }
        Ok(self.received.drain(..count).collect())
    }

    /// What arrives up to and without `end`, which is taken off too.
    pub(crate) async fn up_to(&mut self, end: &str) -> Result<String, End> {
        let mut searched = 0;
        loop {
            let unseen = self.received[searched..].windows(end.len());
            if let Some(at) = unseen.into_iter().position(|w| w == end.as_bytes()) {
                let text: Vec<u8> = self.received.drain(..searched + at).collect();
                self.received.drain(..end.len());
                return Ok(String::from_utf8(text).unwrap());
            }
            searched = self.received.len().saturating_sub(end.len());
            self.read().await?;
        }
    }

    /// A request, `None` if the other side closes instead.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let head = self.head().await.ok()?;
        Some(self.with_body(head).await)
    }

    /// The same request with its body, as far as that comes.
    pub(super) async fn with_body(&mut self, mut request: Message) -> Message {
        match request.framing() {
            Framing::Unknown => request.whole = true,
            framing => self.body(&mut request, framing).await,
        }
        request
    }

    /// The start line and the headers of what comes next.
    pub(crate) async fn head(&mut self) -> Result<Message, End> {
        Ok(Message::from_head(&self.up_to("\r\n\r\n").await?))
    }

    /// An answer to a request with this method, be it an interim one.
    pub(crate) async fn answer(&mut self, method: &str) -> Message {
        let mut answer = match self.head().await {
            Ok(answer) => answer,
            Err(end) => panic!("{end:?} in place of an answer, after {:?}", self.received),
        };
        let status = answer.status();
        if method == "HEAD" || status < 200 || [204, 304].contains(&status) {
            answer.whole = true;
        } else {
            let framing = answer.framing();
            self.body(&mut answer, framing).await;
        }
        answer
    }

    async fn body(&mut self, message: &mut Message, framing: Framing) {
        let ended = match framing {
            Framing::Length(length) => self.sized(message, length).await,
            Framing::Chunks => self.chunked(message).await,
            Framing::Unknown => {
                let (bytes, end) = self.rest().await;
                message.body = bytes;
                (end == End::Closed).then_some(()).ok_or(end)
            }
        };
        message.whole = ended.is_ok();
    }

    async fn sized(&mut self, message: &mut Message, length: usize) -> Result<(), End> {
        while self.received.len() < length {
            if let Err(end) = self.read().await {
                message.body = std::mem::take(&mut self.received);
                return Err(end);
            }
        }
        message.body = self.received.drain(..length).collect();
        Ok(())
    }

    async fn chunked(&mut self, message: &mut Message) -> Result<(), End> {
        while let Some(piece) = self.chunk().await? {
            message.body.extend(piece);
        }
        Ok(())
    }

    /// The next chunk, `None` for the last one.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let size = self.up_to("\r\n").await?;
        let size = usize::from_str_radix(&size, 16).unwrap();
        let piece = self.bytes(size).await?;
        assert_eq!(self.bytes(2).await?, b"\r\n");
        Ok((size > 0).then_some(piece))
    }

    /// Everything until the connection ends, and how it does.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.read().await {
                return (std::mem::take(&mut self.received), end);
            }
        }
    }

    /// Waits for the connection's end. Nothing may come before it.
    pub(crate) async fn ends(&mut self) {
        let (bytes, _) = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&bytes), "");
    }
}
