//! Keeping one node registered: the half of a registration that is the same for all registries.
//!
//! A [`Registrar`] has the protocol of one registry, [`Registration::start`] adds the policy: retry without
//! limit with backoff, deregister within a limit. The invariant: one task per registration, owned by the
//! [`Registration`], and no failure ends it. What happens to a node whose process dies is the registry's
//! decision, by its TTL.

use std::fmt;
use std::time::Duration;

use log::{info, warn};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::{Error, ServiceNode};

/// Maximum duration of deregistering.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// The protocol by which one registry keeps one node registered, for implementations of
/// [`NodeRegistry`](crate::NodeRegistry). [`Registration::start`] does the rest, which is to retry without
/// limit.
///
/// [Chapter 9 of the guide](crate::guide#9-a-registry-of-your-own) has a short one.
pub trait Registrar: Send + 'static {
    /// Registers the node, reports that to `status`, and keeps it registered. Returns the error that ended
    /// or prevented the registration. Called again after a while, with jitter; dropped at any await.
    ///
    /// The first call takes over an entry that exists already: its owner cannot be listening at the same
    /// address. Later calls leave the entry of another owner alone, which is a new process.
    fn maintain(&mut self, status: &RegistrationStatus) -> impl Future<Output = Error> + Send;

    /// Removes the node from the registry, whatever [`maintain`](Self::maintain) was doing. Must not remove
    /// the entry of another owner: a new process may have registered the same address. It has three
    /// seconds.
    ///
    /// # Errors
    /// If the registry did not confirm the removal.
    fn deregister(self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Where a [`Registrar`] reports that its node is registered.
#[derive(Debug)]
pub struct RegistrationStatus {
    node: ServiceNode,
    is_registered: watch::Sender<bool>,
}

impl RegistrationStatus {
    /// Reports that watches contain the node from now on. Repeated calls have no effect.
    pub fn set_registered(&self) {
        if self.is_registered.send_replace(true) {
            return;
        }
        let ServiceNode {
            service,
            address,
            tags,
            ..
        } = &self.node;
        info!(service:%, address:%, tags:%; "registered");
    }
}

/// A node's entry in a registry, renewed for as long as this lives.
///
/// [Chapter 2 of the guide](crate::guide#2-registering) shows one that is late.
///
/// [`deregister`](Self::deregister) removes the node. Dropping a registration merely stops the renewals, as
/// the process's death would: the registry removes the node when its TTL is over.
pub struct Registration {
    is_registered: watch::Receiver<bool>,
    deregister: oneshot::Sender<()>,
    task: OwnedTask<Result<(), Error>>,
}

impl Registration {
    /// Keeps a node registered by a registry's `registrar`, until this is deregistered or dropped.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: it spawns a task.
    pub fn start(node: ServiceNode, registrar: impl Registrar) -> Self {
        let (sender, is_registered) = watch::channel(false);
        let (deregister, deregistering) = oneshot::channel();
        let status = RegistrationStatus {
            node,
            is_registered: sender,
        };
        let task = OwnedTask(tokio::spawn(run(registrar, status, deregistering)));
        Self {
            is_registered,
            deregister,
            task,
        }
    }

    /// Returns true if the node is registered, by the registry's last response.
    pub fn is_registered(&self) -> bool {
        *self.is_registered.borrow()
    }

    /// Returns a receiver of [`is_registered`](Self::is_registered). It does not keep the node registered.
    pub fn status(&self) -> watch::Receiver<bool> {
        self.is_registered.clone()
    }

    /// Waits until the node is registered.
    pub async fn registered(&self) {
        // An error would mean that the task ended, which only deregistering or dropping does.
        let _ = self.is_registered.clone().wait_for(|is| *is).await;
    }

    /// Removes the node from the registry, so that clients choose another one. Serve on for a moment:
    /// requests may be on their way, and clients retain nodes for a while when most of a service's nodes
    /// are removed at once.
    ///
    /// # Errors
    /// [`Error::Registry`] if the registry did not confirm the removal within three seconds. It removes
    /// the node when its TTL is over.
    pub async fn deregister(mut self) -> Result<(), Error> {
        let _ = self.deregister.send(()); // fails if the task panicked, which the next line reports
        (&mut self.task.0)
            .await
            .map_err(|panic| Error::registry(panic.to_string()))?
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("registered", &self.is_registered())
            .finish()
    }
}

/// A task that ends with its owner.
struct OwnedTask<T>(JoinHandle<T>);

impl<T> Drop for OwnedTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(
    mut registrar: impl Registrar,
    status: RegistrationStatus,
    mut deregistering: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    let mut failures = 0;
    loop {
        let error = tokio::select! {
            _ = &mut deregistering => break,
            error = registrar.maintain(&status) => error,
        };
        if status.is_registered.send_replace(false) {
            backoff.reset();
            failures = 0;
        }
        failures += 1;
        let (service, address) = (&status.node.service, status.node.address);
        if failures == 1 {
            warn!(service:%, address:%, error:%; "not registered, retrying");
        } else {
            log::debug!(service:%, address:%, error:%; "still not registered");
        }
        tokio::select! {
            _ = &mut deregistering => break,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
    tokio::time::timeout(DEREGISTER_TIMEOUT, registrar.deregister())
        .await
        .unwrap_or_else(|_| Err(Error::registry("deregistering: no response in time")))
}
