use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Peer, Upstream};

/// An address where connects get no response: its backlog is full, and nothing accepts.
pub struct Full {
    /// The address.
    pub address: SocketAddr,
    listener: TcpListener,
    waiting: Vec<TcpStream>,
}

impl Full {
    /// Fills the backlog of a new listener.
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(made) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            waiting.push(made.unwrap());
        }
        Self {
            address,
            listener,
            waiting,
        }
    }

    /// Accepts connections from now on, and serves each. Returns the node and the number of connections
    /// that filled the backlog.
    pub fn open<F>(self, serve: impl Fn(Peer) -> F + 'static) -> (Upstream, usize)
    where
        F: Future<Output = ()> + 'static,
    {
        let waiting = self.waiting.len();
        (Upstream::over(self.listener, serve), waiting)
    }
}

/// An address where every connection is refused: bound, without a listener.
pub struct Refusing {
    /// The address.
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    /// Binds a free port.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}
