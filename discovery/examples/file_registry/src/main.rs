//! A registry that is none of ours, in one file: [`registry.rs`](registry.rs). Registers a node in a
//! directory, and prints the nodes that are registered there whenever they change:
//!
//! ```text
//! cargo run -p file_registry -- /tmp/services greeter 127.0.0.1:9001
//! ```
//!
//! Run it a second time with another port meanwhile, and kill one of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use discovery::{DiscoveryClient, NodeRegistry, ServiceNode};
use file_registry::FileRegistry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut arg = || args.next().context("expected DIRECTORY SERVICE IP:PORT");
    let registry = FileRegistry(arg()?.into());
    let node = ServiceNode::new(arg()?.parse()?, arg()?.parse()?);
    let service = node.service.clone();

    let _registration = registry.register(node, Duration::from_secs(10));
    let client = DiscoveryClient::new(Arc::new(registry));
    let mut changes = client.changes(&service);
    loop {
        changes.changed().await?;
        let endpoints = client.view(&service).context("it was changed")?;
        let addresses = endpoints.endpoints().iter().map(|e| e.address.to_string());
        println!("{}", addresses.collect::<Vec<_>>().join(" "));
    }
}
