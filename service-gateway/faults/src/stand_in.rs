//! Nodes within this process, which do what a fault wants of them.

use std::io;
use std::net::SocketAddr;

use actix_web::rt;
use actix_web::rt::task::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Gone when this is dropped, with all of its connections.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

/// A connection to such a node.
pub(crate) struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A request, read to its end.
pub(crate) struct Request {
    pub(crate) method: String,
    /// What the load generator wants to have back.
    pub(crate) id: String,
}

impl StandIn {
    /// A node on a port of its own that answers whatever it is asked.
    pub(crate) fn obliging() -> io::Result<Self> {
        Self::on(([127, 0, 0, 1], 0).into(), Peer::oblige)
    }

    /// A node that does this with every connection.
    pub(crate) fn on<F>(
        address: SocketAddr,
        serve: impl Fn(Peer) -> F + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let task = rt::spawn(async move {
            let mut connections = JoinSet::new();
            accept(&listener, &mut connections, &serve).await;
        });
        Ok(Self { address, task })
    }

    /// A node that listens half of the time, in turns this long: whoever connects in between is
    /// refused.
    pub(crate) fn on_and_off<F>(
        address: SocketAddr,
        turn: std::time::Duration,
        serve: impl Fn(Peer) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let task = rt::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let listener = listen(address).expect("nobody else takes this port");
                let accepting = accept(&listener, &mut connections, &serve);
                let _ = rt::time::timeout(turn, accepting).await; // it has no end of its own
                drop(listener);
                rt::time::sleep(turn).await;
            }
        });
        Self { address, task }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?; // connections that have ended may still have the port
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept<F>(
    listener: &TcpListener,
    connections: &mut JoinSet<io::Result<()>>,
    serve: &impl Fn(Peer) -> F,
) where
    F: Future<Output = io::Result<()>> + 'static,
{
    loop {
        while connections.try_join_next().is_some() {} // how one ended is nobody's concern
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true); // slower without, that is all
            let received = Vec::new();
            connections.spawn_local(serve(Peer { stream, received }));
        }
    }
}

impl Peer {
    /// Answers request after request.
    pub(crate) async fn oblige(mut self) -> io::Result<()> {
        loop {
            let request = self.request().await?;
            self.answer(&request, "").await?;
        }
    }

    /// Waits until the next request begins to arrive, and reads nothing of it.
    pub(crate) async fn is_asked(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).await.map(drop)
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> io::Result<Request> {
        const END: &[u8] = b"\r\n\r\n";
        let end = loop {
            match self.received.windows(END.len()).position(|w| w == END) {
                Some(at) => break at + END.len(),
                None => self.read_more().await?,
            }
        };
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let header = |name: &str| {
            let named = |line: &str| {
                let (its, value) = line.split_once(':')?;
                its.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            };
            head.lines().find_map(named).unwrap_or_default()
        };
        let length: usize = header("content-length").parse().unwrap_or_default();
        while self.received.len() < end + length {
            self.read_more().await?;
        }
        self.received.drain(..end + length);
        Ok(Request {
            method: head.split(' ').next().unwrap_or_default().to_owned(),
            id: header("x-request-id"),
        })
    }

    /// Answers it, with more header lines if wanted, each with its end.
    pub(crate) async fn answer(&mut self, request: &Request, headers: &str) -> io::Result<()> {
        let id = &request.id;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-request-id: {id}\r\n{headers}content-length: 2\r\n\r\nhi"
        );
        self.stream.write_all(answer.as_bytes()).await
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
