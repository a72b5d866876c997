//! The node that responds behind a proxy under test, as the target of a request specifies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::kind::Kind;
use crate::message::{Framing, Head, ReadError, Reader, invalid, is_token_byte};

/// The delay in front of a slow response.
const FIRST_BYTE_DELAY: Duration = Duration::from_millis(4);

/// The time for the other side to close, so that no reset destroys a response.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A server of its own, on the runtime that started it. It stops when this is dropped.
pub struct Node {
    /// The address it listens on.
    pub address: SocketAddr,
    forbidden: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Node {
    /// Listens on an address. Port 0 is any free port.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let forbidden = Arc::<AtomicUsize>::default();
        let accepting = tokio::spawn(accept(listener, forbidden.clone()));
        Ok(Self {
            address,
            forbidden,
            accepting,
        })
    }

    /// Returns the number of requests received that a server must not process: those behind a
    /// request that closes the connection, and those behind junk.
    #[must_use]
    pub fn forbidden(&self) -> usize {
        self.forbidden.load(Ordering::Relaxed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, forbidden: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let forbidden = forbidden.clone();
        tokio::spawn(async move {
            // The other side may end the connection at any time.
            let _ = serve(stream, &forbidden).await;
        });
    }
}

async fn serve(stream: TcpStream, forbidden: &AtomicUsize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.into_split();
    let mut reader = Reader::new(reading);
    loop {
        let request = match Request::read(&mut reader, &mut writing).await {
            Ok(request) => request,
            Err(ReadError::Ended) => return Ok(()),
            Err(ReadError::Invalid(_)) => {
                let refusal = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
                writing.write_all(refusal.as_bytes()).await?;
                break;
            }
        };
        if request.kind == Kind::Forbidden {
            forbidden.fetch_add(1, Ordering::Relaxed);
        }
        if request.kind == Kind::Slow {
            sleep(FIRST_BYTE_DELAY).await;
        }
        let switches = request.switches();
        let (response, closes) = request.response();
        writing.write_all(&response).await?;
        if switches {
            return echo(reader, writing).await;
        }
        if closes {
            break;
        }
        reader.forget();
    }
    writing.shutdown().await?;
    let _ = timeout(LINGER_TIME, reader.rest()).await;
    Ok(())
}

/// Sends back every byte of a connection that has switched protocols.
async fn echo(
    mut reader: Reader<OwnedReadHalf>,
    mut writing: OwnedWriteHalf,
) -> std::io::Result<()> {
    while let Ok(byte) = reader.sized(1).await {
        writing.write_all(&byte).await?;
        reader.forget();
    }
    writing.shutdown().await
}

/// A request that was read whole.
struct Request {
    head: Head,
    method: String,
    is_http10: bool,
    kind: Kind,
    id: String,
    body: Vec<u8>,
}

impl Request {
    async fn read(
        reader: &mut Reader<OwnedReadHalf>,
        writing: &mut OwnedWriteHalf,
    ) -> Result<Self, ReadError> {
        let head = reader.head().await?;
        let mut parts = head.start.split(' ');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(method), Some(target), Some(version), None] = parts else {
            return Err(invalid("the request line"));
        };
        let is_http10 = version == "HTTP/1.0";
        let has_host = is_http10 || head.value("host").is_some();
        let is_token = !method.is_empty() && method.bytes().all(is_token_byte);
        if !is_token || !(is_http10 || version == "HTTP/1.1") || !has_host {
            return Err(invalid("the request line, or no host"));
        }
        let mut segments = target.rsplit('/');
        let id = segments.next().unwrap_or_default().to_owned();
        let kind = Kind::named(segments.next().unwrap_or_default());
        let method = method.to_owned();
        let framing = head.framing()?;
        if is_http10 && framing == Framing::Chunked {
            return Err(invalid("chunks in HTTP/1.0"));
        }
        if !is_http10 && head.lists("expect", "100-continue") {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            writing
                .write_all(interim)
                .await
                .map_err(|_| ReadError::Ended)?;
        }
        let body = match framing {
            Framing::Unframed => Vec::new(),
            Framing::Sized(length) => reader.sized(length).await?,
            Framing::Chunked => reader.chunked().await?,
        };
        Ok(Self {
            head,
            method,
            is_http10,
            kind,
            id,
            body,
        })
    }

    fn switches(&self) -> bool {
        let switches = self.kind == Kind::Switching && !self.is_http10 && self.method == "GET";
        let is_upgrade = self.head.lists("connection", "upgrade");
        switches && is_upgrade && self.head.lists("upgrade", "websocket")
    }

    /// Returns the response, and whether the connection closes behind it.
    fn response(&self) -> (Vec<u8>, bool) {
        let id = &self.id;
        if self.switches() {
            let switched = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-id: {id}\r\n\r\n"
            );
            return (switched.into_bytes(), false);
        }
        let mut body = self.kind.body(id, &self.method, &self.body);
        let framing = self.kind.framing(body.len(), self.is_http10);
        let keeps = if self.is_http10 {
            self.head.lists("connection", "keep-alive")
        } else {
            !self.head.lists("connection", "close")
        };
        let has_no_content = self.method == "HEAD" || [204, 304].contains(&self.kind.status());
        let closes = !keeps || (framing == Framing::Unframed && !has_no_content);
        if framing == Framing::Chunked {
            body = in_chunks(&body);
        }
        let mut response = format!(
            "HTTP/1.1 {} As-Specified\r\nx-id: {id}\r\n",
            self.kind.status()
        );
        match framing {
            Framing::Unframed => {}
            Framing::Sized(length) => response += &format!("content-length: {length}\r\n"),
            Framing::Chunked => response += "transfer-encoding: chunked\r\n",
        }
        if closes {
            response += "connection: close\r\n";
        } else if self.is_http10 {
            response += "connection: keep-alive\r\n";
        }
        response += "\r\n";
        let mut response = response.into_bytes();
        if !has_no_content {
            response.extend(body);
        }
        (response, closes)
    }
}

/// Encodes a body in chunks of increasing size.
fn in_chunks(mut body: &[u8]) -> Vec<u8> {
    let (mut chunks, mut size) = (Vec::new(), 7);
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(size.min(body.len()));
        chunks.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunks.extend([chunk, b"\r\n"].concat());
        (body, size) = (rest, size * 5);
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}
