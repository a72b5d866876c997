use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ServiceNode;

/// A node as a client sees it: what the registry says of it, and what the client knows by itself.
///
/// It stays the same through snapshots as long as the node's entry does; an entry that changed is
/// a new endpoint with nothing held against it.
#[derive(Debug)]
pub struct Endpoint {
    node: Arc<ServiceNode>,
    weight: u16,
    in_flight: AtomicUsize,
}

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    pub fn new(node: Arc<ServiceNode>) -> Self {
        Self {
            weight: node.weight(),
            node,
            in_flight: AtomicUsize::new(0),
        }
    }

    /// The node's [weight](ServiceNode::weight), read once.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// How many requests are with it now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn entry(&self) -> &Arc<ServiceNode> {
        &self.node
    }
}

impl Deref for Endpoint {
    type Target = ServiceNode;

    fn deref(&self) -> &ServiceNode {
        &self.node
    }
}

/// A chosen endpoint. It counts as one request in flight until it is dropped, so keep it for as long
/// as the request lasts, its answer's body included.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }
}

impl Deref for InFlight {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
