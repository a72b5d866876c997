//! A registry in the memory of one process: a table behind a `tokio::sync::watch` channel.
//!
//! The smallest implementation of [`NodeRegistry`], and the model for the others. Its invariant: an entry is
//! in the table exactly as long as its registration lives. It has no TTL and is never disconnected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::{NodeRegistry, SnapshotStream};
use crate::registration::{Registrar, Registration, RegistrationStatus};
use crate::{Error, ServiceName, ServiceNode, Snapshot};

/// A registry in this process, for tests and examples. It is never disconnected, and removes a node with
/// its registration. [Chapter 8 of the guide](crate::guide#8-testing-a-service-of-your-own) tests with it.
///
/// Cheap to clone: clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry {
    table: Arc<watch::Sender<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    revision: u64,
    /// By service and address. The number distinguishes registrations of the same address.
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
        Registration::start(node, entry)
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        let mut changes = self.table.subscribe();
        changes.mark_changed(); // the initial snapshot does not wait for a change
        // The sender is stored with its receiver, so that waiting for a change never fails.
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

/// One registration's row in the table. Dropping it removes the row, unless it has a new owner.
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

impl Registrar for Entry {
    async fn maintain(&mut self, status: &RegistrationStatus) -> Error {
        self.table.send_modify(|table| {
            table.revision += 1;
            table
                .entries
                .insert(self.key(), (self.number, self.node.clone()));
        });
        status.set_registered();
        std::future::pending().await
    }

    async fn deregister(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let key = self.key();
        self.table.send_if_modified(|table| {
            let is_own = table
                .entries
                .get(&key)
                .is_some_and(|(number, _)| *number == self.number);
            if is_own {
                table.revision += 1;
                table.entries.remove(&key);
            }
            is_own
        });
    }
}
