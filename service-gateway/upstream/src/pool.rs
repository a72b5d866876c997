use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use service_runtime::socket::detect_lost_peer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{interval, timeout};

use crate::connection::Connection;
use crate::error::is_local;

/// The number of sweeps after which an idle connection is closed, before the node does it (the greeter after
/// 75 s): a request must not be sent over a connection that is being closed. With thousands of nodes, longer
/// pooling costs memory, and few of the connections are reused.
const IDLE_SWEEPS: u64 = 15;

/// The maximum number of idle connections of a worker to one node.
const MAX_IDLE_PER_NODE: usize = 64;

/// The time between two sweeps, which close idle connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The idle connections of a worker to all nodes.
pub struct Pool {
    /// For each node, in the order of their last use. The last is the first to be reused.
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    connect_timeout: Duration,
    /// A permit for each connection to a node that may be open, of all workers together.
    permits: Arc<Semaphore>,
    /// A connection is closed instead of pooled if fewer permits than this are available.
    scarce: usize,
    /// The number of sweeps: the clock of idle connections.
    sweeps: Cell<u64>,
    sweeper: JoinHandle<()>,
}

struct Idle {
    connection: Connection,
    since: u64,
}

impl Pool {
    /// Creates an empty pool. Each of its connections holds one of `permits`, all of which are still
    /// available. A new connection may take `connect_timeout`.
    ///
    /// # Panics
    /// Outside of a worker's runtime.
    pub fn new(connect_timeout: Duration, permits: Arc<Semaphore>) -> Rc<Self> {
        Rc::new_cyclic(|pool: &Weak<Self>| Self {
            idle: RefCell::default(),
            connect_timeout,
            scarce: permits.available_permits() / 4,
            permits: permits.clone(),
            sweeps: Cell::default(),
            sweeper: spawn_local(sweep(pool.clone())),
        })
    }

    /// Takes an idle connection to a node, if there is one that can take a request.
    pub fn take(&self, node: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let of_node = idle.get_mut(&node)?;
        std::iter::from_fn(|| of_node.pop())
            .map(|idle| idle.connection)
            .find(Connection::is_idle)
    }

    /// Opens a connection to a node. If this host has no room for it, all idle connections are closed and it
    /// is tried once more.
    ///
    /// # Errors
    /// If there is none in time. [`is_local`] separates the errors of this host.
    pub async fn connect(&self, node: SocketAddr) -> io::Result<Connection> {
        match self.try_connect(node).await {
            Err(error) if is_local(&error) && self.close_idle() => self.try_connect(node).await,
            connected => connected,
        }
    }

    async fn try_connect(&self, node: SocketAddr) -> io::Result<Connection> {
        let permit = self.permit()?;
        let stream = timeout(self.connect_timeout, TcpStream::connect(node)).await??;
        stream.set_nodelay(true)?;
        detect_lost_peer(&stream)?;
        Ok(Connection::new(stream, permit))
    }

    fn permit(&self) -> io::Result<OwnedSemaphorePermit> {
        let permit = self.permits.clone().try_acquire_owned();
        permit.map_err(|_| Errno::MFILE.into())
    }

    /// Closes all idle connections. Returns whether there were any.
    fn close_idle(&self) -> bool {
        let idle = self.idle.take();
        idle.values().any(|of_node| !of_node.is_empty())
    }

    /// Pools a connection for the next request, if it can take one.
    pub fn put(&self, node: SocketAddr, connection: Connection) {
        if !connection.is_idle() || self.permits.available_permits() < self.scarce {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let of_node = idle.entry(node).or_default();
        if of_node.len() < MAX_IDLE_PER_NODE {
            let since = self.sweeps.get();
            of_node.push(Idle { connection, since });
        }
    }

    /// Closes connections that have been idle for too long, or were closed by the node.
    fn sweep(&self) {
        let now = self.sweeps.get() + 1;
        self.sweeps.set(now);
        self.idle.borrow_mut().retain(|_, of_node| {
            of_node.retain(|idle| now <= idle.since + IDLE_SWEEPS && idle.connection.is_idle());
            of_node.shrink_to_fit();
            !of_node.is_empty()
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

async fn sweep(pool: Weak<Pool>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    /// The time after which a test fails.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Puts connections to one node into a new pool.
    async fn pool_of(count: usize) -> (Rc<Pool>, TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::unlimited(TIMEOUT);
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(pool.connect(node).await.unwrap());
        }
        for connection in connections {
            pool.put(node, connection);
        }
        (pool, listener, node)
    }

    impl Pool {
        pub(crate) fn unlimited(connect_timeout: Duration) -> Rc<Self> {
            Self::new(connect_timeout, Arc::new(Semaphore::new(1 << 10)))
        }

        fn idle_connections(&self) -> usize {
            self.idle.borrow().values().map(Vec::len).sum()
        }
    }

    #[actix_web::test]
    async fn idle_connections_of_a_node_are_limited() {
        let (pool, _listener, _) = pool_of(MAX_IDLE_PER_NODE + 1).await;
        assert_eq!(pool.idle_connections(), MAX_IDLE_PER_NODE);
    }

    #[actix_web::test]
    async fn connections_detect_a_lost_peer() {
        let (pool, _listener, node) = pool_of(0).await;
        let connection = pool.connect(node).await.unwrap();
        let upgraded = connection.into_upgraded().unwrap();
        let socket = SockRef::from(&upgraded.stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_user_timeout().unwrap().is_some());
    }

    #[actix_web::test]
    async fn idle_connections_make_room_for_a_new_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::new(TIMEOUT, Arc::new(Semaphore::new(2)));
        let (first, second) = (pool.connect(node).await.unwrap(), pool.connect(node).await);
        pool.put(node, first);
        let third = pool.connect(node).await;
        let error = pool.connect(node).await.err().unwrap();
        assert!(is_local(&error) && pool.idle_connections() == 0);
        drop((second, third));
        pool.connect(node).await.unwrap();
    }

    #[actix_web::test]
    async fn scarce_permits_prevent_pooling() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::new(TIMEOUT, Arc::new(Semaphore::new(8)));
        let mut connections = Vec::new();
        for _ in 0..7 {
            connections.push(pool.connect(node).await.unwrap());
        }
        pool.put(node, connections.remove(0));
        assert_eq!(pool.idle_connections(), 0);
        pool.put(node, connections.remove(0));
        assert_eq!(pool.idle_connections(), 1);
    }

    #[actix_web::test]
    async fn an_idle_connection_expires() {
        let (pool, _listener, node) = pool_of(1).await;
        let since = pool.idle.borrow()[&node][0].since;
        while pool.sweeps.get() < since + IDLE_SWEEPS {
            pool.sweep();
        }
        assert_eq!(pool.idle_connections(), 1);
        pool.sweep();
        assert!(pool.idle.borrow().is_empty());
    }

    #[actix_web::test]
    async fn a_closed_connection_leaves_the_pool() {
        let (pool, listener, _) = pool_of(1).await;
        drop(listener.accept().await.unwrap());
        let gone = async {
            while pool.idle_connections() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, gone).await.expect("in time");
    }

    #[actix_web::test]
    async fn the_sweeper_ends_with_the_pool() {
        let (pool, ..) = pool_of(0).await;
        yield_now().await; // to the sweeper, up to its first wait
        let sweeper = pool.sweeper.abort_handle();
        drop(pool);
        yield_now().await;
        assert!(sweeper.is_finished());
    }
}
