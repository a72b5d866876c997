//! A request as sent, and the response that is right for it.

/// The treatment of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Treatment {
    /// Its own response.
    Served,
    /// A client error with `connection: close`: the server cannot parse it.
    Refused,
    /// Either of them, and the end of the connection: the framing is ambiguous.
    ServedOrRefused,
}

/// The content of a response.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The whole body.
    Exactly(Vec<u8>),
    /// Texts that the body contains.
    Containing(Vec<String>),
}

/// A request and the response that is right for it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The description in the message of a failure.
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) method: &'static str,
    pub(crate) is_http10: bool,
    /// The client closes the connection behind the response: `connection: close`, or HTTP/1.0
    /// without keep-alive.
    pub(crate) closes: bool,
    /// The server may close the connection behind the response without being requested to.
    pub(crate) may_close: bool,
    pub(crate) expects_continue: bool,
    /// Requests a WebSocket, so that 101 is right too.
    pub(crate) is_upgrade: bool,
    pub(crate) treatment: Treatment,
    pub(crate) status: u16,
    pub(crate) content: Content,
}

impl Content {
    /// Returns whether a body is only the beginning of this content.
    pub(crate) fn is_cut(&self, body: &[u8]) -> bool {
        match self {
            Self::Exactly(expected) => body.len() < expected.len() && expected.starts_with(body),
            Self::Containing(_) => false,
        }
    }

    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        match self {
            Self::Exactly(expected) => body == expected,
            Self::Containing(texts) => {
                let body = String::from_utf8_lossy(body);
                texts.iter().all(|text| body.contains(text))
            }
        }
    }
}
