use std::fs;
use std::path::Path;
use std::process::Command;

use super::server::{Server, program};

/// A ZooKeeper that answers, alone.
pub(crate) async fn start() -> Server {
    let mut zookeeper = not_yet();
    zookeeper.run().await;
    zookeeper
}

/// One that has an address, and does not run yet.
pub(crate) fn not_yet() -> Server {
    Server::not_yet("zookeeper", command)
}

/// Sessions live for 2 to 20 ticks, so half a second allows the times to live of the tests, which are
/// etcd's. ZooKeeper's own tick is two seconds: no node is gone there before four.
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
