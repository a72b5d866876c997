//! A network between a client and a server that can fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A TCP proxy in front of a registry, which fails on demand as networks do.
pub struct Relay {
    address: String,
    network: watch::Sender<Network>,
    /// The number of deletions that were lost.
    lost: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Network {
    Sound,
    Cut,
    Silent,
    LosesNodes,
    LosesDeletions,
}

/// The length of an HTTP/2 frame header (RFC 9113 §4.1). Its first three bytes are the length of the payload.
const FRAME_HEADER_BYTES: usize = 9;

impl Relay {
    /// Starts one to a server, given as `host:port`.
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (network, state) = watch::channel(Network::Sound);
        let lost = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(run(listener, server, state, lost.clone()));
        Self {
            address,
            network,
            lost,
            task,
        }
    }

    /// Returns its address as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Closes all connections, and every new one at once.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// Discards every byte. The connections of now and those made meanwhile stay open and never
    /// recover.
    pub fn fall_silent(&self) {
        self.network.send_replace(Network::Silent);
    }

    /// Closes all connections, and every new one as soon as it carries a node's value: etcd can be
    /// read, and grants leases, but no node can be registered.
    pub fn lose_nodes(&self) {
        self.network.send_replace(Network::LosesNodes);
    }

    /// Closes all connections, and drops every event of a deletion from then on.
    pub fn lose_deletions(&self) {
        self.network.send_replace(Network::LosesDeletions);
    }

    /// Returns the number of deletions that were dropped.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// Works again, for new connections.
    pub fn heal(&self) {
        self.network.send_replace(Network::Sound);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    listener: TcpListener,
    server: String,
    network: watch::Receiver<Network>,
    lost: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new(); // end with this task
    loop {
        let (client, _) = listener.accept().await.expect("a listener accepts");
        connections.spawn(carry(client, server.clone(), network.clone(), lost.clone()));
    }
}

async fn carry(
    mut client: TcpStream,
    server: String,
    mut network: watch::Receiver<Network>,
    lost: Arc<AtomicUsize>,
) {
    let at_first = *network.borrow_and_update();
    if !matches!(at_first, Network::Cut | Network::Silent) {
        tokio::select! {
            _ = network.changed() => {}
            _ = pass(&mut client, &server, at_first, &lost) => return,
        }
    }
    let now = *network.borrow();
    if now == Network::Silent {
        let _ = copy(&mut client, &mut sink()).await; // until the client gives up
    }
}

/// Passes bytes both ways until one side ends.
async fn pass(
    client: &mut TcpStream,
    server: &str,
    network: Network,
    lost: &AtomicUsize,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (from_client, mut to_client) = client.split();
    let (mut from_server, to_server) = server.split();
    let answers = async {
        match network {
            Network::LosesDeletions => pass_frames(from_server, to_client, lost).await,
            _ => copy(&mut from_server, &mut to_client).await.map(drop),
        }
    };
    tokio::select! {
        requests = pass_requests(from_client, to_server, network) => requests,
        answers = answers => answers,
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
        if network == Network::LosesNodes && has(bytes, b"ServiceName") {
            return Ok(());
        }
        to.write_all(bytes).await?;
    }
}

/// Passes HTTP/2 frames, except for those with a key and no value: a deletion of etcd.
async fn pass_frames(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    lost: &AtomicUsize,
) -> io::Result<()> {
    loop {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        frame.resize(FRAME_HEADER_BYTES + length as usize, 0);
        from.read_exact(&mut frame[FRAME_HEADER_BYTES..]).await?;
        if has(&frame, b"/services/") && !has(&frame, b"ServiceName") {
            lost.fetch_add(1, Ordering::Relaxed);
        } else {
            to.write_all(&frame).await?;
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|some| some == part)
}
