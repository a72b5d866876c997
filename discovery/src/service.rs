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
use crate::removal::Vanished;
use crate::{Error, NodeRegistry, ServiceName, ServiceNode, Snapshot, View};

/// Lists are taken no more often than this. A change after a quiet time is seen at once; of many in a
/// row each waits so long at most, and a whole list for each of them would be too dear.
const PACE: Duration = Duration::from_millis(20);

/// More nodes than this that join or leave at once are told as a number.
const LINES_PER_CHANGE: usize = 20;

/// Whether there may be a node at this address.
pub(crate) type Allowed = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// One service as a client follows it: a task that keeps its [`View`] up to date, and ends with it.
#[derive(Debug)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    name: ServiceName,
    /// None until the registry answered for the first time.
    view: ArcSwapOption<View>,
    changed: watch::Sender<()>,
}

impl Service {
    pub(crate) fn follow(
        name: ServiceName,
        registry: Arc<dyn NodeRegistry>,
        runtime: &Handle,
        keep_vanished: Duration,
        allowed: Allowed,
    ) -> Self {
        let (view, changed) = (ArcSwapOption::empty(), watch::Sender::new(()));
        let shared = Arc::new(Shared {
            name,
            view,
            changed,
        });
        let task = runtime
            .spawn(shared.clone().follow(registry, keep_vanished, allowed))
            .abort_handle();
        Self { shared, task }
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.shared.name
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Option<Arc<View>>> {
        self.shared.view.load()
    }

    /// Told of every change of the view from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits for the first list.
    pub(crate) async fn ready(&self) {
        let mut changes = self.changes();
        while self.view().is_none() {
            // An error would mean that the sender is gone, and it is ours.
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
    /// Takes list after list. While the registry is away the last one stays, as long as it takes.
    async fn follow(
        self: Arc<Self>,
        registry: Arc<dyn NodeRegistry>,
        keep_vanished: Duration,
        allowed: Allowed,
    ) {
        let mut snapshots = registry.watch(&self.name);
        let mut vanished = Vanished::new(keep_vanished);
        let mut forbidden = HashSet::new();
        let mut listed = Snapshot::default();
        let mut backoff = Backoff::default();
        let mut following = true;
        let mut next_at = tokio::time::Instant::now();
        loop {
            let next = async {
                tokio::time::sleep_until(next_at).await;
                snapshots.next().await
            };
            let item = tokio::select! {
                item = next => item.map(|item| {
                    item.map(|list| self.admit(&list, &allowed, &mut forbidden))
                }),
                () = vanished.expired(), if following => Some(Ok(listed.clone())),
            };
            match item {
                Some(Ok(snapshot)) => {
                    self.update(
                        &vanished.correct(&snapshot, Instant::now()),
                        vanished.kept(),
                    );
                    listed = snapshot;
                    next_at = tokio::time::Instant::now() + PACE;
                    backoff.reset();
                    following = true;
                }
                Some(Err(error)) => {
                    let level = if following { Level::Warn } else { Level::Debug };
                    self.away(&error, level);
                    following = false;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                None => {
                    let error = Error::registry("the registry ended its stream of lists");
                    return self.away(&error, Level::Error);
                }
            }
        }
    }

    /// The list without nodes that are not allowed, which count as skipped. Each is told of once, as
    /// long as it stays.
    fn admit(
        &self,
        list: &Snapshot,
        allowed: &Allowed,
        forbidden: &mut HashSet<SocketAddr>,
    ) -> Snapshot {
        let is_allowed = |node: &&Arc<ServiceNode>| allowed(node.address);
        let (admitted, others): (Vec<_>, Vec<_>) = list.nodes().iter().partition(is_allowed);
        for node in &others {
            if !forbidden.contains(&node.address) {
                let (service, address) = (&self.name, node.address);
                warn!(service:%, address:%; "this address is not allowed for nodes, skipping it");
            }
        }
        *forbidden = others.iter().map(|node| node.address).collect();
        match others.len() {
            0 => list.clone(),
            count => Snapshot::new(admitted.into_iter().cloned(), list.revision())
                .with_skipped(list.skipped() + count),
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
            None => info!(service:%, nodes; "first list from the registry"),
            Some(Some(stale)) => info!(service:%, nodes, stale_for:? = stale; "registry is back"),
            Some(None) => {}
        }
        if changes.joined.len() + changes.left.len() > LINES_PER_CHANGE {
            let (joined, left) = (changes.joined.len(), changes.left.len());
            info!(service:%, joined, left, nodes; "nodes changed");
        } else {
            for node in &changes.left {
                info!(service:%, address:% = node.address, tags:% = node.tags, nodes; "node left");
            }
            for node in &changes.joined {
                info!(service:%, address:% = node.address, tags:% = node.tags, nodes; "node joined");
            }
        }
        self.mark(&view, unconfirmed);
        self.publish(view);
    }

    /// Tells confirmed endpoints and others apart.
    fn mark(&self, view: &View, unconfirmed: &[Arc<ServiceNode>]) {
        let mut newly = 0;
        for endpoint in view.endpoints().iter() {
            let found = unconfirmed.binary_search_by_key(&endpoint.address, |node| node.address);
            let is_so = found.is_ok();
            if is_so != endpoint.is_unconfirmed() {
                newly += usize::from(is_so);
                endpoint.set_unconfirmed(is_so);
            }
        }
        if newly > 0 {
            let service = &self.name;
            warn!(service:%, nodes = newly; "nodes vanished all at once, keeping them for a while");
        }
    }

    fn away(&self, error: &Error, level: Level) {
        let service = &self.name;
        let Some(view) = self.view.load_full() else {
            log!(level, service:%, error:%; "no list from the registry yet, trying until there is");
            return;
        };
        let nodes = view.endpoints().len();
        log!(level, service:%, nodes, error:%; "registry is away, serving the last known nodes");
        if view.stale_for().is_none() {
            self.publish(view.away());
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
    async fn a_change_after_a_quiet_time_is_seen_at_once_and_many_in_a_row_come_together() {
        let (name, registry) = (
            "a".parse::<ServiceName>().unwrap(),
            MemoryRegistry::default(),
        );
        let follow = Arc::new(registry.clone());
        let service = Service::follow(
            name.clone(),
            follow,
            &Handle::current(),
            PACE,
            Arc::new(|_| true),
        );
        let mut changes = service.changes();
        service.ready().await;
        changes.mark_unchanged();
        sleep(PACE).await;

        let began = Instant::now();
        let mut joined = Vec::new();
        let join_each_millisecond = async {
            for port in 1..=100 {
                let node = ServiceNode::new(name.clone(), ([10, 0, 0, 1], port).into());
                joined.push(registry.register(node, PACE));
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
        join(join_each_millisecond, see).await;
        assert!(seen[0] < PACE / 2, "{seen:?}");
        assert!((5..=6).contains(&seen.len()), "{seen:?}");
    }
}
