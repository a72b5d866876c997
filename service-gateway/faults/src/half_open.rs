//! Links that are cut: neither side hears of the end of its connections.

use std::future::pending;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use testing::etcd::Etcd;
use testing::http::{Upstream, Wire};
use testing::try_until;

use crate::Verdict;
use crate::system::System;

/// When the last connection has to be gone.
const LIMIT: Duration = Duration::from_secs(120);

/// The handshake of a WebSocket.
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A port of this host to and from which nothing gets, as long as this lives.
struct Cut(u16);

/// WebSockets and idle clients whose link is cut are gone in time, and so is a WebSocket to a node
/// whose link is cut.
pub(crate) async fn half_open_client() -> anyhow::Result<Verdict> {
    let flags = ["--route", "/greeter=greeter", "--keep-alive", "1h"];
    let system = System::around(Etcd::start().await, &["v1"], &flags).await?;
    system.until_known(1).await?;
    let mut idle = system.connect().await;
    ensure!(idle.get("/greeter/greet/Ada").await.status() == 200);
    let mut websocket = system.connect().await;
    upgrade(&mut websocket, "/greeter/ws").await?;

    let node = Upstream::new(|mut peer| async move {
        peer.request().await;
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        peer.send(agreed).await;
        pending::<()>().await; // its connection stays open
    })
    .await;
    system.put_node(&node.address.to_string()).await;
    system.until_known(2).await?;
    let mut to_node = system.connect().await;
    while node.count() == 0 {
        to_node = system.connect().await;
        upgrade(&mut to_node, "/greeter/ws").await?;
    }

    let mut ports = vec![node.address.port()];
    for client in [&idle, &websocket] {
        ports.push(client.stream.local_addr()?.port());
    }
    let mut cut = Vec::new();
    for port in ports {
        match Cut::new(port) {
            Some(port) => cut.push(port),
            None => return Ok(Verdict::left_out("iptables needs root")),
        }
    }
    let began = Instant::now();
    let are_gone = || async { Ok(system.metric("gateway_connections").await? < 0.5) };
    let gone = try_until("the connections' end", LIMIT, are_gone).await;
    let left = system.metric("gateway_connections").await?;
    drop(to_node);
    Ok(Verdict::new(gone.is_ok()).note(format!(
        "{left} connections left after {} s",
        began.elapsed().as_secs()
    )))
}

async fn upgrade(client: &mut Wire, target: &str) -> anyhow::Result<()> {
    client
        .send(format!("GET {target} HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n"))
        .await;
    let answer = client.head().await;
    ensure!(
        answer.is_ok_and(|answer| answer.status() == 101),
        "no upgrade"
    );
    Ok(())
}

impl Cut {
    /// `None` if it may not be cut.
    fn new(port: u16) -> Option<Self> {
        let cut = Self(port);
        cut.set("-I").then_some(cut)
    }

    fn set(&self, action: &str) -> bool {
        let port = self.0.to_string();
        ["--sport", "--dport"].into_iter().all(|side| {
            let rule = [
                action, "INPUT", "-i", "lo", "-p", "tcp", side, &port, "-j", "DROP",
            ];
            let mut command = Command::new("iptables");
            let set = command.args(rule).stderr(Stdio::null()).status();
            set.is_ok_and(|status| status.success())
        })
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.set("-D");
    }
}
