use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A stretch of network in front of an etcd, which can do what networks do.
pub(crate) struct Relay {
    address: String,
    network: watch::Sender<Network>,
    /// How many deletions were lost.
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

/// How many bytes the head of an HTTP/2 frame has. The first three are the length of the rest.
const FRAME_HEAD: usize = 9;

impl Relay {
    /// Carries connections to a server, given as `host:port`.
    pub(crate) async fn to(server: String) -> Self {
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

    /// Closes all connections, and from then on carries no news of a deletion.
    pub(crate) fn lose_deletions(&self) {
        self.network.send_replace(Network::LosesDeletions);
    }

    /// How many it did not carry.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
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

async fn run(
    listener: TcpListener,
    server: String,
    network: watch::Receiver<Network>,
    lost: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new(); // they end with this task
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

/// Passes bytes both ways until one side has none any more.
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

/// Passes HTTP/2 frames, but none with a key and no value: so etcd tells of a deletion.
async fn pass_frames(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    lost: &AtomicUsize,
) -> io::Result<()> {
    loop {
        let mut frame = vec![0; FRAME_HEAD];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        frame.resize(FRAME_HEAD + length as usize, 0);
        from.read_exact(&mut frame[FRAME_HEAD..]).await?;
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
