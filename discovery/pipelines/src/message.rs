//! A strict reader of HTTP/1.1 messages. It shares no code with the servers under test.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The maximum size of a head in bytes.
const MAX_HEAD_BYTES: usize = 96 << 10;

/// The reason why a message could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection ended before the message did.
    Ended,
    /// The bytes are no message.
    Invalid(String),
}

/// The framing of a body, as its head announces it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    /// Neither `content-length` nor `transfer-encoding`.
    Unframed,
    Sized(usize),
    Chunked,
}

/// A start line and header fields. Names are in lower case.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) start: String,
    fields: Vec<(String, String)>,
}

/// One direction of a connection, with the bytes received so far.
pub(crate) struct Reader<S> {
    stream: S,
    received: Vec<u8>,
    /// The offset of the first byte that no message has consumed.
    consumed: usize,
    /// The connection ended with a reset.
    pub(crate) is_reset: bool,
}

impl Head {
    fn parse(text: &[u8]) -> Result<Self, ReadError> {
        let text = str::from_utf8(text).map_err(|_| invalid("a byte outside of ASCII"))?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
            return Err(invalid("a control character in the head"));
        }
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Self { start, fields })
    }

    /// Returns the values of all fields of this name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter(move |field| field.0 == name);
        fields.map(|field| field.1.as_str())
    }

    /// Returns the value of the only field of this name.
    pub(crate) fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Returns whether a field of this name lists `token`.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        let mut members = self.values(name).flat_map(|value| value.split(','));
        members.any(|member| member.trim().eq_ignore_ascii_case(token))
    }

    /// Returns the framing of the body.
    ///
    /// # Errors
    /// If it is ambiguous or unsupported.
    pub(crate) fn framing(&self) -> Result<Framing, ReadError> {
        let codings: Vec<_> = self.values("transfer-encoding").collect();
        let lengths: Vec<_> = self.values("content-length").collect();
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(Framing::Unframed),
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| invalid("the content-length"))?;
                Ok(Framing::Sized(length))
            }
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            _ => Err(invalid("the framing")),
        }
    }
}

fn field(line: &str) -> Result<(String, String), ReadError> {
    let (name, value) = line.split_once(':').ok_or(invalid("a field without ':'"))?;
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(invalid("a field name"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Returns whether a token may contain this byte.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn invalid(what: &str) -> ReadError {
    ReadError::Invalid(format!("invalid: {what}"))
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
            consumed: 0,
            is_reset: false,
        }
    }

    /// Returns the bytes received so far.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Returns the bytes that were received and not consumed.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.received[self.consumed..]
    }

    /// Forgets the bytes that have been consumed.
    pub(crate) fn forget(&mut self) {
        self.received.drain(..self.consumed);
        self.consumed = 0;
    }

    /// Receives more bytes.
    async fn receive(&mut self) -> Result<(), ReadError> {
        match self.stream.read_buf(&mut self.received).await {
            Ok(1..) => Ok(()),
            ended => {
                let reset = ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
                self.is_reset |= reset;
                Err(ReadError::Ended)
            }
        }
    }

    /// Consumes `length` bytes.
    pub(crate) async fn sized(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        while self.pending().len() < length {
            self.receive().await?;
        }
        let bytes = self.pending()[..length].to_vec();
        self.consumed += length;
        Ok(bytes)
    }

    /// Consumes bytes to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.receive().await.is_ok() {}
        let rest = self.pending().to_vec();
        self.consumed = self.received.len();
        rest
    }

    /// Consumes bytes up to and with `end`. Returns those in front of it.
    async fn until(&mut self, end: &str, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(end.len());
            let mut windows = self.pending()[from..].windows(end.len());
            if let Some(offset) = windows.position(|window| window == end.as_bytes()) {
                let bytes = self.sized(from + offset + end.len()).await?;
                return Ok(bytes[..from + offset].to_vec());
            }
            searched = self.pending().len();
            if searched > limit {
                return Err(invalid("too large"));
            }
            self.receive().await?;
        }
    }

    /// Consumes the head of the next message, with one empty line in front of a request.
    pub(crate) async fn head(&mut self) -> Result<Head, ReadError> {
        while self.pending().len() < 2 {
            self.receive().await?;
        }
        if self.pending().starts_with(b"\r\n") {
            self.consumed += 2;
        }
        Head::parse(&self.until("\r\n\r\n", MAX_HEAD_BYTES).await?)
    }

    /// Consumes a body of chunks, with its trailer section. Returns the data.
    pub(crate) async fn chunked(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut data = Vec::new();
        loop {
            let line = self.until("\r\n", 200).await?;
            let line = String::from_utf8(line).map_err(|_| invalid("a chunk size"))?;
            let size = line.split_once(';').map_or(line.as_str(), |split| split.0);
            let is_hex =
                (1..=8).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
            let size = usize::from_str_radix(size, 16).ok().filter(|_| is_hex);
            let size = size.ok_or(invalid("a chunk size"))?;
            if size == 0 {
                break;
            }
            data.extend(self.sized(size).await?);
            if self.sized(2).await? != b"\r\n" {
                return Err(invalid("the end of a chunk"));
            }
        }
        loop {
            let line = self.until("\r\n", MAX_HEAD_BYTES).await?;
            if line.is_empty() {
                return Ok(data);
            }
            field(&String::from_utf8_lossy(&line))?;
        }
    }
}
