use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use actix_web::rt::spawn;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Message, Wire, until};

/// A node that does exactly what the test says, byte by byte. It is gone when this is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Rc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: Cell<usize>,
    open: Cell<usize>,
    begun: Cell<usize>,
    requests: RefCell<Vec<Message>>,
}

/// One connection to an [`Upstream`].
pub(crate) struct Peer {
    wire: Wire,
    seen: Rc<Seen>,
}

impl Upstream {
    /// A node that does this with every connection, which ends when that is done.
    pub(crate) async fn new<F>(serve: impl Fn(Peer) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self::over(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    /// The same over a listener.
    pub(super) fn over<F>(listener: TcpListener, serve: impl Fn(Peer) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Rc::new(Seen::default());
        let accepting = spawn(accept(listener, seen.clone(), serve));
        Self {
            address,
            seen,
            accepting,
        }
    }

    /// A node that gives this answer to every request, and keeps its connections.
    pub(crate) async fn answering(answer: impl Into<String>) -> Self {
        let answer = Rc::new(answer.into());
        Self::new(move |mut peer| {
            let answer = answer.clone();
            async move {
                while peer.request().await.is_some() && peer.try_send(&*answer).await.is_ok() {}
            }
        })
        .await
    }

    /// A node that gives this answer once, and closes the connection.
    pub(crate) async fn closing_after(answer: impl Into<String>) -> Self {
        let answer = Rc::new(answer.into());
        Self::new(move |mut peer| {
            let answer = answer.clone();
            async move {
                if peer.request().await.is_some() {
                    let _ = peer.try_send(&*answer).await;
                }
            }
        })
        .await
    }

    /// A node that says `200` and this.
    pub(crate) async fn saying(body: &str) -> Self {
        let length = body.len();
        Self::answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.seen.requests.borrow().clone()
    }

    /// How much was asked so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.requests.borrow().len()
    }

    /// The only request so far.
    pub(crate) fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    /// Counts requests from 0 again.
    pub(crate) fn forget(&self) {
        self.seen.requests.borrow_mut().clear();
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.get()
    }

    /// Waits until the head of a request has come.
    pub(crate) async fn is_asked(&self) {
        until("a request's head", async || self.seen.begun.get() > 0).await;
    }

    /// Waits until as many connections are open.
    pub(crate) async fn has_open(&self, count: usize) {
        let what = format!("{count} open connections to the node");
        until(&what, async || self.seen.open.get() == count).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<F>(listener: TcpListener, seen: Rc<Seen>, serve: impl Fn(Peer) -> F)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.connections.set(seen.connections.get() + 1);
        seen.open.set(seen.open.get() + 1);
        let (wire, seen) = (Wire::new(stream), seen.clone());
        spawn(serve(Peer { wire, seen }));
    }
}

impl Peer {
    /// The next request, `None` if the connection ends instead.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let head = self.wire.head().await.ok()?;
        self.seen.begun.set(self.seen.begun.get() + 1);
        let request = self.wire.with_body(head).await;
        self.seen.requests.borrow_mut().push(request.clone());
        Some(request)
    }
}

impl Peer {
    /// How many requests its node was asked so far, over all connections.
    pub(crate) fn seen(&self) -> usize {
        self.seen.requests.borrow().len()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.seen.open.set(self.seen.open.get() - 1);
    }
}

impl Deref for Peer {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
