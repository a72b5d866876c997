use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

/// What all workers know of this instance.
#[derive(Debug)]
pub(crate) struct State {
    listening: SocketAddr,
    advertised: OnceLock<SocketAddr>,
    /// The tag `version`.
    pub(crate) version: Option<String>,
    /// Cancelled when this instance begins to leave.
    pub(crate) draining: CancellationToken,
}

impl State {
    pub(crate) fn new(listening: SocketAddr, version: Option<String>) -> Self {
        Self {
            listening,
            advertised: OnceLock::new(),
            version,
            draining: CancellationToken::new(),
        }
    }

    /// The address others know this instance by, and until that is known the one it listens on.
    pub(crate) fn instance(&self) -> SocketAddr {
        *self.advertised.get().unwrap_or(&self.listening)
    }

    /// Found out once, for good.
    pub(crate) fn advertise(&self, address: SocketAddr) {
        let _ = self.advertised.set(address);
    }
}
