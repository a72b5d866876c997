//! Registers a node, stays until Ctrl-C, and leaves:
//!
//! ```text
//! cargo run -p discovery --example register -- etcd://127.0.0.1:2379 greeter 127.0.0.1:9001 version=v1
//! ```
//!
//! Stop etcd and start it again meanwhile, or delete the key: the node comes back.

use std::time::Duration;

use anyhow::Context;
use discovery::{ServiceNode, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let info = env_logger::Env::default().default_filter_or("info");
    env_logger::init_from_env(info);

    let mut args = std::env::args().skip(1);
    let mut arg = || {
        args.next()
            .context("expected REGISTRY SERVICE IP:PORT [TAGS]")
    };
    let registry = connect(&arg()?.parse()?)?;
    let node = ServiceNode::new(arg()?.parse()?, arg()?.parse()?);
    let node = node.with_tags(arg().unwrap_or_default().parse()?);

    let registration = registry.register(node, Duration::from_secs(10));
    tokio::signal::ctrl_c().await?;
    registration.deregister().await?;
    Ok(())
}
