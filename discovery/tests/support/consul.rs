use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::server::{Server, free_port, program};

/// A Consul that answers: one agent, which is a server too.
pub(crate) async fn start() -> Server {
    let mut consul = not_yet();
    consul.run().await;
    consul
}

/// One that has an address, and does not run yet.
pub(crate) fn not_yet() -> Server {
    Server::not_yet("consul", command)
}

/// One that lets in who has a token, once somebody has bootstrapped the first.
pub(crate) async fn start_with_acl() -> Server {
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
