//! The choice of an endpoint for a request: filter by tags and state, then balance.
//!
//! The order follows [Envoy's load balancing][1]: endpoints that match, of these the ones that are
//! eligible (not ejected, above a panic threshold), of these the balancer's choice. The invariant: an
//! ejection never leaves a service without endpoints, draining may. Resolving does no I/O. Retries and
//! hedging are the caller's decision, ejection is that of `ejection.rs`.
//!
//! [1]: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::service::Service;
use crate::{
    Balancer, Ejection, Endpoint, Error, InFlight, LoadBalancer, ProbeKind, ServiceName, Tags,
};

/// Resolves one service, or those of its nodes that have certain tags: a balancer of its own and the
/// endpoints it chooses from. Made by [`DiscoveryClient::resolver`](crate::DiscoveryClient::resolver).
///
/// Resolving does no I/O, waits for no lock, and allocates nothing; choosing another endpoint allocates.
///
/// ```
/// use std::sync::Arc;
/// use discovery::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let registry = MemoryRegistry::default();
/// # let mut nodes = Vec::new();
/// # for port in [1, 2, 3] {
/// #     let node = ServiceNode::new("greeter".parse()?, ([10, 0, 0, 1], port).into());
/// #     nodes.push(registry.register(node, std::time::Duration::from_secs(10)));
/// # }
/// # for node in &nodes {
/// #     node.registered().await;
/// # }
/// // A registry with three nodes, and a client that stays with one of them.
/// let client = DiscoveryClient::new(Arc::new(registry)).with_balancer(Balancer::IpHash);
/// let resolver = client.resolver(&"greeter".parse()?, &Tags::new());
/// resolver.ready().await?;
/// let first = resolver.resolve(Some(b"192.0.2.7"))?;
/// let again = resolver.resolve(Some(b"192.0.2.7"))?;
/// assert_eq!(first.address, again.address);
///
/// // It did not respond: any other one.
/// let other = resolver.resolve_other(Some(b"192.0.2.7"), |node| node.address != first.address)?;
/// assert_ne!(first.address, other.address);
/// # Ok(()) }
/// ```
pub struct Resolver {
    service: Arc<Service>,
    tags: Tags,
    balancer: Box<dyn LoadBalancer>,
    /// Chooses for retries. With one balancer for both, some endpoints would always have their turn just
    /// when they are excluded.
    retry_balancer: Box<dyn LoadBalancer>,
    initial_snapshot_timeout: Duration,
    candidates: ArcSwap<Candidates>,
}

/// The endpoints to choose from, derived from one view and one state version. Contains no more of the
/// view than what matches: a resolver for tags that no node has may be one of a thousand.
#[derive(Default)]
struct Candidates {
    generation: u64,
    state_version: u64,
    /// Endpoints with the right tags that are not drained.
    matching: Arc<[Arc<Endpoint>]>,
    /// Of these, what may get requests in spite of ejections.
    eligible: Arc<[Arc<Endpoint>]>,
    /// Of these, what waits for a probe, with the time from which that may be a request that cannot be
    /// hedged.
    half_open: Vec<(Arc<Endpoint>, Instant)>,
}

impl Resolver {
    pub(crate) fn new(
        service: Arc<Service>,
        tags: Tags,
        balancer: Balancer,
        initial_snapshot_timeout: Duration,
    ) -> Self {
        Self {
            service,
            tags,
            balancer: balancer.build(),
            retry_balancer: balancer.build(),
            initial_snapshot_timeout,
            candidates: ArcSwap::default(),
        }
    }

    /// Returns the service that it resolves.
    pub fn service(&self) -> &ServiceName {
        self.service.name()
    }

    /// Waits for the service's initial snapshot, which usually came long ago.
    ///
    /// # Errors
    /// [`Error::NotReady`] if that takes longer than the client's timeout.
    pub async fn ready(&self) -> Result<(), Error> {
        if self.service.view().is_some() {
            return Ok(());
        }
        let waited = self.initial_snapshot_timeout;
        let ready = tokio::time::timeout(waited, self.service.ready()).await;
        ready.map_err(|_| Error::NotReady {
            service: self.service().clone(),
            waited,
        })
    }

