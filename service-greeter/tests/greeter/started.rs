use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use discovery::{MemoryRegistry, NodeRegistry, ServiceNode};
use futures_util::StreamExt;
use service_greeter::{App, Cli};
use testing::within_limit;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An instance in this process, with a registry of its own.
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) registry: MemoryRegistry,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Started {
    pub(crate) fn new(flags: &[&str]) -> Self {
        let flags = ["service-greeter", "--workers", "2"].iter().chain(flags);
        let config = Cli::parse_from(flags).config;
        let registry = MemoryRegistry::default();
        let app = App::start_with(config, Arc::new(registry.clone())).unwrap();
        let address = app.addr();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(app.run_until(async {
            let _ = stopped.await;
            "the test"
        }));
        Self {
            address,
            registry,
            stop,
            ended,
        }
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// Asks it to stop, and lets it go its way.
    pub(crate) fn stop(self) -> JoinHandle<anyhow::Result<()>> {
        self.stop.send(()).unwrap();
        self.ended
    }

    /// Ends it as `kill -9` would.
    pub(crate) async fn kill(self) {
        self.ended.abort();
        assert!(self.ended.await.unwrap_err().is_cancelled());
    }
}

/// Waits until the registry lists as many greeters.
pub(crate) async fn listed(registry: &MemoryRegistry, count: usize) -> Vec<Arc<ServiceNode>> {
    let mut lists = registry.watch(&"greeter".parse().unwrap());
    within_limit("a list of that length", async {
        loop {
            let list = lists.next().await.unwrap().unwrap();
            if list.nodes().len() == count {
                return list.nodes().to_vec();
            }
        }
    })
    .await
}
