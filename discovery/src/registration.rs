use std::fmt;
use std::time::Duration;

use log::{info, warn};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::{Error, ServiceNode};

/// How long leaving may take when the registry does not answer.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What a registry does to keep one node listed: the half of [`NodeRegistry`](crate::NodeRegistry)
/// that is its own. [`Registration::keep`] does the rest, which is to try again for ever.
///
/// [Chapter 9 of the guide](crate::guide#9-a-registry-of-your-own) has a short one.
pub trait Keeper: Send + 'static {
    /// Lists the node, tells `registered`, and stays as long as it is listed. Returns why it is
    /// not any more, or could not be. Called again after a while, with jitter; dropped at any await.
    ///
    /// The first time, an entry that is there already is taken over: whoever wrote it cannot be
    /// listening where we are. Afterwards another owner is a successor and is left alone.
    fn hold(&mut self, registered: &Registered) -> impl Future<Output = Error> + Send;

    /// Takes the node off the list, whatever [`hold`](Self::hold) was doing, and nobody else's: a
    /// successor may have registered the same address. It has three seconds.
    ///
    /// # Errors
    /// If the registry did not confirm it.
    fn leave(self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Where a [`Keeper`] tells that its node is listed.
#[derive(Debug)]
pub struct Registered {
    node: ServiceNode,
    state: watch::Sender<bool>,
}

impl Registered {
    /// Whoever watches sees the node from now on. Telling it again changes nothing.
    pub fn now(&self) {
        if self.state.send_replace(true) {
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

/// A node's place in a registry: kept for as long as this lives.
///
/// [Chapter 2 of the guide](crate::guide#2-registering) shows one that is late.
///
/// [`leave`](Self::leave) takes the node off the list. Dropping it merely stops keeping it, as the
/// process's death would: it vanishes when its time to live is over.
pub struct Registration {
    state: watch::Receiver<bool>,
    leave: oneshot::Sender<()>,
    task: OwnedTask<Result<(), Error>>,
}

impl Registration {
    /// Keeps a node listed with a registry's `keeper`, until this leaves or is dropped.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: a task does it.
    pub fn keep(node: ServiceNode, keeper: impl Keeper) -> Self {
        let (sender, state) = watch::channel(false);
        let (leave, leaving) = oneshot::channel();
        let registered = Registered {
            node,
            state: sender,
        };
        let task = OwnedTask(tokio::spawn(keep(keeper, registered, leaving)));
        Self { state, leave, task }
    }

    /// Whether the node is listed, as far as the registry said last.
    pub fn is_registered(&self) -> bool {
        *self.state.borrow()
    }

    /// The same, for somebody who wants to know it later and does not keep the node listed.
    pub fn listed(&self) -> watch::Receiver<bool> {
        self.state.clone()
    }

    /// Waits until the node is listed.
    pub async fn registered(&self) {
        // An error would mean that the task ended, and only leaving or dropping ends it.
        let _ = self.state.clone().wait_for(|listed| *listed).await;
    }

    /// Takes the node off the list, so that whoever watches chooses another. Serve on for a moment:
    /// requests may be on their way, and clients may doubt it when most of a service's nodes vanish
    /// at once.
    ///
    /// # Errors
    /// [`Error::Registry`] if the registry did not confirm it within three seconds. The node then
    /// vanishes when its time to live is over.
    pub async fn leave(mut self) -> Result<(), Error> {
        let _ = self.leave.send(()); // the task may have panicked: the next line tells
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

/// A task that ends when its owner goes.
struct OwnedTask<T>(JoinHandle<T>);

impl<T> Drop for OwnedTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep(
    mut keeper: impl Keeper,
    registered: Registered,
    mut leaving: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    let mut failures = 0;
    loop {
        let lost = tokio::select! {
            _ = &mut leaving => break,
            lost = keeper.hold(&registered) => lost,
        };
        if registered.state.send_replace(false) {
            backoff.reset();
            failures = 0;
        }
        failures += 1;
        let ServiceNode {
            service, address, ..
        } = &registered.node;
        match failures {
            1 => warn!(service:%, address:%, error:% = lost; "not registered, trying until it is"),
            _ => log::debug!(service:%, address:%, error:% = lost; "still not registered"),
        }
        tokio::select! {
            _ = &mut leaving => break,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
    tokio::time::timeout(LEAVE_LIMIT, keeper.leave())
        .await
        .unwrap_or_else(|_| Err(Error::registry("no answer to the request to leave")))
}
