//! Follows a service, and prints its nodes whenever they change:
//!
//! ```text
//! cargo run -p discovery --example watch -- etcd://127.0.0.1:2379 greeter
//! ```
//!
//! Stop etcd meanwhile: the nodes stay known, and it says so.

use anyhow::Context;
use discovery::{DiscoveryClient, View, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut arg = || args.next().context("expected REGISTRY SERVICE");
    let client = DiscoveryClient::new(connect(&arg()?.parse()?)?);
    let service = arg()?.parse()?;

    let mut changes = client.changes(&service);
    loop {
        if let Some(view) = client.view(&service) {
            print(&view);
        }
        changes.changed().await?;
    }
}

fn print(view: &View) {
    let state = match view.stale_for() {
        None => format!("revision {}", view.revision()),
        Some(_) => "the registry is away, these are the last known nodes".into(),
    };
    println!("{state}");
    for node in view.endpoints().iter() {
        println!("  {}  {}", node.address, node.tags);
    }
}
