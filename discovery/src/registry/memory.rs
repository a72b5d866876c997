use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::{NodeRegistry, SnapshotStream};
use crate::registration::{Keeper, Registered, Registration};
use crate::{Error, ServiceName, ServiceNode, Snapshot};

/// A registry in this process: for tests and examples. It is never away, and what it lists vanishes
/// with its registration. [Chapter 8 of the guide](crate::guide#8-testing-a-service-of-your-own) tests with it.
///
/// Cheap to clone: clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry {
    table: Arc<watch::Sender<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    revision: u64,
    /// By service and address. The number tells apart those who registered one address in turn.
    entries: BTreeMap<(ServiceName, SocketAddr), (u64, Arc<ServiceNode>)>,
}

impl NodeRegistry for MemoryRegistry {
    fn register(&self, node: ServiceNode, _ttl: Duration) -> Registration {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            table: self.table.clone(),
            node: Arc::new(node.clone()),
            number,
        };
        Registration::keep(node, entry)
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        let mut changes = self.table.subscribe();
        changes.mark_changed(); // the first list is there without a change
        // The sender is kept beside its receiver, so that waiting for a change never fails.
        let state = (self.table.clone(), changes, service.clone(), None);
        stream::unfold(state, |(table, mut changes, service, last)| async move {
            loop {
                changes.changed().await.ok()?;
                let snapshot = changes.borrow_and_update().snapshot(&service);
                if last
                    .as_ref()
                    .is_none_or(|last: &Snapshot| !last.same_as(&snapshot))
                {
                    return Some((
                        Ok(snapshot.clone()),
                        (table, changes, service, Some(snapshot)),
                    ));
                }
            }
        })
        .boxed()
    }
}

impl Table {
    fn snapshot(&self, service: &ServiceName) -> Snapshot {
        let nodes = self.entries.iter().filter(|((name, _), _)| name == service);
        Snapshot::new(nodes.map(|(_, (_, node))| node.clone()), self.revision)
    }
}

/// One registration's line in the table: gone when this is dropped, unless a successor has it.
struct Entry {
    table: Arc<watch::Sender<Table>>,
    node: Arc<ServiceNode>,
    number: u64,
}

impl Entry {
    fn key(&self) -> (ServiceName, SocketAddr) {
        (self.node.service.clone(), self.node.address)
    }
}

impl Keeper for Entry {
    async fn hold(&mut self, registered: &Registered) -> Error {
        self.table.send_modify(|table| {
            table.revision += 1;
            table
                .entries
                .insert(self.key(), (self.number, self.node.clone()));
        });
        registered.now();
        std::future::pending().await
    }

    async fn leave(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let key = self.key();
        self.table.send_if_modified(|table| {
            let ours = table
                .entries
                .get(&key)
                .is_some_and(|(number, _)| *number == self.number);
            if ours {
                table.revision += 1;
                table.entries.remove(&key);
            }
            ours
        });
    }
}
