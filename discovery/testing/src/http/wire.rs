use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Message;
use super::message::Framing;
use crate::within_limit;

/// One end of a connection, byte by byte.
pub struct Wire {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes that arrived and were not consumed.
    pub received: Vec<u8>,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer has closed it.
    Closed,
    /// It was reset.
    Reset,
}

impl Wire {
    /// Connects to an address.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends bytes, and fails if the peer has closed the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within_limit("sending", self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends a GET and reads its response.
    pub async fn get(&mut self, target: &str) -> Message {
        self.ask("GET", target, "").await
    }

    /// Sends a request without a body and reads its response. Every header field ends with CRLF.
    pub async fn ask(&mut self, method: &str, target: &str, headers: &str) -> Message {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
        ))
        .await;
        self.answer(method).await
    }

    /// Sends a POST with a length and reads its response.
    pub async fn post(&mut self, target: &str, body: &str) -> Message {
        self.send_with_body("POST", target, body).await;
        self.answer("POST").await
    }

    /// Sends a request with a length and a body.
    pub async fn send_with_body(&mut self, method: &str, target: &str, body: &str) {
        let length = body.len();
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }

    /// Sends a chunk repeatedly until a response begins to arrive. Returns the number of bytes sent: `most`
    /// or more if no response came.
    pub async fn send_until_answered(&mut self, chunk: &str, most: usize) -> usize {
        let mut sent = 0;
        while sent < most && !self.has_answer() && self.try_send(chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    }

    /// Returns true once something has arrived.
    pub fn has_answer(&mut self) -> bool {
        let _ = self.stream.try_read_buf(&mut self.received); // nothing, or the end: other methods return it
        !self.received.is_empty()
    }

    /// Reads once, and fails at the end.
    async fn read(&mut self) -> Result<(), End> {
        match within_limit("bytes", self.stream.read_buf(&mut self.received)).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }

    /// Reads `count` bytes.
    pub async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.received.len() < count {
            self.read().await?;
        }
        Ok(self.received.drain(..count).collect())
    }

    /// Reads up to `end`, which is consumed and not returned.
    pub async fn up_to(&mut self, end: &str) -> Result<String, End> {
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

    /// Reads up to `end`, and returns it too.
    pub async fn read_to(&mut self, end: &str) -> String {
        match self.up_to(end).await {
            Ok(text) => text + end,
            Err(closed) => panic!("{closed:?} before {end:?}, after {:?}", self.received),
        }
    }

    /// Reads to the end of the connection, which may not be reset.
    pub async fn read_to_close(&mut self) -> String {
        let (bytes, end) = self.rest().await;
        assert_eq!(end, End::Closed);
        String::from_utf8(bytes).unwrap()
    }

    /// Reads a request, `None` if the peer closes instead.
    pub async fn request(&mut self) -> Option<Message> {
        let head = self.head().await.ok()?;
        Some(self.with_body(head).await)
    }

    /// Reads the body of a request, as far as it arrives.
    pub(super) async fn with_body(&mut self, mut request: Message) -> Message {
        match request.framing() {
            Framing::Unknown => request.whole = true,
            framing => self.body(&mut request, framing).await,
        }
        request
    }

    /// Reads a start line and header fields.
    pub async fn head(&mut self) -> Result<Message, End> {
        Ok(Message::from_head(&self.up_to("\r\n\r\n").await?))
    }

    /// Reads a response to a request with this method, which may be an interim one.
    pub async fn answer(&mut self, method: &str) -> Message {
        let mut answer = match self.head().await {
            Ok(answer) => answer,
            Err(end) => panic!("{end:?} in place of a response, after {:?}", self.received),
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
        while let Some(chunk) = self.chunk().await? {
            message.body.extend(chunk);
        }
        Ok(())
    }

    /// Reads a chunk, `None` for the last one.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let size = self.up_to("\r\n").await?;
        let size = usize::from_str_radix(&size, 16).unwrap();
        let chunk = self.bytes(size).await?;
        assert_eq!(self.bytes(2).await?, b"\r\n");
        Ok((size > 0).then_some(chunk))
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.read().await {
                return (std::mem::take(&mut self.received), end);
            }
        }
    }

    /// Waits for the end of the connection. Nothing may arrive before it.
    pub async fn ends(&mut self) {
        let (bytes, _) = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&bytes), "");
    }
}
