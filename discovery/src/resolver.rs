use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::service::Service;
use crate::{Endpoint, Error, InFlight, LoadBalancer, ServiceName, Tags};

/// Resolves one service, or those of its nodes that have certain tags: a balancer of its own and the
/// endpoints it chooses from. Made by [`DiscoveryClient::resolver`](crate::DiscoveryClient::resolver).
///
/// Resolving does no I/O, waits for no lock, and allocates nothing unless endpoints are refused.
pub struct Resolver {
    service: Arc<Service>,
    tags: Tags,
    balancer: Box<dyn LoadBalancer>,
    first_list_limit: Duration,
    candidates: ArcSwap<Candidates>,
}

/// The endpoints with the right tags, and the whole list they were taken from.
#[derive(Default)]
struct Candidates {
    of: Arc<[Arc<Endpoint>]>,
    fitting: Arc<[Arc<Endpoint>]>,
}

impl Resolver {
    pub(crate) fn new(
        service: Arc<Service>,
        tags: Tags,
        balancer: Box<dyn LoadBalancer>,
        first_list_limit: Duration,
    ) -> Self {
        Self {
            service,
            tags,
            balancer,
            first_list_limit,
            candidates: ArcSwap::default(),
        }
    }

    /// The service it resolves.
    pub fn service(&self) -> &ServiceName {
        self.service.name()
    }

    /// Waits until the registry has told the service's nodes once, which is usually long ago.
    ///
    /// # Errors
    /// [`Error::NotReady`] if that takes longer than the client's limit.
    pub async fn ready(&self) -> Result<(), Error> {
        if self.service.view().is_some() {
            return Ok(());
        }
        let waited = self.first_list_limit;
        let ready = tokio::time::timeout(waited, self.service.ready()).await;
        ready.map_err(|_| Error::NotReady {
            service: self.service().clone(),
            waited,
        })
    }

    /// Chooses one of the endpoints that are `usable`, for which a caller that tries again says
    /// "not those I tried already". `key` is for balancers that keep a caller with one endpoint.
    ///
    /// # Errors
    /// [`Error::NoInstance`] if none fits, [`Error::NotReady`] before the first list.
    pub fn resolve(
        &self,
        key: Option<&[u8]>,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        let chosen = match self.balancer.select(&candidates, key) {
            Some(chosen) if !usable(chosen) => {
                let usable = candidates.iter().filter(|endpoint| usable(endpoint));
                let usable: Vec<_> = usable.cloned().collect();
                self.balancer.select(&usable, key).cloned()
            }
            chosen => chosen.cloned(),
        };
        chosen.map(InFlight::new).ok_or_else(|| Error::NoInstance {
            service: self.service().clone(),
            tags: self.tags.clone(),
        })
    }

    /// The endpoints with the right tags: sorted out once for each list, by whoever comes first.
    fn candidates(&self) -> Result<Arc<[Arc<Endpoint>]>, Error> {
        let view = self.service.view();
        let Some(view) = view.as_ref() else {
            let (service, waited) = (self.service().clone(), Duration::ZERO);
            return Err(Error::NotReady { service, waited });
        };
        if self.tags.is_empty() {
            return Ok(view.endpoints().clone());
        }
        let known = self.candidates.load();
        if Arc::ptr_eq(&known.of, view.endpoints()) {
            return Ok(known.fitting.clone());
        }
        let fitting = view
            .endpoints()
            .iter()
            .filter(|endpoint| endpoint.tags.contain(&self.tags));
        let fitting: Arc<[_]> = fitting.cloned().collect();
        let of = view.endpoints().clone();
        self.candidates.store(Arc::new(Candidates {
            of,
            fitting: fitting.clone(),
        }));
        Ok(fitting)
    }
}
