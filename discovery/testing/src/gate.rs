//! A registry that lets no snapshot through while it is shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use discovery::{NodeRegistry, Registration, ServiceName, ServiceNode, SnapshotStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

/// A registry in front of another. It counts the watches, and lets no snapshot through while it is
/// shut.
#[derive(Debug)]
pub struct Gate {
    behind: Arc<dyn NodeRegistry>,
    open: watch::Sender<bool>,
    begun: AtomicUsize,
    /// Cloned into every watch, so that the count shows those that still run.
    watch: Arc<()>,
}

impl Gate {
    /// Creates an open one.
    pub fn open(behind: Arc<dyn NodeRegistry>) -> Arc<Self> {
        let gate = Self::shut(behind);
        gate.let_through();
        gate
    }

    /// Creates one that is shut.
    pub fn shut(behind: Arc<dyn NodeRegistry>) -> Arc<Self> {
        Arc::new(Self {
            behind,
            open: watch::Sender::new(false),
            begun: AtomicUsize::new(0),
            watch: Arc::default(),
        })
    }

    /// Opens it.
    pub fn let_through(&self) {
        self.open.send_replace(true);
    }

    /// Returns the number of watches that were started.
    pub fn watches_begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns the number of watches that still run.
    pub fn watches(&self) -> usize {
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
            let _ = open.wait_for(|open| *open).await; // fails when the gate is dropped, and the watch with it
            snapshots.inspect(move |_| _ = &watch)
        }
        .flatten_stream()
        .boxed()
    }
}
