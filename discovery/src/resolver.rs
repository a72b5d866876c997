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
/// Resolving does no I/O, waits for no lock, and allocates nothing; choosing another one does.
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
/// // A registry with three nodes, and who stays with one of them.
/// let client = DiscoveryClient::new(Arc::new(registry)).with_balancer(Balancer::IpHash);
/// let resolver = client.resolver(&"greeter".parse()?, &Tags::new());
/// resolver.ready().await?;
/// let first = resolver.resolve(Some(b"192.0.2.7"))?;
/// let again = resolver.resolve(Some(b"192.0.2.7"))?;
/// assert_eq!(first.address, again.address);
///
/// // It did not answer: anybody else.
/// let other = resolver.resolve_other(Some(b"192.0.2.7"), |node| node.address != first.address)?;
/// assert_ne!(first.address, other.address);
/// # Ok(()) }
/// ```
pub struct Resolver {
    service: Arc<Service>,
    tags: Tags,
    balancer: Box<dyn LoadBalancer>,
    /// Chooses for those who try again. With one balancer for both, some endpoints would always have
    /// their turn just when it is passed over.
    substitute: Box<dyn LoadBalancer>,
    first_list_limit: Duration,
    candidates: ArcSwap<Candidates>,
}

/// What there is to choose from, and of which list it was made. It keeps no more of that list than
/// fits: a resolver for tags that nobody has may be one of a thousand.
#[derive(Default)]
struct Candidates {
    generation: u64,
    standing_changes: u64,
    /// With the right tags, and not drained.
    fitting: Arc<[Arc<Endpoint>]>,
    /// Of these, what is not set aside.
    usable: Arc<[Arc<Endpoint>]>,
    /// Of these, what waits for a request that shows whether it works, and from when on that may be one
    /// that cannot be hedged.
    half_open: Vec<(Arc<Endpoint>, Instant)>,
}

impl Resolver {
    pub(crate) fn new(
        service: Arc<Service>,
        tags: Tags,
        balancer: Balancer,
        first_list_limit: Duration,
    ) -> Self {
        Self {
            service,
            tags,
            balancer: balancer.build(),
            substitute: balancer.build(),
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

    /// Chooses an endpoint. `key` is for balancers that keep a caller with one endpoint.
    ///
    /// # Errors
    /// [`Error::NoInstance`] if none fits or all that do are [drained](Endpoint::drain),
    /// [`Error::NotReady`] before the first list.
    pub fn resolve(&self, key: Option<&[u8]>) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        self.chosen(self.balancer.select(&candidates.usable, key).cloned())
    }

    /// Chooses an endpoint as [`resolve`](Self::resolve) does, or one that is half-open and waits for a
    /// request of this kind: that [probes](InFlight::is_probe) the endpoint.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_or_probe(&self, key: Option<&[u8]>, kind: ProbeKind) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        if let Some(probe) = candidates.probe(kind) {
            return Ok(probe);
        }
        self.chosen(self.balancer.select(&candidates.usable, key).cloned())
    }

    /// Chooses another endpoint, for a caller that tries again: one that it has not tried, rather
    /// one that has answered before, since many may have joined that nobody can connect to, and at
    /// last even one that is set aside.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`Error::NoInstance`] if all were tried.
    pub fn resolve_other(
        &self,
        key: Option<&[u8]>,
        is_untried: impl Fn(&Endpoint) -> bool,
    ) -> Result<InFlight, Error> {
        let candidates = self.candidates()?;
        let proven = candidates
            .usable
            .iter()
            .filter(|endpoint| endpoint.is_proven());
        let lists: [&mut dyn Iterator<Item = &Arc<Endpoint>>; 3] = [
            &mut { proven },
            &mut candidates.usable.iter(),
            &mut candidates.fitting.iter(),
        ];
        // An empty list is not shown to the balancer: it would cost somebody a turn.
        let mut lists = lists.into_iter().map(|list| {
            let rest = list.filter(|endpoint| is_untried(endpoint));
            rest.cloned().collect::<Vec<_>>()
        });
        let rest = lists.find(|rest| !rest.is_empty()).unwrap_or_default();
        self.chosen(self.substitute.select(&rest, key).cloned())
    }

    fn chosen(&self, endpoint: Option<Arc<Endpoint>>) -> Result<InFlight, Error> {
        endpoint
            .map(InFlight::new)
            .ok_or_else(|| Error::NoInstance {
                service: self.service().clone(),
                tags: self.tags.clone(),
            })
    }

    /// What to choose from: sorted out once for each list and each ejection, by whoever comes first.
    fn candidates(&self) -> Result<Guard<Arc<Candidates>>, Error> {
        let view = self.service.view();
        let Some(view) = view.as_ref() else {
            let (service, waited) = (self.service().clone(), Duration::ZERO);
            return Err(Error::NotReady { service, waited });
        };
        let (generation, standing_changes) = (view.generation(), view.standing_changes());
        let known = self.candidates.load();
        if (known.generation, known.standing_changes) == (generation, standing_changes) {
            return Ok(known);
        }
        let fits = |endpoint: &Arc<Endpoint>| {
            endpoint.tags.contain(&self.tags) && !endpoint.is_gone() && !endpoint.is_drained()
        };
        let fitting = only(view.endpoints(), fits);
        let usable = usable(&fitting);
        let half_open = half_open(&fitting);
        let candidates = Arc::new(Candidates {
            generation,
            standing_changes,
            fitting,
            usable,
            half_open,
        });
        self.candidates.store(candidates.clone());
        Ok(Guard::from_inner(candidates))
    }
}

