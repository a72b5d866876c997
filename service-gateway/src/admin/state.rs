//! What there is to see, as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use discovery::{Ejection, Endpoint, NodeState, ServiceName, Tags, View};
use serde::Serialize;

use super::Views;
use super::history::Event;
use crate::metrics::Totals;

/// Everything a picture of the gateway needs. It is always told as a whole, so whoever missed some
/// is right again with the next. Counts only grow: rates are differences between two of them.
#[derive(Serialize)]
pub(super) struct State<'a> {
    pub(super) uptime_seconds: u64,
    pub(super) totals: Totals,
    pub(super) services: Vec<Service<'a>>,
    /// The last ones, the oldest first.
    pub(super) events: &'a [Event],
}

#[derive(Serialize)]
pub(super) struct Service<'a> {
    service: &'a str,
    registry: Registry,
    /// How many nodes there are, shown or not, by version; nodes without one count under `""`.
    versions: BTreeMap<&'a str, usize>,
    /// The same by what state they are in.
    states: BTreeMap<&'static str, usize>,
    instances: Vec<Instance<'a>>,
    /// Drained addresses where no node is registered now.
    drained_unregistered: Vec<SocketAddr>,
}

#[derive(Serialize)]
struct Registry {
    state: &'static str,
    revision: u64,
    age_seconds: u64,
    skipped_entries: usize,
    stale_for_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Instance<'a> {
    instance: &'a str,
    version: Option<&'a str>,
    tags: &'a Tags,
    state: &'static str,
    ejected: Option<&'static str>,
    in_flight: usize,
    requests: u64,
    failures: u64,
    /// What all of its requests took together.
    micros: u128,
}

/// All services, and of each as many nodes.
pub(super) fn services<'a>(views: &'a Views<'a>, limit: usize) -> Vec<Service<'a>> {
    let services = views.iter();
    services
        .map(|(name, view)| Service::new(name, view.as_deref(), limit))
        .collect()
}

impl<'a> Service<'a> {
    fn new(service: &'a ServiceName, view: Option<&'a View>, limit: usize) -> Self {
        let endpoints = view.map_or(&[][..], |view| view.endpoints());
        let (mut versions, mut states) = (BTreeMap::new(), BTreeMap::new());
        for endpoint in endpoints {
            *versions
                .entry(endpoint.version().unwrap_or(""))
                .or_default() += 1;
            *states.entry(endpoint.state().as_str()).or_default() += 1;
        }
        Self {
            service: service.as_str(),
            registry: Registry::new(view),
            versions,
            states,
            instances: shown(endpoints, limit).map(Instance::new).collect(),
            drained_unregistered: view.map(View::drained_unregistered).unwrap_or_default(),
        }
    }
}

/// As many as the limit allows: rather those that something is wrong with. Sorted by address.
fn shown(endpoints: &[Arc<Endpoint>], limit: usize) -> impl Iterator<Item = &Endpoint> {
    let is_up = |endpoint: &Endpoint| endpoint.state() == NodeState::Up;
    let all = endpoints.iter().map(Arc::as_ref);
    let not_up = all.clone().filter(|endpoint| !is_up(endpoint)).count();
    let mut room = limit.saturating_sub(not_up);
    let fits = move |endpoint: &&Endpoint| match is_up(endpoint) {
        true if room == 0 => false,
        true => {
            room -= 1;
            true
        }
        false => true,
    };
    all.filter(fits).take(limit)
}

impl Registry {
    fn new(view: Option<&View>) -> Self {
        let stale = view.and_then(View::stale_for);
        Self {
            state: match (view, stale) {
                (None, _) => "pending",
                (Some(_), None) => "connected",
                (Some(_), Some(_)) => "away",
            },
            revision: view.map_or(0, View::revision),
            age_seconds: view.map_or(0, |view| view.age().as_secs()),
            skipped_entries: view.map_or(0, View::skipped),
            stale_for_seconds: stale.map(|stale| stale.as_secs()),
        }
    }
}

impl<'a> Instance<'a> {
    fn new(endpoint: &'a Endpoint) -> Self {
        let state = endpoint.state();
        let traffic = endpoint.traffic();
        Self {
            instance: endpoint.authority(),
            version: endpoint.version(),
            tags: &endpoint.tags,
            state: state.as_str(),
            ejected: endpoint
                .ejected()
                .filter(|_| state == NodeState::Ejected)
                .map(Ejection::as_str),
            in_flight: endpoint.in_flight(),
            requests: traffic.requests,
            failures: traffic.failures,
            micros: traffic.time.as_micros(),
        }
    }
}
