//! A service in a registry, as one client finds it.

use std::sync::Arc;
use std::time::Duration;

use discovery::{
    DiscoveryClient, Error, InFlight, NodeRegistry, Registration, Resolver, ServiceName,
    ServiceNode, Tags, View,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::PATIENCE;

/// A service with a unique name in a registry, and a client that discovers it.
///
/// Its nodes are 10.0.0.1 with a port: tests name them `"9001"` or `"9001 version=v1"`.
pub struct Scene {
    /// The registry.
    pub registry: Arc<dyn NodeRegistry>,
    /// The name of the service.
    pub service: ServiceName,
    /// The client.
    pub client: DiscoveryClient,
    ttl: Duration,
}

impl Scene {
    /// Creates a service without nodes.
    pub fn new(registry: Arc<dyn NodeRegistry>) -> Self {
        let _ = env_logger::builder().is_test(true).try_init(); // another test may have done so
        let service = format!("greeter-{:x}", fastrand::u32(..));
        Self {
            service: service.parse().expect("a name"),
            client: DiscoveryClient::new(registry.clone()),
            registry,
            ttl: Duration::from_secs(5),
        }
    }

    /// Sets the TTL of its nodes.
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Returns the same service with another registry and client.
    pub fn seen_through(&self, registry: Arc<dyn NodeRegistry>) -> Self {
        Self {
            service: self.service.clone(),
            ttl: self.ttl,
            ..Self::new(registry)
        }
    }

    /// Returns a node of the service, which is not registered.
    pub fn node(&self, port: u16) -> ServiceNode {
        ServiceNode::new(self.service.clone(), ([10, 0, 0, 1], port).into())
    }

    /// Registers a node, and does not wait.
    pub fn register(&self, node: ServiceNode) -> Registration {
        self.registry.register(node, self.ttl)
    }

    /// Registers a node, and waits until it is.
    pub async fn join(&self, port: u16) -> Registration {
        self.join_with(port, "").await
    }

    /// Registers a node with tags, and waits until it is.
    pub async fn join_with(&self, port: u16, tags: &str) -> Registration {
        let tags = tags.parse().expect("tags");
        let registration = self.register(self.node(port).with_tags(tags));
        let registered = timeout(PATIENCE, registration.registered()).await;
        registered.expect("a node is registered in time");
        registration
    }

    /// Waits until the client knows exactly these nodes, in this order.
    pub async fn lists(&self, nodes: &[&str]) {
        self.lists_within(PATIENCE, nodes).await;
    }

    /// Waits until the client knows exactly these nodes, from a registry that is connected.
    pub async fn lists_within(&self, limit: Duration, nodes: &[&str]) {
        let deadline = Instant::now() + limit;
        let mut changes = self.client.changes(&self.service);
        loop {
            let known = self.client.view(&self.service).map(|view| {
                let nodes = view.endpoints().iter().map(|endpoint| spelled(endpoint));
                (view.stale_for(), nodes.collect::<Vec<_>>())
            });
            if matches!(&known, Some((None, list)) if list == nodes) {
                return;
            }
            let change = timeout_at(deadline, changes.changed()).await;
            assert!(change.is_ok(), "not {nodes:?} within {limit:?}: {known:?}");
        }
    }

    /// Returns a resolver of nodes with any tags.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.client.resolver(&self.service, &Tags::new())
    }

    /// Resolves one node that has these tags.
    pub async fn resolve_with(&self, tags: &str) -> Result<InFlight, Error> {
        let tags = tags.parse().expect("tags");
        self.client.resolve(&self.service, &tags).await
    }

    /// Resolves one node and returns its port.
    pub async fn resolve(&self) -> u16 {
        let chosen = self.resolve_with("").await;
        chosen.expect("there is a node").address.port()
    }

    /// Returns what the client knows.
    pub fn view(&self) -> Arc<View> {
        let view = self.client.view(&self.service);
        view.expect("the first list is there")
    }

    /// Returns the time since the registry was lost.
    pub fn stale_for(&self) -> Option<Duration> {
        self.client.view(&self.service)?.stale_for()
    }
}

/// Returns a node's port and tags: `"9001 version=v1"`.
pub fn spelled(node: &ServiceNode) -> String {
    let spelled = format!("{} {}", node.address.port(), node.tags);
    spelled.trim_end().to_owned()
}
