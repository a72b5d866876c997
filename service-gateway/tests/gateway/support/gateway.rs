use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::spawn;
use clap::Parser;
use discovery::{
    MemoryRegistry, NodeRegistry, Registration, ServiceName, ServiceNode, SnapshotStream,
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use service_gateway::{App, config};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Upstream, Wire, until, within_limit};

const TTL: Duration = Duration::from_secs(10);

/// A gateway in this process: one worker, and every path goes to the service `test` unless the
/// flags say otherwise. It is gone when this is dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    registry: MemoryRegistry,
    nodes: Vec<Registration>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Gateway {
    /// One before these nodes.
    pub(crate) async fn of(nodes: &[&Upstream]) -> Self {
        Self::with("", nodes).await
    }

    /// The same with flags, separated by spaces.
    pub(crate) async fn with(flags: &str, nodes: &[&Upstream]) -> Self {
        let nodes: Vec<_> = nodes.iter().map(|node| (node.address, "")).collect();
        Self::before(flags, &nodes).await
    }

    /// The same before nodes of the service `test`: addresses and tags.
    pub(crate) async fn before(flags: &str, nodes: &[(SocketAddr, &str)]) -> Self {
        let registry = MemoryRegistry::default();
        let mut registrations = Vec::new();
        for (address, tags) in nodes {
            registrations.push(register(&registry, "test", *address, tags).await);
        }
        let mut gateway = Self::following(flags, registry);
        gateway.nodes = registrations;
        gateway
    }

    /// The same with nodes that others register.
    pub(crate) fn following(flags: &str, registry: MemoryRegistry) -> Self {
        Self::start(flags, Arc::new(registry.clone()), registry)
    }

    /// The same with a registry that never answers.
    pub(crate) fn without_registry(flags: &str) -> Self {
        Self::start(flags, Arc::new(Away), MemoryRegistry::default())
    }

    fn start(flags: &str, followed: Arc<dyn NodeRegistry>, registry: MemoryRegistry) -> Self {
        let app = App::start_with(configured(flags), followed).unwrap();
        let (address, admin) = (app.addr(), app.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let signal = async move {
            let _ = stopped.await;
            "the test"
        };
        Self {
            address,
            admin,
            registry,
            nodes: Vec::new(),
            stop: Some(stop),
            running: spawn(app.run_until(signal)),
        }
    }

    /// Another node of a service, listed before this returns.
    pub(crate) async fn join(&mut self, service: &str, address: SocketAddr, tags: &str) {
        let registration = register(&self.registry, service, address, tags).await;
        self.nodes.push(registration);
    }

    /// All nodes leave.
    pub(crate) fn forget_nodes(&mut self) {
        self.nodes.clear();
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Asks over a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> super::Message {
        self.connect().await.get(target).await
    }

    /// Asks the admin port, over a connection of its own.
    pub(crate) async fn admin(&self, target: &str) -> super::Message {
        Wire::connect(self.admin).await.get(target).await
    }

    /// One number among the metrics: the line's beginning is its name and labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.admin("/metrics").await;
        let mut lines = metrics.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {}", metrics.text()));
        value.parse().unwrap()
    }

    /// What the admin port says of the first service.
    pub(crate) async fn service(&self) -> Value {
        self.admin("/api/instances").await.json()["services"][0].clone()
    }

    /// Waits until it knows as many nodes, of all services together.
    pub(crate) async fn knows(&self, count: usize) {
        until("the nodes", async || {
            let known = self.admin("/api/instances").await.json();
            let services = known["services"].as_array().unwrap().iter();
            let nodes = services.map(|service| service["instances"].as_array().unwrap().len());
            nodes.sum::<usize>() == count
        })
        .await;
    }

    /// Asks it to stop, and goes on.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) {
        let ended = within_limit("the gateway's end", &mut self.running).await;
        ended.unwrap().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A registry that nobody can reach.
#[derive(Debug)]
struct Away;

impl NodeRegistry for Away {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        MemoryRegistry::default().register(node, ttl)
    }

    fn watch(&self, _: &ServiceName) -> SnapshotStream {
        stream::pending().boxed()
    }
}

fn configured(flags: &str) -> service_gateway::Config {
    let mut arguments = vec!["service-gateway"];
    // A node is to see what a test sends it, and nothing else unless the test says so.
    for (flag, value) in [
        ("--registry", "memory:"),
        ("--listen", "127.0.0.1:0"),
        ("--admin-listen", "127.0.0.1:0"),
        ("--workers", "1"),
        ("--route", "/=test"),
        ("--probe-path", "off"),
        ("--hedge-after", "1h"),
        ("--keep-unconfirmed", "1ms"),
        ("--drain", "0s"),
    ] {
        if !flags.split(' ').any(|given| given == flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(flags.split_whitespace());
    config::Cli::try_parse_from(arguments).unwrap().config
}

async fn register(
    registry: &MemoryRegistry,
    service: &str,
    address: SocketAddr,
    tags: &str,
) -> Registration {
    let node = ServiceNode::new(service.parse().unwrap(), address);
    let registration = registry.register(node.with_tags(tags.parse().unwrap()), TTL);
    registration.registered().await;
    registration
}

/// The real greeter in this process, listed in `registry` before this returns.
pub(crate) async fn greeter(registry: &MemoryRegistry, tag: &str) -> SocketAddr {
    let flags = [
        "service-greeter",
        "--registry",
        "memory:",
        "--workers",
        "1",
        "--tag",
        tag,
    ];
    let config = service_greeter::Cli::parse_from(flags).config;
    let app = service_greeter::App::start_with(config, Arc::new(registry.clone())).unwrap();
    let address = app.addr();
    spawn(app.run_until(std::future::pending::<&str>()));
    let mut lists = registry.watch(&"greeter".parse().unwrap());
    within_limit("the greeter's registration", async {
        loop {
            let list = lists.next().await.unwrap().unwrap();
            if list.nodes().iter().any(|node| node.address == address) {
                return;
            }
        }
    })
    .await;
    address
}
