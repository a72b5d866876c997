use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::spawn;
use rustix::io::Errno;
use service_runtime::socket::detect_lost_peer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use super::connection::Connection;
use crate::descriptors::is_local;

/// Idle connections to a node are given up after so many sweeps, before the node does it (the greeter
/// after 75 s): a request must not meet a connection that is just being closed. With thousands of
/// nodes, keeping them longer costs memory, and hardly any is used again.
const IDLE: u64 = 15;

/// The most idle connections that a worker keeps to one node.
const PER_NODE: usize = 64;

/// How often connections are looked at that nobody uses.
const SWEEP: Duration = Duration::from_secs(1);

/// A worker's connections to all nodes, as long as they wait for the next request.
pub(super) struct Pool {
    /// Of each node the latest last, which is the first to be used again.
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    connect_timeout: Duration,
    /// A permit for each connection to a node that may be open, of all workers together.
    permits: Arc<Semaphore>,
    /// An idle connection is closed if it would leave no more permits than this.
    scarce: usize,
    /// How often they were looked at: the clock of those that are idle.
    sweeps: Cell<u64>,
    sweeper: JoinHandle<()>,
}

struct Idle {
    connection: Connection,
    since: u64,
}

impl Pool {
    /// An empty pool. Each of its connections holds one of `permits`, all of which are still free.
    ///
    /// # Panics
    /// Outside of a worker's runtime.
    pub(super) fn new(connect_timeout: Duration, permits: Arc<Semaphore>) -> Rc<Self> {
        Rc::new_cyclic(|pool: &Weak<Self>| Self {
            idle: RefCell::default(),
            connect_timeout,
            scarce: permits.available_permits() / 4,
            permits: permits.clone(),
            sweeps: Cell::default(),
            sweeper: spawn(sweep(pool.clone())),
        })
    }

    /// A kept connection to a node that can take a request, if there is one.
    pub(super) fn take(&self, node: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let of_node = idle.get_mut(&node)?;
        std::iter::from_fn(|| of_node.pop())
            .map(|idle| idle.connection)
            .find(Connection::is_idle)
    }

    /// A new connection to a node. If this host has no room for it, idle connections are closed and it
    /// is tried once more.
    ///
    /// # Errors
    /// If there is none in time.
    pub(super) async fn connect(&self, node: SocketAddr) -> io::Result<Connection> {
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

    /// Keeps a connection for the next request, if it can take one.
    pub(super) fn put(&self, node: SocketAddr, connection: Connection) {
        if !connection.is_idle() || self.permits.available_permits() < self.scarce {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let of_node = idle.entry(node).or_default();
        if of_node.len() < PER_NODE {
            let since = self.sweeps.get();
            of_node.push(Idle { connection, since });
        }
    }

    /// Closes what has been idle for too long, or was closed by the node.
    fn sweep(&self) {
        let now = self.sweeps.get() + 1;
        self.sweeps.set(now);
        self.idle.borrow_mut().retain(|_, of_node| {
            of_node.retain(|idle| now <= idle.since + IDLE && idle.connection.is_idle());
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
    let mut ticks = interval(SWEEP);
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

    /// Who waits that long waits in vain.
    const LIMIT: Duration = Duration::from_secs(20);

    /// A pool that keeps so many connections to a node, if it may.
    async fn keeping(count: usize) -> (Rc<Pool>, TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::unlimited(LIMIT);
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
        pub(in crate::proxy) fn unlimited(connect_timeout: Duration) -> Rc<Self> {
            Self::new(connect_timeout, Arc::new(Semaphore::new(1 << 10)))
        }

        fn kept(&self) -> usize {
            self.idle.borrow().values().map(Vec::len).sum()
        }
    }

    #[actix_web::test]
    async fn so_many_connections_to_a_node_are_kept_and_no_more() {
        let (pool, _listener, _) = keeping(PER_NODE + 1).await;
        assert_eq!(pool.kept(), PER_NODE);
    }

    #[actix_web::test]
    async fn connections_detect_a_lost_peer() {
        let (pool, _listener, node) = keeping(0).await;
        let (stream, ..) = pool.connect(node).await.unwrap().into_stream().unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_user_timeout().unwrap().is_some());
    }

    #[actix_web::test]
    async fn idle_connections_make_room_for_a_new_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::new(LIMIT, Arc::new(Semaphore::new(2)));
        let (first, second) = (pool.connect(node).await.unwrap(), pool.connect(node).await);
        pool.put(node, first);
        let third = pool.connect(node).await;
        let error = pool.connect(node).await.err().unwrap();
        assert!(is_local(&error) && pool.kept() == 0);
        drop((second, third));
        pool.connect(node).await.unwrap();
    }

    #[actix_web::test]
    async fn no_connection_is_kept_while_permits_are_scarce() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        let pool = Pool::new(LIMIT, Arc::new(Semaphore::new(8)));
        let mut connections = Vec::new();
        for _ in 0..7 {
            connections.push(pool.connect(node).await.unwrap());
        }
        pool.put(node, connections.remove(0));
        assert_eq!(pool.kept(), 0);
        pool.put(node, connections.remove(0));
        assert_eq!(pool.kept(), 1);
    }

    #[actix_web::test]
    async fn a_kept_connection_is_closed_when_its_time_is_over() {
        let (pool, _listener, node) = keeping(1).await;
        let since = pool.idle.borrow()[&node][0].since;
        while pool.sweeps.get() < since + IDLE {
            pool.sweep();
        }
        assert_eq!(pool.kept(), 1);
        pool.sweep();
        assert!(pool.idle.borrow().is_empty());
    }

    #[actix_web::test]
    async fn a_kept_connection_that_its_node_closed_goes_by_itself() {
        let (pool, listener, _) = keeping(1).await;
        drop(listener.accept().await.unwrap());
        let gone = async {
            while pool.kept() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, gone).await.expect("it is gone in time");
    }

    #[actix_web::test]
    async fn nobody_sweeps_when_the_pool_is_gone() {
        let (pool, ..) = keeping(0).await;
        yield_now().await; // to the sweeper, which waits from now on
        let sweeper = pool.sweeper.abort_handle();
        drop(pool);
        yield_now().await;
        assert!(sweeper.is_finished());
    }
}
