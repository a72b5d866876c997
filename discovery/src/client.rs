use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::service::{Allowed, Service};
use crate::{
    Balancer, Error, InFlight, NodeRegistry, Resolver, ServiceName, Tags, View, is_for_services,
};

/// More resolvers than this, and all are forgotten: callers may invent as many tags as they like.
const MAX_RESOLVERS: usize = 1024;

/// Finds the nodes of services: follows each service that was ever asked for, and remembers its
/// nodes while the registry is away.
///
/// However many ask for a service, it is followed by one task, which belongs to the client and not
/// to whoever asked first. The tasks run on the runtime the client was made on and end with the
/// client and its resolvers. Chapters [5](crate::guide#5-a-client), [6](crate::guide#6-when-the-registry-is-away) and
/// [7](crate::guide#7-when-nodes-die) of the guide are about it.
pub struct DiscoveryClient {
    registry: Arc<dyn NodeRegistry>,
    runtime: Handle,
    balancer: Balancer,
    first_list_limit: Duration,
    keep_vanished: Duration,
    allowed: Allowed,
    /// Std mutexes, held for a look into a map: neither following nor a resolver that was already
    /// handed out ever waits for them.
    services: Mutex<HashMap<ServiceName, Arc<Service>>>,
    resolvers: Mutex<HashMap<(ServiceName, Tags), Arc<Resolver>>>,
}

impl DiscoveryClient {
    /// A client of this registry: round robin, and three seconds of patience for a first list.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(registry: Arc<dyn NodeRegistry>) -> Self {
        Self {
            registry,
            runtime: Handle::current(),
            balancer: Balancer::default(),
            first_list_limit: Duration::from_secs(3),
            keep_vanished: Duration::from_secs(10),
            allowed: Arc::new(|address| is_for_services(address.ip())),
            services: Mutex::default(),
            resolvers: Mutex::default(),
        }
    }

    /// The same with another balancer.
    pub fn with_balancer(self, balancer: Balancer) -> Self {
        Self { balancer, ..self }
    }

    /// The same with another limit on the wait for a service's first list.
    pub fn with_first_list_limit(self, first_list_limit: Duration) -> Self {
        Self {
            first_list_limit,
            ..self
        }
    }

    /// The same with another time for which nodes stay usable that vanished from the registry all at
    /// once. The nodes' time to live is the right one: by then they have registered again.
    pub fn with_vanished_kept_for(self, keep_vanished: Duration) -> Self {
        Self {
            keep_vanished,
            ..self
        }
    }

    /// The same that takes only nodes at addresses that are `allowed`, as long as they
    /// [are for services](is_for_services) at all. Nobody ever gets to know the others: an entry in the
    /// registry must not make us connect to whatever somebody wrote there.
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

    /// Chooses a node of a service with these tags, or any if there are none. Waits if the service's
    /// first list is not there yet.
    ///
    /// # Errors
    /// [`Error::NotReady`] without a first list in time, [`Error::NoInstance`] if no node fits.
    pub async fn resolve(&self, service: &ServiceName, tags: &Tags) -> Result<InFlight, Error> {
        let resolver = self.resolver(service, tags);
        resolver.ready().await?;
        resolver.resolve(None)
    }

    /// What [`resolve`](Self::resolve) resolves with, for those who do so often. Follows the service
    /// from now on.
    pub fn resolver(&self, service: &ServiceName, tags: &Tags) -> Arc<Resolver> {
        let mut resolvers = self
            .resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), tags.clone());
        if resolvers.len() >= MAX_RESOLVERS && !resolvers.contains_key(&key) {
            resolvers.clear(); // those in use live on with their users
        }
        let resolver = resolvers.entry(key).or_insert_with(|| {
            Arc::new(Resolver::new(
                self.service(service),
                tags.clone(),
                self.balancer,
                self.first_list_limit,
            ))
        });
        resolver.clone()
    }

    /// What is known of a service, `None` before its first list. Follows the service from now on.
    pub fn view(&self, service: &ServiceName) -> Option<Arc<View>> {
        self.service(service).view().clone()
    }

    /// Told of every change of a service's view from now on. Follows the service from now on.
    pub fn changes(&self, service: &ServiceName) -> watch::Receiver<()> {
        self.service(service).changes()
    }

    fn service(&self, name: &ServiceName) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let service = services.entry(name.clone()).or_insert_with(|| {
            Arc::new(Service::follow(
                name.clone(),
                self.registry.clone(),
                &self.runtime,
                self.keep_vanished,
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
