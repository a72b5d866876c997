//! Consul ([HTTP API](https://developer.hashicorp.com/consul/api-docs)): a node is a service of an
//! agent, with a TTL check.
//!
//! `check.rs` keeps a service's check passing, `watch.rs` streams snapshots by blocking queries, `agent.rs`
//! sends the requests of both and bounds their connections. The invariant: deregistering never removes the
//! service of a new owner. Backoff is left to `registration.rs` and `service.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{NodeRegistry, RegistryUrl, SnapshotStream};
use crate::{Registration, ServiceName, ServiceNode};

mod agent;
mod check;
mod watch;

use agent::Agent;
use check::CheckRegistrar;
use watch::Watcher;

/// A Consul cluster, through one of its agents. A node is a service with the id `ip:port`, its tags are the
/// service's `Meta`.
#[derive(Clone)]
pub struct ConsulRegistry {
    agent: Arc<Agent>,
}

impl ConsulRegistry {
    /// Creates the registry of this URL. It connects at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            agent: Arc::new(Agent::new(url.clone())),
        }
    }
}

impl NodeRegistry for ConsulRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        let registrar = CheckRegistrar::new(self.agent.clone(), node.clone(), ttl);
        Registration::start(node, registrar)
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        let watcher = Watcher::new(self.agent.clone(), service.clone());
        stream::unfold(watcher, |mut watcher| async {
            let snapshot = watcher.next().await;
            Some((snapshot, watcher))
        })
        .boxed()
    }
}

impl fmt::Debug for ConsulRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulRegistry")
            .field("url", &self.agent.url())
            .finish()
    }
}