impl Candidates {
    /// The probe of a half-open endpoint, if there is one to be.
    fn probe(&self, kind: ProbeKind) -> Option<InFlight> {
        if self.half_open.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut waiting = self.half_open.iter();
        waiting.find_map(|(endpoint, unhedged_from)| {
            let fits = kind == ProbeKind::Hedged || *unhedged_from <= now;
            fits.then(|| InFlight::probe(endpoint)).flatten()
        })
    }
}

fn half_open(all: &[Arc<Endpoint>]) -> Vec<(Arc<Endpoint>, Instant)> {
    let ejected = all.iter().filter(|endpoint| endpoint.ejected().is_some());
    ejected
        .filter_map(|endpoint| Some((endpoint.clone(), endpoint.waits_for_probe()?)))
        .collect()
}

/// Leaves out what is set aside.
///
/// Endpoints that nobody can connect to are left out as long as there are others: no request can
/// succeed there. Those under suspicion are left out as long as half remain, since fewer could not
/// bear the load. Of more suspects than that, some stay in use: rather those that were silent, for
/// requests get over silence and not over bad answers, and rather those that were ejected last. If
/// all were ejected for the same reason, it says nothing about any of them, and all stay in use.
fn usable(all: &Arc<[Arc<Endpoint>]>) -> Arc<[Arc<Endpoint>]> {
    if all.iter().all(|endpoint| endpoint.ejected().is_none()) {
        return all.clone();
    }
    let standing = all
        .iter()
        .map(|endpoint| (endpoint, endpoint.ejected_since()));
    let reachable = |why: &Option<(Ejection, _)>| !matches!(why, Some((Ejection::Unreachable, _)));
    let reachable: Vec<_> = standing.filter(|(_, ejected)| reachable(ejected)).collect();
    if reachable.is_empty() {
        return all.clone();
    }
    // The first are the first to stay in use.
    let order = |(endpoint, ejected): &(&Arc<Endpoint>, Option<(Ejection, Instant)>)| {
        ejected.map(|(why, since)| (why == Ejection::Failing, Reverse(since), endpoint.address))
    };
    let mut suspects: Vec<_> = reachable.iter().filter_map(order).collect();
    suspects.sort_unstable();
    let up = reachable.len() - suspects.len();
    let all_alike = up == 0 && suspects.first().map(|s| s.0) == suspects.last().map(|s| s.0);
    let needed = match all_alike {
        true => suspects.len(),
        false => reachable.len().div_ceil(2).saturating_sub(up),
    };
    let last = needed.checked_sub(1).map(|index| suspects[index]);
    let in_use = reachable.iter().filter(|entry| order(entry) <= last);
    in_use.map(|(endpoint, _)| Arc::clone(endpoint)).collect()
}

