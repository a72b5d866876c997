use std::sync::Arc;
use std::time::Duration;

use discovery::{
    DiscoveryClient, Error, InFlight, NodeRegistry, Registration, Resolver, ServiceName,
    ServiceNode, Tags, View,
};
use tokio::time::{Instant, timeout, timeout_at};

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

    /// The same service, as somebody sees it through another registry.
    pub(crate) fn seen_through(&self, registry: Arc<dyn NodeRegistry>) -> Self {
        Self {
            service: self.service.clone(),
            ttl: self.ttl,
            ..Self::new(registry)
        }
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
        let registered = timeout(PATIENCE, registration.registered()).await;
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

    /// What resolves nodes with any tags, as often as it is asked.
    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        self.client.resolver(&self.service, &Tags::new())
    }

    pub(crate) async fn resolve_with(&self, tags: &str) -> Result<InFlight, Error> {
        let tags = tags.parse().expect("tags");
        self.client.resolve(&self.service, &tags).await
    }

    /// The port of the node that is chosen from all.
    pub(crate) async fn resolve(&self) -> u16 {
        let chosen = self.resolve_with("").await;
        chosen.expect("there is a node").address.port()
    }

    /// What the client knows.
    pub(crate) fn view(&self) -> Arc<View> {
        let view = self.client.view(&self.service);
        view.expect("the first list is there")
    }

    /// For how long the client has been without the registry.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        self.client.view(&self.service)?.stale_for()
    }
}

/// A node's port and tags: `"9001 version=v1"`.
pub(crate) fn spelled(node: &ServiceNode) -> String {
    let spelled = format!("{} {}", node.address.port(), node.tags);
    spelled.trim_end().to_owned()
}
