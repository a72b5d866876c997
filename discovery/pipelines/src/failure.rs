//! Faults of a server, and the message that is enough to reproduce one.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use crate::pipeline::Pipeline;

/// The maximum number of bytes of each direction in a failure's message.
const MAX_SHOWN_BYTES: usize = 3000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FaultKind {
    /// A response that is not the one to the request, or is no message.
    WrongData,
    /// The connection ended in front of a response or within it.
    LostResponse,
    /// A response behind one that closes the connection.
    ProcessedAfterClose,
    /// A response other than a refusal to what is no request.
    AcceptedJunk,
    /// No `connection: close` where the connection has to end.
    NotClosed,
    /// The connection ends behind a response without a reason, as announced.
    NeedlessClose,
    /// Neither a response nor the end of the connection within the limit.
    Hung,
    /// No connection could be made.
    Unreachable,
}

/// A fault in the responses of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) detail: String,
}

impl FaultKind {
    pub(crate) fn because<T>(self, detail: &str) -> Result<T, Fault> {
        Err(Fault {
            kind: self,
            detail: detail.to_owned(),
        })
    }
}

/// A connection on which a response was not right.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind of the first fault on the connection.
    pub kind: FaultKind,
    /// The seed of the connection's pipeline.
    pub seed: u64,
    detail: String,
    message: String,
}

impl Failure {
    pub(crate) fn new(
        pipeline: &Pipeline,
        fault: &Fault,
        responses: usize,
        received: &[u8],
    ) -> Self {
        let (kind, seed, detail) = (fault.kind, pipeline.seed, &fault.detail);
        let expected = pipeline.exchanges.get(responses).map_or_else(
            || "the end of the connection".to_owned(),
            |exchange| {
                let status = exchange.status;
                let treatment = exchange.treatment;
                format!("{treatment:?} ({status}): {}", exchange.name)
            },
        );
        let message = format!(
            "{kind:?}, {detail}: seed {seed}, response {responses}\nexpected: {expected}\n\
             sent:     {}\nreceived: {}",
            shown(&pipeline.bytes),
            shown(received),
        );
        Self {
            kind,
            seed,
            detail: detail.clone(),
            message,
        }
    }

    pub(crate) fn fault(&self) -> (FaultKind, String) {
        (self.kind, self.detail.clone())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// Escapes bytes, and leaves out those in the middle of many.
fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= MAX_SHOWN_BYTES {
        return bytes.escape_ascii().to_string();
    }
    let (start, end) = (
        &bytes[..MAX_SHOWN_BYTES / 2],
        &bytes[bytes.len() - MAX_SHOWN_BYTES / 2..],
    );
    let left_out = bytes.len() - MAX_SHOWN_BYTES;
    format!(
        "{} [{left_out} bytes] {}",
        start.escape_ascii(),
        end.escape_ascii()
    )
}
