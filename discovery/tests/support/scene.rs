use std::sync::Arc;
use std::time::Duration;

use discovery::{
    DiscoveryClient, NodeRegistry, Registration, ServiceName, ServiceNode, Tags, View,
};
use tokio::time::{Instant, timeout_at};

use super::PATIENCE;

/// A service of its own in a registry, and a client that looks for it.
///
/// Its nodes are 10.0.0.1 with a port, so that `"9001"` and `"9001 version=v1"` say which.
pub(crate) struct Scene {
    pub(crate) registry: Arc<dyn NodeRegistry>,
    pub(crate) service: ServiceName,
    pub(crate) client: DiscoveryClient,
    ttl: Duration,
}

impl Scene {
    pub(crate) fn new(registry: Arc<dyn NodeRegistry>) -> Self {
        let _ = env_logger::builder().is_test(true).try_init(); // another test may have done so
        let service = format!("greeter-{:x}", fastrand::u32(..));
        Self {
            service: service.parse().expect("a name"),
            client: DiscoveryClient::new(registry.clone()),
            registry,
            ttl: Duration::from_secs(5),
        }
    }

    pub(crate) fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    pub(crate) fn node(&self, port: u16) -> ServiceNode {
        ServiceNode::new(self.service.clone(), ([10, 0, 0, 1], port).into())
    }

    /// Registers a node without waiting for it to be listed.
    pub(crate) fn register(&self, node: ServiceNode) -> Registration {
        self.registry.register(node, self.ttl)
    }

    /// A node that joined: the registry lists it.
    pub(crate) async fn join(&self, port: u16) -> Registration {
        self.join_with(port, "").await
    }

    pub(crate) async fn join_with(&self, port: u16, tags: &str) -> Registration {
        let tags = tags.parse().expect("tags");
        let registration = self.register(self.node(port).with_tags(tags));
        let registered = tokio::time::timeout(PATIENCE, registration.registered()).await;
        registered.expect("a node is registered in time");
        registration
    }

    /// Waits until the client lists exactly these, in this order.
    pub(crate) async fn lists(&self, nodes: &[&str]) {
        self.lists_within(PATIENCE, nodes).await;
    }

    /// Waits until the client lists exactly these and the registry stands by it.
    pub(crate) async fn lists_within(&self, limit: Duration, nodes: &[&str]) {
        let deadline = Instant::now() + limit;
        let mut changes = self.client.changes(&self.service);
        loop {
            let view = self.client.view(&self.service);
            let fresh = view
                .as_deref()
                .is_some_and(|view| view.stale_for().is_none());
            let listed = view.as_deref().map(listed).unwrap_or_default();
            if fresh && listed == nodes {
                return;
            }
            let change = timeout_at(deadline, changes.changed()).await;
            assert!(
                change.is_ok(),
                "expected {nodes:?} within {limit:?}, {} {listed:?}",
                if fresh { "but it is" } else { "last known was" },
            );
        }
    }

    /// The port of the node that a resolve without tags chooses.
    pub(crate) async fn resolve(&self) -> u16 {
        let chosen = self.client.resolve(&self.service, &Tags::new()).await;
        chosen.expect("there is a node").address.port()
    }

    /// For how long the client has been without the registry.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        self.client.view(&self.service)?.stale_for()
    }
}

/// What a view lists, as `"port tags"`.
pub(crate) fn listed(view: &View) -> Vec<String> {
    let nodes = view.endpoints().iter();
    nodes
        .map(|node| {
            format!("{} {}", node.address.port(), node.tags)
                .trim_end()
                .to_owned()
        })
        .collect()
}