    /// Chooses an endpoint. `key` is for balancers that keep a caller with one endpoint.
    ///
    /// # Errors
    /// [`Error::NoInstance`] if none matches or all that do are [drained](Endpoint::drain),
    /// [`Error::NotReady`] before the initial snapshot.
    pub fn resolve(&self, key: Option<&[u8]>) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        self.chosen(self.balancer.select(&candidates.eligible, key).cloned())
    }

    /// Chooses an endpoint as [`resolve`](Self::resolve) does, or one that is half-open and waits for a
    /// request of this kind, which then [probes](InFlight::is_probe) the endpoint.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_or_probe(&self, key: Option<&[u8]>, kind: ProbeKind) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        if let Some(probe) = candidates.probe(kind) {
            return Ok(probe);
        }
        self.chosen(self.balancer.select(&candidates.eligible, key).cloned())
    }

    /// Chooses an untried endpoint for a retry. Prefers those that [have succeeded](Endpoint::has_succeeded)
    /// before, since many new nodes at once may all be unreachable. Takes an ejected one if no other is
    /// left.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`Error::NoInstance`] if all were tried.
    pub fn resolve_other(
        &self,
        key: Option<&[u8]>,
        is_untried: impl Fn(&Endpoint) -> bool,
    ) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        let untried = |list: &[Arc<Endpoint>]| -> Vec<_> {
            let untried = list.iter().filter(|endpoint| is_untried(endpoint));
            untried.cloned().collect()
        };
        let mut rest = untried(&candidates.eligible);
        if rest.iter().any(|endpoint| endpoint.has_succeeded()) {
            rest.retain(|endpoint| endpoint.has_succeeded());
        }
        if rest.is_empty() {
            rest = untried(&candidates.matching);
        }
        self.chosen(self.retry_balancer.select(&rest, key).cloned())
    }

    fn chosen(&self, endpoint: Option<Arc<Endpoint>>) -> Result<InFlight, Error> {
        endpoint
            .map(InFlight::new)
            .ok_or_else(|| Error::NoInstance {
                service: self.service().clone(),
                tags: self.tags.clone(),
            })
    }

    /// Returns the candidates, computed once for each view and each state version.
    fn candidates(&self) -> Result<Guard<Arc<Candidates>>, Error> {
        let view = self.service.view();
        let Some(view) = view.as_ref() else {
            let (service, waited) = (self.service().clone(), Duration::ZERO);
            return Err(Error::NotReady { service, waited });
        };
        let (generation, state_version) = (view.generation(), view.state_version());
        let known = self.candidates.load();
        if (known.generation, known.state_version) == (generation, state_version) {
            return Ok(known);
        }
        let matches = |endpoint: &Arc<Endpoint>| {
            endpoint.tags.contain(&self.tags) && !endpoint.is_gone() && !endpoint.is_drained()
        };
        let matching = filtered(view.endpoints(), matches);
        let eligible = eligible(&matching);
        let half_open = half_open(&matching);
        let candidates = Arc::new(Candidates {
            generation,
            state_version,
            matching,
            eligible,
            half_open,
        });
        self.candidates.store(candidates.clone());
        Ok(Guard::from_inner(candidates))
    }
}

impl Candidates {
    /// Returns the probe of a half-open endpoint, if one awaits a request of this kind.
    fn probe(&self, kind: ProbeKind) -> Option<InFlight> {
        if self.half_open.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut waiting = self.half_open.iter();
        waiting.find_map(|(endpoint, unhedged_from)| {
            let may_probe = kind == ProbeKind::Hedged || *unhedged_from <= now;
            may_probe.then(|| InFlight::probe(endpoint)).flatten()
        })
    }
}

