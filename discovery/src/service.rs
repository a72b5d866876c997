use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use log::{Level, info, log};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::{Error, NodeRegistry, ServiceName, Snapshot, View};

/// More nodes than this that join or leave at once are told as a number.
const LINES_PER_CHANGE: usize = 20;

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
    ) -> Self {
        let (view, changed) = (ArcSwapOption::empty(), watch::Sender::new(()));
        let shared = Arc::new(Shared {
            name,
            view,
            changed,
        });
        let task = runtime
            .spawn(shared.clone().follow(registry))
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
    async fn follow(self: Arc<Self>, registry: Arc<dyn NodeRegistry>) {
        let mut snapshots = registry.watch(&self.name);
        let mut backoff = Backoff::default();
        let mut following = true;
        while let Some(item) = snapshots.next().await {
            match item {
                Ok(snapshot) => {
                    self.update(&snapshot);
                    backoff.reset();
                    following = true;
                }
                Err(error) => {
                    let level = if following { Level::Warn } else { Level::Debug };
                    self.away(&error, level);
                    following = false;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    fn update(&self, snapshot: &Snapshot) {
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
        self.publish(view);
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
