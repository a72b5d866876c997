use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A stretch of network in front of an etcd, which can do what networks do.
pub(crate) struct Relay {
    address: String,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Network {
    Sound,
    Cut,
    Silent,
    LosesNodes,
}

impl Relay {
    /// Carries connections to a server, given as `host:port`.
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (network, state) = watch::channel(Network::Sound);
        let task = tokio::spawn(run(listener, server, state));
        Self {
            address,
            network,
            task,
        }
    }

    /// Where it listens, as `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Closes all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// Swallows every byte. No connection that is there now, or is made meanwhile, ever recovers;
    /// nobody is told.
    pub(crate) fn fall_silent(&self) {
        self.network.send_replace(Network::Silent);
    }

    /// Closes all connections, and each new one when a node's value comes through it: etcd can be
    /// asked, and leases be had, but no node be registered.
    pub(crate) fn lose_nodes(&self) {
        self.network.send_replace(Network::LosesNodes);
    }

    /// Carries new connections again.
    pub(crate) fn heal(&self) {
        self.network.send_replace(Network::Sound);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, server: String, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new(); // they end with this task
    loop {
        let (client, _) = listener.accept().await.expect("a listener accepts");
        connections.spawn(carry(client, server.clone(), network.clone()));
    }
}

async fn carry(mut client: TcpStream, server: String, mut network: watch::Receiver<Network>) {
    let at_first = *network.borrow_and_update();
    if matches!(at_first, Network::Sound | Network::LosesNodes) {
        tokio::select! {
            _ = network.changed() => {}
            _ = pass(&mut client, &server, at_first) => return,
        }
    }
    let now = *network.borrow();
    if now == Network::Silent {
        let _ = copy(&mut client, &mut sink()).await; // until the client gives up
    }
}

/// Passes bytes both ways until one side has none any more.
async fn pass(client: &mut TcpStream, server: &str, network: Network) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (from_client, mut to_client) = client.split();
    let (mut from_server, to_server) = server.split();
    tokio::select! {
        requests = pass_requests(from_client, to_server, network) => requests,
        answers = copy(&mut from_server, &mut to_client) => answers.map(drop),
    }
}

async fn pass_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    network: Network,
) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let bytes = match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => &buffer[..length],
        };
        let node = b"ServiceName";
        if network == Network::LosesNodes && bytes.windows(node.len()).any(|part| part == node) {
            return Ok(());
        }
        to.write_all(bytes).await?;
    }
}