fn half_open(all: &[Arc<Endpoint>]) -> Vec<(Arc<Endpoint>, Instant)> {
    let ejected = all.iter().filter(|endpoint| endpoint.ejected().is_some());
    ejected
        .filter_map(|endpoint| Some((endpoint.clone(), endpoint.waits_for_probe()?)))
        .collect()
}

/// Returns the endpoints that may get requests, sorted by address.
///
/// Unreachable endpoints are left out as long as there are others: no request can succeed there. Other
/// ejected endpoints are left out as long as half of the reachable ones remain (the panic threshold),
/// since fewer could not bear the load. Below it, ejected endpoints stay eligible: silent ones before
/// failing ones, because a hedged request survives silence and not an error response, and among equals
/// the ones that were ejected last. If all were ejected for the same reason, the cause is probably not
/// in the endpoints, and all stay eligible.
fn eligible(matching: &Arc<[Arc<Endpoint>]>) -> Arc<[Arc<Endpoint>]> {
    if matching.iter().all(|endpoint| endpoint.ejected().is_none()) {
        return matching.clone();
    }
    let (mut eligible, mut ejected) = (Vec::new(), Vec::new());
    for endpoint in matching.iter() {
        match endpoint.ejected_since() {
            None => eligible.push(endpoint.clone()),
            Some((Ejection::Unreachable, _)) => {}
            Some((why, since)) => {
                let is_failing = why == Ejection::Failing;
                ejected.push((is_failing, Reverse(since), endpoint));
            }
        }
    }
    let reachable = eligible.len() + ejected.len();
    if reachable == 0 {
        return matching.clone();
    }
    ejected.sort_by_key(|(is_failing, since, _)| (*is_failing, *since));
    let is_same_reason = ejected.first().map(|e| e.0) == ejected.last().map(|e| e.0);
    let minimum = if eligible.is_empty() && is_same_reason {
        reachable
    } else {
        reachable.div_ceil(2)
    };
    let missing = minimum.saturating_sub(eligible.len());
    let retained = ejected.into_iter().take(missing);
    eligible.extend(retained.map(|(_, _, endpoint)| endpoint.clone()));
    eligible.sort_unstable_by_key(|endpoint| endpoint.address);
    eligible.into()
}

