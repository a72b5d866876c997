//! One watched service: the task that turns a registry's snapshots into views.
//!
//! The policy that all registries need is here, once: address filter, mass-removal protection, a minimum
//! interval between updates, backoff, and the last known view while the registry is disconnected
//! (static stability). The invariant: a view is never replaced by nothing. One task per service, owned by
//! [`Service`]; the protocols are in `registry/`, the choice of a node in `resolver.rs`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use log::{Level, info, log, warn};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::removal::RemovalProtection;
use crate::{Error, NodeRegistry, ServiceName, ServiceNode, Snapshot, View};

/// Minimum interval between updates. A single change is applied at once, bursts are coalesced: a new view
/// for each change of a burst would cost too much.
const MIN_UPDATE_INTERVAL: Duration = Duration::from_millis(20);

/// Maximum number of nodes that are logged one by one in an update. Of more only the number is logged.
const MAX_LINES_PER_UPDATE: usize = 20;

/// Returns true for addresses that nodes may have.
pub(crate) type AddressFilter = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// A watched service: a task that keeps its [`View`] up to date. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    name: ServiceName,
    /// `None` before the initial snapshot.
    view: ArcSwapOption<View>,
    changed: watch::Sender<()>,
}

impl Service {
    pub(crate) fn start(
        name: ServiceName,
        registry: Arc<dyn NodeRegistry>,
        runtime: &Handle,
        retention: Duration,
        allowed: AddressFilter,
    ) -> Self {
        let (view, changed) = (ArcSwapOption::empty(), watch::Sender::new(()));
        let shared = Arc::new(Shared {
            name,
            view,
            changed,
        });
        let task = runtime
            .spawn(shared.clone().run(registry, retention, allowed))
            .abort_handle();
        Self { shared, task }
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.shared.name
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Option<Arc<View>>> {
        self.shared.view.load()
    }

    /// Returns a receiver that is notified of every later change of the view.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits for the initial snapshot.
    pub(crate) async fn ready(&self) {
        let mut changes = self.changes();
        while self.view().is_none() {
            // An error would mean that the sender is gone, which `self` owns.
            let _ = changes.changed().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Applies snapshot after snapshot. While the registry is disconnected the last view stays.
    async fn run(
        self: Arc<Self>,
        registry: Arc<dyn NodeRegistry>,
        retention: Duration,
        allowed: AddressFilter,
    ) {
        let mut snapshots = registry.watch(&self.name);
        let mut protection = RemovalProtection::new(retention);
        let mut forbidden = HashSet::new();
        let mut last = Snapshot::default();
        let mut backoff = Backoff::default();
        let mut is_connected = true;
        let mut next_at = tokio::time::Instant::now();
        loop {
            let next = async {
                tokio::time::sleep_until(next_at).await;
                snapshots.next().await
            };
            let item = tokio::select! {
                item = next => item.map(|item| {
                    item.map(|snapshot| self.admit(&snapshot, &allowed, &mut forbidden))
                }),
                () = protection.expired(), if is_connected => Some(Ok(last.clone())),
            };
            match item {
                Some(Ok(snapshot)) => {
                    let protected = protection.apply(&snapshot, Instant::now());
                    self.update(&protected, protection.retained());
                    last = snapshot;
                    next_at = tokio::time::Instant::now() + MIN_UPDATE_INTERVAL;
                    backoff.reset();
                    is_connected = true;
                }
                Some(Err(error)) => {
                    let level = if is_connected {
                        Level::Warn
                    } else {
                        Level::Debug
                    };
                    self.disconnect(&error, level);
                    is_connected = false;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                None => {
                    let error = Error::registry("the registry ended its stream of snapshots");
                    return self.disconnect(&error, Level::Error);
                }
            }
        }
    }

    /// Returns the snapshot without nodes at addresses that are not allowed. They count as skipped. Each is
    /// logged once for as long as it is registered.
    fn admit(
        &self,
        snapshot: &Snapshot,
        allowed: &AddressFilter,
        forbidden: &mut HashSet<SocketAddr>,
    ) -> Snapshot {
        let is_allowed = |node: &&Arc<ServiceNode>| allowed(node.address);
        let (admitted, others): (Vec<_>, Vec<_>) = snapshot.nodes().iter().partition(is_allowed);
        for node in &others {
            if !forbidden.contains(&node.address) {
                let (service, address) = (&self.name, node.address);
                warn!(service:%, address:%; "ignoring node at an address that is not allowed");
            }
        }
        *forbidden = others.iter().map(|node| node.address).collect();
        match others.len() {
            0 => snapshot.clone(),
            count => Snapshot::new(admitted.into_iter().cloned(), snapshot.revision())
                .with_skipped(snapshot.skipped() + count),
        }
    }

    fn update(&self, snapshot: &Snapshot, unconfirmed: &[Arc<ServiceNode>]) {
        let old = self.view.load();
        let (service, nodes) = (&self.name, snapshot.nodes().len());
        let (view, changes) = match old.as_deref() {
            Some(old) => old.next(snapshot),
            None => View::default().next(snapshot),
        };
        match old.as_deref().map(View::stale_for) {
            None => info!(service:%, nodes; "initial snapshot received"),
            Some(Some(stale)) => {
                info!(service:%, nodes, stale_for:? = stale; "registry reconnected");
            }
            Some(None) => {}
        }
        if changes.added.len() + changes.removed.len() > MAX_LINES_PER_UPDATE {
            let (added, removed) = (changes.added.len(), changes.removed.len());
            info!(service:%, added, removed, nodes; "nodes changed");
        } else {
            for node in &changes.removed {
                info!(service:%, address:% = node.address, tags:% = node.tags, nodes; "node removed");
            }
            for node in &changes.added {
                info!(service:%, address:% = node.address, tags:% = node.tags, nodes; "node added");
            }
        }
        self.mark(&view, unconfirmed);
        self.publish(view);
    }

    /// Marks endpoints that the registry no longer confirms.
    fn mark(&self, view: &View, unconfirmed: &[Arc<ServiceNode>]) {
        let mut retained = 0;
        for endpoint in view.endpoints().iter() {
            let found = unconfirmed.binary_search_by_key(&endpoint.address, |node| node.address);
            let is_unconfirmed = found.is_ok();
            if is_unconfirmed != endpoint.is_unconfirmed() {
                retained += usize::from(is_unconfirmed);
                endpoint.set_unconfirmed(is_unconfirmed);
            }
        }
        if retained > 0 {
            let service = &self.name;
            warn!(service:%, nodes = retained; "mass removal, retaining unconfirmed nodes");
        }
    }

    /// Marks the view as stale.
    fn disconnect(&self, error: &Error, level: Level) {
        let service = &self.name;
        let Some(view) = self.view.load_full() else {
            log!(level, service:%, error:%; "no snapshot from the registry yet, retrying");
            return;
        };
        let nodes = view.endpoints().len();
        log!(level, service:%, nodes, error:%; "registry disconnected, serving the last known nodes");
        if view.stale_for().is_none() {
            self.publish(view.disconnected());
        }
    }

    fn publish(&self, view: View) {
        self.view.store(Some(Arc::new(view)));
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryRegistry;
    use futures_util::future::join;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn a_single_change_is_applied_at_once_bursts_are_coalesced() {
        let (name, registry) = (
            "a".parse::<ServiceName>().unwrap(),
            MemoryRegistry::default(),
        );
        let watched = Arc::new(registry.clone());
        let service = Service::start(
            name.clone(),
            watched,
            &Handle::current(),
            MIN_UPDATE_INTERVAL,
            Arc::new(|_| true),
        );
        let mut changes = service.changes();
        service.ready().await;
        changes.mark_unchanged();
        sleep(MIN_UPDATE_INTERVAL).await;

        let began = Instant::now();
        let mut registrations = Vec::new();
        let add_each_millisecond = async {
            for port in 1..=100 {
                let node = ServiceNode::new(name.clone(), ([10, 0, 0, 1], port).into());
                registrations.push(registry.register(node, MIN_UPDATE_INTERVAL));
                sleep(Duration::from_millis(1)).await;
            }
        };
        let mut seen = Vec::new();
        let see = async {
            while service.view().as_ref().unwrap().endpoints().len() < 100 {
                changes.changed().await.unwrap();
                seen.push(began.elapsed());
            }
        };
        join(add_each_millisecond, see).await;
        assert!(seen[0] < MIN_UPDATE_INTERVAL / 2, "{seen:?}");
        assert!((5..=6).contains(&seen.len()), "{seen:?}");
    }
}