/// Those of a list for which something holds: the list itself if that is all of them.
fn only(
    all: &Arc<[Arc<Endpoint>]>,
    holds: impl Fn(&Arc<Endpoint>) -> bool,
) -> Arc<[Arc<Endpoint>]> {
    match all.iter().all(&holds) {
        true => all.clone(),
        false => all.iter().filter(|e| holds(e)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::ServiceNode;

    /// Ports of those in use, out of ports 1 and so on that were ejected one after another.
    fn usable_ports(ejected: &[Option<Ejection>]) -> Vec<u16> {
        let endpoint = |(index, why): (usize, &Option<Ejection>)| {
            let address = ([10, 0, 0, 1], index as u16 + 1).into();
            let node = ServiceNode::new("a".parse().unwrap(), address);
            let endpoint = Endpoint::new(Arc::new(node));
            why.iter().for_each(|why| endpoint.eject(*why));
            Arc::new(endpoint)
        };
        let endpoints = ejected.iter().enumerate().map(endpoint).collect();
        let usable = usable(&endpoints);
        usable
            .iter()
            .map(|endpoint| endpoint.address.port())
            .collect()
    }

    const UP: Option<Ejection> = None;
    const GONE: Option<Ejection> = Some(Ejection::Unreachable);
    const MUTE: Option<Ejection> = Some(Ejection::Silent);
    const SICK: Option<Ejection> = Some(Ejection::Failing);

    #[test]
    fn suspects_are_left_out_as_long_as_half_remain() {
        assert_eq!(usable_ports(&[UP, SICK, UP]), [1, 3]);
        assert_eq!(usable_ports(&[UP, SICK, MUTE, UP]), [1, 4]);
        assert_eq!(usable_ports(&[SICK, UP]), [2]);
    }

    #[test]
    fn half_stay_in_use_and_those_set_aside_first_stay_aside() {
        assert_eq!(usable_ports(&[UP, SICK, SICK]), [1, 3]);
        assert_eq!(usable_ports(&[MUTE, MUTE, MUTE, UP, MUTE]), [3, 4, 5]);
    }

    #[test]
    fn a_sick_one_stays_aside_when_the_others_were_only_late() {
        assert_eq!(usable_ports(&[SICK, MUTE, MUTE]), [2, 3]);
        assert_eq!(usable_ports(&[MUTE, MUTE, SICK]), [1, 2]);
        assert_eq!(usable_ports(&[MUTE, SICK]), [1]);
    }

    #[test]
    fn all_stay_in_use_if_the_same_is_held_against_all() {
        assert_eq!(usable_ports(&[SICK, SICK, SICK]), [1, 2, 3]);
        assert_eq!(usable_ports(&[MUTE, MUTE]), [1, 2]);
        assert_eq!(usable_ports(&[SICK]), [1]);
    }

    #[test]
    fn the_unreachable_are_left_out_as_long_as_there_are_others() {
        assert_eq!(usable_ports(&[GONE, GONE, GONE, GONE, UP]), [5]);
        assert_eq!(usable_ports(&[GONE, SICK, SICK]), [2, 3]);
        assert_eq!(usable_ports(&[GONE, GONE]), [1, 2]);
        assert!(usable_ports(&[]).is_empty());
    }

    /// Half-open, as a resolver finds it.
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
    fn one_request_that_can_be_hedged_probes_a_half_open_endpoint() {
        for why in Ejection::ALL {
            let (endpoint, candidates) = half_open_for(why);
            assert!(candidates.probe(ProbeKind::Unhedged).is_none(), "not yet");
            let probe = candidates.probe(ProbeKind::Hedged).unwrap();
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
            drop(probe);
            let probe = candidates.probe(ProbeKind::Hedged).unwrap();
            probe.answered(true);
            assert_eq!(endpoint.ejected(), None);
            drop(probe);
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
        }
    }

    #[test]
    fn any_request_probes_an_endpoint_that_has_waited() {
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
                Ejection::Failing => probe.answered(false),
                Ejection::Timeout => probe.timed_out(),
                Ejection::Unreachable | Ejection::Silent => probe.eject(why),
            }
            drop(probe);
            assert_eq!(endpoint.ejected(), Some(why));
            assert!(candidates.probe(ProbeKind::Hedged).is_none());
            assert!(!endpoint.trial_is_due());
        }
    }
}