/// Returns the endpoints that pass a filter: the list itself if that is all of them.
fn filtered(
    all: &Arc<[Arc<Endpoint>]>,
    filter: impl Fn(&Arc<Endpoint>) -> bool,
) -> Arc<[Arc<Endpoint>]> {
    if all.iter().all(&filter) {
        all.clone()
    } else {
        all.iter().filter(|e| filter(e)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::ServiceNode;

    /// Returns the ports of eligible endpoints, out of ports 1 and so on, ejected one after another.
    fn eligible_ports(ejected: &[Option<Ejection>]) -> Vec<u16> {
        let endpoint = |(index, why): (usize, &Option<Ejection>)| {
            let address = ([10, 0, 0, 1], index as u16 + 1).into();
            let node = ServiceNode::new("a".parse().unwrap(), address);
            let endpoint = Endpoint::new(Arc::new(node));
            if let Some(why) = why {
                endpoint.eject(*why);
            }
            Arc::new(endpoint)
        };
        let endpoints = ejected.iter().enumerate().map(endpoint).collect();
        let eligible = eligible(&endpoints);
        eligible
            .iter()
            .map(|endpoint| endpoint.address.port())
            .collect()
    }

    const UP: Option<Ejection> = None;
    const UNREACHABLE: Option<Ejection> = Some(Ejection::Unreachable);
    const SILENT: Option<Ejection> = Some(Ejection::Silent);
    const FAILING: Option<Ejection> = Some(Ejection::Failing);

    #[test]
    fn ejected_endpoints_are_not_eligible() {
        assert_eq!(eligible_ports(&[UP, FAILING, UP]), [1, 3]);
        assert_eq!(eligible_ports(&[UP, FAILING, SILENT, UP]), [1, 4]);
        assert_eq!(eligible_ports(&[FAILING, UP]), [2]);
    }

    #[test]
    fn the_last_ejected_fill_up_to_the_threshold() {
        assert_eq!(eligible_ports(&[UP, FAILING, FAILING]), [1, 3]);
        assert_eq!(
            eligible_ports(&[SILENT, SILENT, SILENT, UP, SILENT]),
            [3, 4, 5]
        );
    }

    #[test]
    fn silent_endpoints_precede_failing_ones() {
        assert_eq!(eligible_ports(&[FAILING, SILENT, SILENT]), [2, 3]);
        assert_eq!(eligible_ports(&[SILENT, SILENT, FAILING]), [1, 2]);
        assert_eq!(eligible_ports(&[SILENT, FAILING]), [1]);
    }

    #[test]
    fn equal_ejections_exclude_no_endpoint() {
        assert_eq!(eligible_ports(&[FAILING, FAILING, FAILING]), [1, 2, 3]);
        assert_eq!(eligible_ports(&[SILENT, SILENT]), [1, 2]);
        assert_eq!(eligible_ports(&[FAILING]), [1]);
    }

    #[test]
    fn unreachable_endpoints_are_the_last_resort() {
        assert_eq!(
            eligible_ports(&[UNREACHABLE, UNREACHABLE, UNREACHABLE, UNREACHABLE, UP]),
            [5]
        );
        assert_eq!(eligible_ports(&[UNREACHABLE, FAILING, FAILING]), [2, 3]);
        assert_eq!(eligible_ports(&[UNREACHABLE, UNREACHABLE]), [1, 2]);
        assert!(eligible_ports(&[]).is_empty());
    }

    /// Returns a half-open endpoint, and the candidates that contain it.
    fn half_open_for(why: Ejection) -> (Arc<Endpoint>, Candidates) {
        let node = ServiceNode::new("a".parse().unwrap(), ([10, 0, 0, 1], 80).into());
        let endpoint = Arc::new(Endpoint::new(Arc::new(node)));
        endpoint.eject(why);
        endpoint.half_open();
        assert!(half_open(slice::from_ref(&endpoint)).is_empty(), "not yet");
        endpoint.expire_ejection();
        endpoint.half_open();
        let half_open = half_open(slice::from_ref(&endpoint));
        let candidates = Candidates {
            half_open,
            ..Candidates::default()
        };
        (endpoint, candidates)
    }

    #[test]
    fn one_hedged_request_probes_at_a_time() {
        for why in Ejection::ALL {
            let (endpoint, candidates) = half_open_for(why);
            assert!(candidates.probe(ProbeKind::Unhedged).is_none(), "not yet");
            let probe = candidates.probe(ProbeKind::Hedged).unwrap();
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
            drop(probe);
            let probe = candidates.probe(ProbeKind::Hedged).unwrap();
            probe.responded(true);
            assert_eq!(endpoint.ejected(), None);
            drop(probe);
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
        }
    }

    #[test]
    fn any_request_probes_after_the_delay() {
        let (_, mut candidates) = half_open_for(Ejection::Timeout);
        candidates.half_open[0].1 = Instant::now();
        assert!(candidates.probe(ProbeKind::Unhedged).is_some());
    }

    #[test]
    fn a_failed_probe_leaves_the_endpoint_ejected() {
        for why in [Ejection::Failing, Ejection::Timeout, Ejection::Unreachable] {
            let (endpoint, candidates) = half_open_for(Ejection::Silent);
            let probe = candidates.probe(ProbeKind::Hedged).unwrap();
            match why {
                Ejection::Failing => probe.responded(false),
                Ejection::Timeout => probe.timed_out(),
                Ejection::Unreachable | Ejection::Silent => probe.eject(why),
            }
            drop(probe);
            assert_eq!(endpoint.ejected(), Some(why));
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
            assert!(!endpoint.is_ejection_expired());
        }
    }
}
