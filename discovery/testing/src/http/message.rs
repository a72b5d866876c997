use serde_json::Value;

/// A request or a response as it was on the wire.
#[derive(Clone, Debug)]
pub struct Message {
    /// The start line: `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start: String,
    /// The header fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content, without its framing.
    pub body: Vec<u8>,
    /// True if the body was complete, by its framing.
    pub whole: bool,
}

impl Message {
    /// Parses the start line and the header fields, given without the empty line.
    pub fn from_head(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            start,
            headers: lines.map(header).collect(),
            body: Vec::new(),
            whole: false,
        }
    }

    /// Returns the status of a response.
    pub fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).unwrap();
        status.parse().unwrap()
    }

    /// Returns the only value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} is repeated: {values:?}");
        values.first().copied()
    }

    /// Returns every value of a header field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// Returns the content as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Parses the content as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a complete problem of the gateway itself, with this reason.
    #[track_caller]
    pub fn is_refused(&self, status: u16, reason: &str, attempts: u64) {
        assert_eq!(self.status(), status, "{self:?}");
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["reason"], reason, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["attempts"], attempts, "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        assert_ne!(problem["detail"].as_str().unwrap(), "", "{problem}");
        let counted = attempts.to_string();
        assert_eq!(self.header("x-gateway-attempts"), Some(counted.as_str()));
        let retry_after = (status == 503).then_some("1");
        assert_eq!(self.header("retry-after"), retry_after);
    }

    /// Checks that this is a node's response, 200 and complete.
    #[track_caller]
    pub fn is_ok(&self, body: impl AsRef<[u8]>) {
        assert_eq!(self.status(), 200, "{self:?}");
        assert!(self.whole, "{self:?}");
        assert!(self.body == body.as_ref(), "{self:?}");
    }

    /// Returns the framing of the body.
    pub(super) fn framing(&self) -> Framing {
        match (self.header("transfer-encoding"), self.all("content-length")) {
            (Some("chunked"), lengths) if lengths.is_empty() => Framing::Chunks,
            (None, lengths) if lengths.is_empty() => Framing::Unknown,
            (None, lengths) if lengths.len() == 1 => Framing::Length(lengths[0].parse().unwrap()),
            unclear => panic!("unclear framing: {unclear:?} in {self:?}"),
        }
    }

    /// Returns true for `connection: close`.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.contains("close"))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    Length(usize),
    Chunks,
    Unknown,
}
