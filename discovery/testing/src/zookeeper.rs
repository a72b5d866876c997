//! A real ZooKeeper, alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::server::{Server, program};

/// Starts one, and waits until it responds.
pub async fn start() -> Server {
    let mut zookeeper = not_yet();
    zookeeper.run().await;
    zookeeper
}

/// Returns one that has an address, and does not run yet.
pub fn not_yet() -> Server {
    Server::not_yet("zookeeper", command)
}

/// Sessions last 2 to 20 ticks, so half a second allows the TTLs of the tests, which are etcd's. The
/// default tick is two seconds: no node would be removed before four.
fn command(directory: &Path, port: u16) -> Command {
    let config = format!(
        "tickTime=500\n\
         clientPort={port}\n\
         clientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n\
         dataDir={}\n",
        directory.join("data").display()
    );
    let file = directory.join("zoo.cfg");
    fs::write(&file, config).expect("a configuration for ZooKeeper");
    let mut command = Command::new(program("zookeeper"));
    command.arg(file);
    command
}
