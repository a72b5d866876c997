//! What the tests share: clients and nodes that see every byte, and a gateway between them.

pub(crate) mod answers;
mod echo;
mod gateway;
mod limit;
mod message;
pub(crate) mod mixed;
mod program;
mod refused;
pub(crate) mod requests;
mod upstream;
mod wire;

use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) use echo::is_echoed;
pub(crate) use gateway::{Gateway, greeter};
pub(crate) use limit::{until, within_limit};
pub(crate) use message::Message;
pub(crate) use program::{Program, help, run, run_in};
pub(crate) use refused::is_refused_with;
pub(crate) use requests::status_of;
pub(crate) use upstream::{Peer, Upstream};
pub(crate) use wire::Wire;

/// An address where no connection is refused and none is made, for as long as this lives: nobody
/// accepts them, and no more may wait.
pub(crate) struct Full {
    pub(crate) address: std::net::SocketAddr,
    listener: TcpListener,
    waiting: Vec<TcpStream>,
}

impl Full {
    pub(crate) async fn new() -> Self {
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

    /// Accepts connections from now on, and does this with each. Returns the node and the number of
    /// connections that waited.
    pub(crate) fn open<F>(self, serve: impl Fn(Peer) -> F + 'static) -> (Upstream, usize)
    where
        F: Future<Output = ()> + 'static,
    {
        let waiting = self.waiting.len();
        (Upstream::over(self.listener, serve), waiting)
    }
}

/// An address where every connection is refused for as long as this lives: bound, and nobody
/// listens there.
pub(crate) struct Refusing {
    pub(crate) address: std::net::SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}
