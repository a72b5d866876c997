//! What very many connections cost: those of clients that are idle, and those to very many nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;
use testing::Directory;
use testing::etcd::Etcd;
use testing::usage::Usage;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::changes::{Running, entry, greeter};
use crate::wrk;

/// Clients that have had an answer each, and ask for nothing more.
const IDLE: usize = 5000;

/// The number of nodes, of connections, and the time for which they carry requests.
const NODES: usize = 300;
const CONNECTIONS: usize = 256;
const TIME: Duration = Duration::from_secs(20);

/// A little more than the idle timeout of connections to nodes.
const LATER: Duration = Duration::from_secs(18);

/// Prints both as Markdown.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!("\n### Many connections\n");
    println!("| | RSS MiB | connections |\n|---|---|---|");
    let (etcd, directory) = (Etcd::start().await, Directory::new()?);
    let greeter = greeter(&directory).await?;
    let port = greeter.address.port();
    etcd.put_all((0..NODES).map(|number| entry(0, number, port, "0")))
        .await;
    idle(&Running::start(&etcd, &directory, "/s0=s0").await?).await?;
    spread(&Running::start(&etcd, &directory, "/s0=s0").await?).await
}

async fn idle(system: &Running) -> anyhow::Result<()> {
    system.until_answered("/s0/greet/Ada", "n=0").await?;
    let address = system.gateway.address;
    let clients = (0..IDLE).map(move |_| answered(address));
    let clients: anyhow::Result<Vec<_>> = spawn_blocking(move || clients.collect()).await?;
    let clients = clients?;
    row(&format!("{} idle clients", clients.len()), system)
}

/// A client's connection, over which one answer came.
fn answered(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /s0/greet/Ada HTTP/1.1\r\nhost: test\r\n\r\n")?;
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer)?;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    Ok(stream)
}

async fn spread(system: &Running) -> anyhow::Result<()> {
    system.until_answered("/s0/greet/Ada", "n=0").await?;
    let url = format!("http://{}/s0/greet/Ada", system.gateway.address);
    let load = spawn_blocking(move || wrk::load(&url, CONNECTIONS, None, TIME));
    sleep(TIME - Duration::from_secs(1)).await;
    row(&format!("{CONNECTIONS} clients, {NODES} nodes"), system)?;
    let outcome = load.await??;
    ensure!(outcome.failed == 0, "{outcome:?}");
    sleep(LATER).await;
    row(&format!("{} s later", LATER.as_secs()), system)
}

/// Connections of clients and to nodes, and what else it has open.
fn row(what: &str, system: &Running) -> anyhow::Result<()> {
    let usage = Usage::of(system.gateway.id())?;
    println!("| {what} | {:.1} | {} |", usage.memory, usage.descriptors);
    Ok(())
}
