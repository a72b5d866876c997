use tokio::io::{copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A stretch of network in front of a server, which can do what networks do.
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

    /// Swallows every byte. No connection there is now, or is made meanwhile, ever recovers; nobody
    /// is told.
    pub(crate) fn fall_silent(&self) {
        self.network.send_replace(Network::Silent);
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
    let fault = tokio::select! {
        biased;
        Ok(fault) = network.wait_for(|network| *network != Network::Sound) => *fault,
        _ = pass(&mut client, &server) => return,
        else => return,
    };
    if fault == Network::Silent {
        let _ = copy(&mut client, &mut sink()).await; // until the client gives up
    }
}

async fn pass(client: &mut TcpStream, server: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(client, &mut server).await?;
    Ok(())
}
