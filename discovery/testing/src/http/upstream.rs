use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};

use super::{Message, Wire};
use crate::until;

/// A scripted node: it sends exactly the bytes that a test gives it. It stops listening on drop.
pub struct Upstream {
    /// The address where it listens.
    pub address: SocketAddr,
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
pub struct Peer {
    wire: Wire,
    seen: Rc<Seen>,
}

impl Upstream {
    /// Starts a node that serves every connection so. A connection ends when `serve` returns.
    pub async fn new<F>(serve: impl Fn(Peer) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self::over(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    /// Starts a node over a listener.
    pub(super) fn over<F>(listener: TcpListener, serve: impl Fn(Peer) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Rc::new(Seen::default());
        let accepting = spawn_local(accept(listener, seen.clone(), serve));
        Self {
            address,
            seen,
            accepting,
        }
    }

    /// Starts a node that sends this response to every request, and keeps its connections open.
    pub async fn answering(answer: impl Into<String>) -> Self {
        let answer = Rc::new(answer.into());
        Self::new(move |mut peer| {
            let answer = answer.clone();
            async move {
                while peer.request().await.is_some() && peer.try_send(&*answer).await.is_ok() {}
            }
        })
        .await
    }

    /// Starts a node that sends this response once, and closes the connection.
    pub async fn closing_after(answer: impl Into<String>) -> Self {
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

    /// Starts a node that sends the response with the number in the path, `/0` the first one, and closes
    /// the connection.
    pub async fn answering_by_number(answers: Vec<String>) -> Self {
        let answers = Rc::new(answers);
        Self::new(move |mut peer| {
            let answers = answers.clone();
            async move {
                let request = peer.request().await.unwrap();
                let number = request.start.split(['/', ' ']).nth(2).unwrap();
                let number: usize = number.parse().unwrap();
                let _ = peer.try_send(&answers[number]).await; // the gateway may have seen enough
            }
        })
        .await
    }

    /// Starts a node that responds with 200 and this content.
    pub async fn saying(body: &str) -> Self {
        let length = body.len();
        Self::answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<Message> {
        self.seen.requests.borrow().clone()
    }

    /// Returns the number of requests so far.
    pub fn count(&self) -> usize {
        self.seen.requests.borrow().len()
    }

    /// Returns the only request so far.
    pub fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.seen.requests.borrow_mut().clear();
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.get()
    }

    /// Waits until the head of a request has arrived.
    pub async fn is_asked(&self) {
        until("a request's head", async || self.seen.begun.get() > 0).await;
    }

    /// Waits until this number of connections is open.
    pub async fn has_open(&self, count: usize) {
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
        spawn_local(serve(Peer { wire, seen }));
    }
}

impl Peer {
    /// Reads the next request, `None` if the connection ends instead.
    pub async fn request(&mut self) -> Option<Message> {
        let head = self.wire.head().await.ok()?;
        self.seen.begun.set(self.seen.begun.get() + 1);
        let request = self.wire.with_body(head).await;
        self.seen.requests.borrow_mut().push(request.clone());
        Some(request)
    }

    /// Returns the number of requests to its node so far, over all connections.
    pub fn seen(&self) -> usize {
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
