use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use discovery::{NodeRegistry, Registration, ServiceName, ServiceNode, SnapshotStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

/// A registry in front of another: it counts the watches, and while its gate is shut no list comes
/// through.
#[derive(Debug)]
pub(crate) struct Gate {
    behind: Arc<dyn NodeRegistry>,
    open: watch::Sender<bool>,
    begun: AtomicUsize,
    /// Held by every watch that goes on.
    watch: Arc<()>,
}

impl Gate {
    pub(crate) fn open(behind: Arc<dyn NodeRegistry>) -> Arc<Self> {
        let gate = Self::shut(behind);
        gate.let_through();
        gate
    }

    pub(crate) fn shut(behind: Arc<dyn NodeRegistry>) -> Arc<Self> {
        Arc::new(Self {
            behind,
            open: watch::Sender::new(false),
            begun: AtomicUsize::new(0),
            watch: Arc::default(),
        })
    }

    pub(crate) fn let_through(&self) {
        self.open.send_replace(true);
    }

    /// How many watches were ever begun.
    pub(crate) fn watches_begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// How many watches go on.
    pub(crate) fn watches(&self) -> usize {
        Arc::strong_count(&self.watch) - 1
    }
}

impl NodeRegistry for Gate {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        self.behind.register(node, ttl)
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let (mut open, watch) = (self.open.subscribe(), self.watch.clone());
        let snapshots = self.behind.watch(service);
        async move {
            let _ = open.wait_for(|open| *open).await; // fails with the gate, and then nobody waits
            snapshots.inspect(move |_| _ = &watch)
        }
        .flatten_stream()
        .boxed()
    }
}
