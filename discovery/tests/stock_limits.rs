//! Many services on a server with its default limits: ZooKeeper takes 60 connections of a
//! client's address (`maxClientCnxns`), a Consul agent 200 (`http_max_conns_per_client`).
#![cfg(any(feature = "consul", feature = "zookeeper"))]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;
use std::time::Duration;

use discovery::{DiscoveryClient, NodeRegistry, Registration, ServiceName, ServiceNode};
use futures_util::StreamExt;
use futures_util::future::join_all;
use testing::eventually;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

/// Maximum time until all services have their initial snapshots. Debug builds on a busy machine take a few
/// seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Time for which no watch may fail: several times each registry's longest wait.
const QUIET_TIME: Duration = Duration::from_secs(15);

/// An item of the watch of one service.
#[derive(Debug)]
enum Item {
    Nodes { service: usize, count: usize },
    Failed(String),
}

/// Watches of many services through one registry, in one queue.
struct Watches {
    services: Vec<ServiceName>,
    items: mpsc::UnboundedReceiver<Item>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watches {
    fn begin(registry: &Arc<dyn NodeRegistry>, count: usize) -> Self {
        let name = |number| format!("service-{number}").parse().unwrap();
        let services: Vec<ServiceName> = (0..count).map(name).collect();
        let (sender, items) = mpsc::unbounded_channel();
        let follow = |(service, name)| {
            let (mut snapshots, sender) = (registry.watch(name), sender.clone());
            tokio::spawn(async move {
                while let Some(snapshot) = snapshots.next().await {
                    let item = match snapshot {
                        Ok(snapshot) => Item::Nodes {
                            service,
                            count: snapshot.nodes().len(),
                        },
                        Err(error) => Item::Failed(error.to_string()),
                    };
                    if sender.send(item).is_err() {
                        return;
                    }
                }
            })
        };
        let tasks = services.iter().enumerate().map(follow).collect();
        Self {
            services,
            items,
            tasks,
        }
    }

    /// Waits until each service has yielded as many nodes.
    async fn all_have(&mut self, nodes: usize, limit: Duration) {
        let mut pending: Vec<bool> = self.services.iter().map(|_| true).collect();
        let deadline = Instant::now() + limit;
        while pending.contains(&true) {
            let item = timeout_at(deadline, self.items.recv()).await;
            let missing = pending.iter().filter(|is_pending| **is_pending).count();
            match item.unwrap_or_else(|_| panic!("{missing} have no {nodes} within {limit:?}")) {
                Some(Item::Nodes { service, count }) => pending[service] = count != nodes,
                Some(Item::Failed(error)) => panic!("{missing} have no {nodes}: {error}"),
                None => panic!("no watch is left"),
            }
        }
    }

    /// Waits until a service has as many nodes, and returns how long that took.
    async fn has(&mut self, wanted: usize, nodes: usize) -> Duration {
        let began = Instant::now();
        loop {
            let item = timeout(START_LIMIT, self.items.recv()).await;
            match item.expect("the change is seen") {
                Some(Item::Nodes { service, count }) if (service, count) == (wanted, nodes) => {
                    return began.elapsed();
                }
                Some(Item::Nodes { .. }) => {}
                Some(Item::Failed(error)) => panic!("{error}"),
                None => panic!("no watch is left"),
            }
        }
    }

    /// Checks that nothing is yielded for a while.
    async fn are_quiet(&mut self) {
        let item = timeout(QUIET_TIME, self.items.recv()).await;
        assert!(item.is_err(), "{item:?}");
    }

    fn node(&self, service: usize, port: u16) -> ServiceNode {
        ServiceNode::new(self.services[service].clone(), ([10, 0, 0, 1], port).into())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Requires that each service gets its initial snapshot, no watch fails, and a node added to or removed from
/// any of them is seen.
async fn many_services_are_watched(registry: Arc<dyn NodeRegistry>, count: usize) {
    let ttl = Duration::from_secs(20);
    let mut watches = Watches::begin(&registry, count);
    watches.all_have(0, START_LIMIT).await;
    watches.are_quiet().await;
    let mut latest = Duration::ZERO;
    for service in [0, count / 3, count / 2, count - 1] {
        let registration = registry.register(watches.node(service, 1), ttl);
        registration.registered().await;
        latest = latest.max(watches.has(service, 1).await);
        registration.deregister().await.unwrap();
        latest = latest.max(watches.has(service, 0).await);
    }
    println!("{count} services: a change was seen after {latest:?} at most");
}

/// Registers a node in each of many services, all through one registry. (For Consul,
/// `tests/registry.rs` registers 200 nodes at once.)
#[cfg(feature = "zookeeper")]
async fn many_nodes_are_registered(registry: Arc<dyn NodeRegistry>, count: usize) {
    let ttl = Duration::from_secs(20);
    let mut watches = Watches::begin(&registry, count);
    watches.all_have(0, START_LIMIT).await;
    let nodes = (0..count).map(|service| watches.node(service, 1));
    let registrations: Vec<_> = nodes.map(|node| registry.register(node, ttl)).collect();
    let registered = registrations.iter().map(Registration::registered);
    let registered = timeout(START_LIMIT, join_all(registered)).await;
    assert!(registered.is_ok(), "all are registered");
    watches.all_have(1, START_LIMIT).await;
    watches.are_quiet().await;
    let left = join_all(registrations.into_iter().map(Registration::deregister)).await;
    assert!(left.iter().all(Result::is_ok), "{left:?}");
    watches.all_have(0, START_LIMIT).await;
}

/// Requires that a client without its registry serves on, and watches all services again afterwards.
async fn many_services_return(mut server: testing::server::Server, count: usize) {
    let client = DiscoveryClient::new(server.registry());
    let name = |number| format!("service-{number}").parse().unwrap();
    let services: Vec<ServiceName> = (0..count).map(name).collect();
    for service in &services {
        client.view(service); // which watches it from now on
    }
    let are = async |stale: bool| {
        let is = |service| {
            let view = client.view(service);
            view.is_some_and(|view| view.stale_for().is_some() == stale)
        };
        services.iter().all(is)
    };
    eventually("all are followed", START_LIMIT, async || are(false).await).await;
    server.kill();
    eventually("all are stale", START_LIMIT, async || are(true).await).await;
    server.run().await;
    eventually("all are back", START_LIMIT, async || are(false).await).await;
    let mut changes: Vec<_> = services.iter().map(|name| client.changes(name)).collect();
    let changes = changes
        .iter_mut()
        .map(|changes| Box::pin(changes.changed()));
    let changed = timeout(QUIET_TIME, futures_util::future::select_all(changes)).await;
    assert!(changed.is_err(), "no service is disconnected again");
}

#[cfg(feature = "zookeeper")]
mod zookeeper {
    #[tokio::test]
    async fn many_services_are_watched() {
        let server = testing::zookeeper::start().await;
        super::many_services_are_watched(server.registry(), 120).await;
    }

    #[tokio::test]
    async fn many_nodes_are_registered() {
        let server = testing::zookeeper::start().await;
        super::many_nodes_are_registered(server.registry(), 120).await;
    }

    #[tokio::test]
    async fn many_services_return() {
        super::many_services_return(testing::zookeeper::start().await, 120).await;
    }
}

#[cfg(feature = "consul")]
mod consul {
    #[tokio::test]
    async fn many_services_are_watched() {
        let server = testing::consul::start().await;
        super::many_services_are_watched(server.registry(), 300).await;
    }

    #[tokio::test]
    async fn many_services_return() {
        super::many_services_return(testing::consul::start().await, 300).await;
    }
}
