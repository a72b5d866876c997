//! The entry point for callers: [`DiscoveryClient`] watches services on demand and resolves nodes.
//!
//! Its invariant: one task for each service and one resolver for each service and tags, however many
//! callers there are; both belong to the client, not to the caller that came first. The client wires
//! `service.rs` and `resolver.rs` together and contains no policy of its own.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::service::{AddressFilter, Service};
use crate::{
    Balancer, Error, InFlight, NodeRegistry, Resolver, ServiceName, Tags, View, is_for_services,
};

/// Maximum number of resolvers in the map, which is cleared above it: callers may invent any number of
/// tags.
const MAX_RESOLVERS: usize = 1024;

/// Finds the nodes of services: watches each service from its first use on, and serves the last known
/// nodes while the registry is disconnected.
///
/// One task watches a service, however many callers use it. The task belongs to the client and not to
/// the first caller. The tasks run on the runtime on which the client was created, and end with the
/// client and its resolvers. Chapters [5](crate::guide#5-a-client), [6](crate::guide#6-when-the-registry-is-away) and
/// [7](crate::guide#7-when-nodes-die) of the guide are about it.
pub struct DiscoveryClient {
    registry: Arc<dyn NodeRegistry>,
    runtime: Handle,
    balancer: Balancer,
    initial_snapshot_timeout: Duration,
    retention: Duration,
    allowed: AddressFilter,
    /// Std mutexes, held for one look-up in a map. Neither the tasks nor the resolvers lock them.
    services: Mutex<HashMap<ServiceName, Arc<Service>>>,
    resolvers: Mutex<HashMap<(ServiceName, Tags), Arc<Resolver>>>,
}

impl DiscoveryClient {
    /// Creates a client of this registry, with round robin and a timeout of three seconds for an initial
    /// snapshot.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(registry: Arc<dyn NodeRegistry>) -> Self {
        Self {
            registry,
            runtime: Handle::current(),
            balancer: Balancer::default(),
            initial_snapshot_timeout: Duration::from_secs(3),
            retention: Duration::from_secs(10),
            allowed: Arc::new(|address| is_for_services(address.ip())),
            services: Mutex::default(),
            resolvers: Mutex::default(),
        }
    }

    /// Sets the balancer.
    pub fn with_balancer(self, balancer: Balancer) -> Self {
        Self { balancer, ..self }
    }

    /// Sets the maximum wait for a service's initial snapshot.
    pub fn with_initial_snapshot_timeout(self, initial_snapshot_timeout: Duration) -> Self {
        Self {
            initial_snapshot_timeout,
            ..self
        }
    }

    /// Sets the time for which nodes are retained after a mass removal (more than half of a service's nodes
    /// at once). The nodes' TTL is a good value: by then they have registered again.
    pub fn with_removal_protection(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// Restricts nodes to addresses that are `allowed` and [are for services](is_for_services). Others are
    /// ignored and counted: an entry in the registry must not direct requests to an arbitrary address.
    pub fn with_allowed(
        self,
        allowed: impl Fn(SocketAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        let allowed = move |address: SocketAddr| is_for_services(address.ip()) && allowed(address);
        Self {
            allowed: Arc::new(allowed),
            ..self
        }
    }

    /// Chooses a node of a service that has these tags; any node if `tags` is empty. Waits for the
    /// service's initial snapshot.
    ///
    /// # Errors
    /// [`Error::NotReady`] without an initial snapshot in time, [`Error::NoInstance`] if no node matches.
    pub async fn resolve(&self, service: &ServiceName, tags: &Tags) -> Result<InFlight, Error> {
        let resolver = self.resolver(service, tags);
        resolver.ready().await?;
        resolver.resolve(None)
    }

    /// Returns the resolver behind [`resolve`](Self::resolve), for callers that resolve with every request.
    /// Watches the service from now on.
    pub fn resolver(&self, service: &ServiceName, tags: &Tags) -> Arc<Resolver> {
        let mut resolvers = self
            .resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), tags.clone());
        if resolvers.len() >= MAX_RESOLVERS && !resolvers.contains_key(&key) {
            resolvers.clear(); // those in use live as long as their users
        }
        let resolver = resolvers.entry(key).or_insert_with(|| {
            Arc::new(Resolver::new(
                self.service(service),
                tags.clone(),
                self.balancer,
                self.initial_snapshot_timeout,
            ))
        });
        resolver.clone()
    }

    /// Returns the current view of a service, `None` before its initial snapshot. Watches the service from
    /// now on.
    pub fn view(&self, service: &ServiceName) -> Option<Arc<View>> {
        self.service(service).view().clone()
    }

    /// Returns a receiver that is notified of every later change of a service's view. Watches the service
    /// from now on.
    pub fn changes(&self, service: &ServiceName) -> watch::Receiver<()> {
        self.service(service).changes()
    }

    fn service(&self, name: &ServiceName) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let service = services.entry(name.clone()).or_insert_with(|| {
            Arc::new(Service::start(
                name.clone(),
                self.registry.clone(),
                &self.runtime,
                self.retention,
                self.allowed.clone(),
            ))
        });
        service.clone()
    }
}

impl fmt::Debug for DiscoveryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryClient")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
