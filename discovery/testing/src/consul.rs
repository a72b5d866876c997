//! A real Consul: one agent, which is a server too.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::server::{Server, free_port, program};

/// Starts one, and waits until it responds.
pub async fn start() -> Server {
    let mut consul = not_yet();
    consul.run().await;
    consul
}

/// Returns one that has an address, and does not run yet.
pub fn not_yet() -> Server {
    Server::not_yet("consul", command)
}

/// Starts one that requires a token. The first one comes from its bootstrap endpoint.
pub async fn start_with_acl() -> Server {
    let mut consul = Server::not_yet("consul", |directory, port| {
        let mut command = command(directory, port);
        let acl = r#"acl = { enabled = true, default_policy = "deny" }"#;
        command.args(["-hcl", acl]);
        command
    });
    consul.run().await;
    consul
}

fn command(directory: &Path, port: u16) -> Command {
    let config = json!({
        "ports": {
            "http": port,
            "server": free_port(),
            "serf_lan": free_port(),
            "serf_wan": -1,
            "dns": -1,
            "grpc": -1,
        },
        "disable_update_check": true,
        "performance": { "raft_multiplier": 1 },
    });
    let file = directory.join("config.json");
    fs::write(&file, config.to_string()).expect("a configuration for Consul");
    let mut command = Command::new(program("consul"));
    command
        .args(["agent", "-server", "-bootstrap", "-disable-host-node-id"])
        .args(["-node", "one", "-log-level", "warn"])
        .args(["-bind", "127.0.0.1", "-client", "127.0.0.1"])
        .arg("-data-dir")
        .arg(directory.join("data"))
        .arg("-config-file")
        .arg(file);
    command
}
