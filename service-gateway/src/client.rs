//! Clients' connections: how many there are, how many requests are in flight, and their limits.
//!
//! The connections themselves are those of the crate [`http1`]. What a request's body may take is limited
//! there; how large it may be, in `proxy/payload.rs`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::{HttpMessage, HttpRequest};
use http1::{Deadline, Limits, Timeout};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Config;
use crate::peer::Peer;

/// The limit for the head of a request over the connection limit: others wait for its place.
const OVER_LIMIT_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// All connections of all workers.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    max_connections: usize,
    max_in_flight: usize,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    is_draining: AtomicBool,
    /// Notified whenever the last connection has gone.
    all_closed: Notify,
    /// In the order of [`Timeout`].
    timed_out: [AtomicU64; 2],
}

/// A client's connection, for the requests that arrive over it.
pub(crate) struct Client {
    all: Arc<Clients>,
    /// `None` if the client had gone when its connection was accepted.
    pub(crate) peer: Option<Peer>,
    /// Whether there were as many connections as allowed without this one.
    pub(crate) is_surplus: bool,
    /// Of the request that is being served.
    deadline: RefCell<Deadline>,
}

/// A request that is being served, until the end of its response.
pub(crate) struct Exchange {
    pub(crate) client: Rc<Client>,
    /// Whether there were as many requests as allowed without this one, or as many connections without its
    /// own.
    pub(crate) is_surplus: bool,
}

impl Clients {
    pub(crate) fn new(config: &Config, max_connections: usize) -> Self {
        let (head, pause) = (config.head_timeout, config.client_timeout);
        Self {
            limits: Limits::new(head, config.keep_alive, pause),
            max_connections,
            max_in_flight: config.max_in_flight,
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            all_closed: Notify::new(),
            timed_out: Default::default(),
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Has each response from now on close its connection.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether responses close their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Waits until no connection is left.
    pub(crate) async fn all_closed(&self) {
        while self.connections() > 0 {
            self.all_closed.notified().await;
        }
    }

    /// Returns the number of connections that were closed because the client was too slow.
    pub(crate) fn timed_out(&self, timeout: Timeout) -> u64 {
        self.timed_out[timeout as usize].load(Ordering::Relaxed)
    }
}

impl Client {
    pub(crate) fn new(all: Arc<Clients>, peer: Option<Peer>) -> Self {
        let others = all.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            peer,
            is_surplus: others >= all.max_connections,
            deadline: RefCell::default(),
            all,
        }
    }

    /// Returns the connection that a request arrived over.
    pub(crate) fn of(request: &HttpRequest) -> Rc<Self> {
        let client = request.extensions().get::<Rc<Self>>().cloned();
        client.expect("each connection prepares its requests")
    }

    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.all.limits;
        if self.is_surplus {
            limits.head = limits.head.min(OVER_LIMIT_HEAD_TIMEOUT);
        }
        limits
    }

    /// Counts that the connection is closed because the client was too slow.
    pub(crate) fn count_timeout(&self, timeout: Timeout) {
        self.all.timed_out[timeout as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to serve a request.
    pub(crate) fn begin(self: Rc<Self>) -> Exchange {
        let others = self.all.in_flight.fetch_add(1, Ordering::Relaxed);
        Exchange {
            is_surplus: self.is_surplus || others >= self.all.max_in_flight,
            client: self,
        }
    }

    /// Is ready once `by` has passed. Until then the request's task is woken no later than `by`, and possibly
    /// earlier: everything that is awaited for this request shares one timer.
    pub(crate) fn poll_over(&self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.borrow_mut().poll(by, cx)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.all.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.all_closed.notify_one();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.all.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
