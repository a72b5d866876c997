//! Consul ([HTTP API](https://developer.hashicorp.com/consul/api-docs)): a node is a service of an
//! agent, with a check that fails unless it hears from the node.

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
use check::CheckKeeper;
use watch::Watcher;

/// A Consul, through one of its agents. Nodes are services with the id `ip:port`, their tags are the
/// service's `Meta`.
#[derive(Clone)]
pub struct ConsulRegistry {
    agent: Arc<Agent>,
}

impl ConsulRegistry {
    /// The registry at this URL. Connecting happens at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            agent: Arc::new(Agent::new(url.clone())),
        }
    }
}

impl NodeRegistry for ConsulRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        let keeper = CheckKeeper::new(self.agent.clone(), node.clone(), ttl);
        Registration::keep(node, keeper)
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
