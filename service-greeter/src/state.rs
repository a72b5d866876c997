use std::net::SocketAddr;
use std::sync::OnceLock;

use discovery::Registration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What all workers know of this instance.
#[derive(Debug)]
pub(crate) struct State {
    listening: SocketAddr,
    advertised: OnceLock<SocketAddr>,
    /// The tag `version`.
    pub(crate) version: Option<String>,
    /// Cancelled when this instance begins to leave.
    pub(crate) draining: CancellationToken,
    /// Whether the registry lists this instance, as soon as it was asked to.
    listed: OnceLock<watch::Receiver<bool>>,
    pub(crate) metrics: Metrics,
}

impl State {
    pub(crate) fn new(listening: SocketAddr, version: Option<String>) -> Self {
        Self {
            listening,
            advertised: OnceLock::new(),
            version,
            draining: CancellationToken::new(),
            listed: OnceLock::new(),
            metrics: Metrics::default(),
        }
    }

    /// The address others know this instance by, and until that is known the one it listens on.
    pub(crate) fn instance(&self) -> SocketAddr {
        *self.advertised.get().unwrap_or(&self.listening)
    }

    /// Whether others may find this instance in the registry.
    pub(crate) fn is_registered(&self) -> bool {
        let listed = self.listed.get().is_some_and(|listed| *listed.borrow());
        listed && !self.draining.is_cancelled()
    }

    /// From now on, for good.
    pub(crate) fn follow(&self, registration: &Registration) {
        let _ = self.listed.set(registration.status());
    }

    /// Found out once, for good.
    pub(crate) fn advertise(&self, address: SocketAddr) {
        let _ = self.advertised.set(address);
    }
}
