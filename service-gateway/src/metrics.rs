//! Counts what the gateway does, for [Prometheus](https://prometheus.io/docs/practices/naming/).
//!
//! Each worker writes into a [`Tally`] of its own; `/metrics` adds them up. Which metrics there are
//! is the table in [`Metrics::text`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use discovery::{Ejection, Endpoint, NodeState, ServiceName, View};
use http1::Timeout;
use serde::Serialize;
use service_runtime::{logging, process};

use crate::access_log::AccessLog;
use crate::client::Clients;
use crate::error::Reason;

mod page;
mod tally;
mod versions;

pub(crate) use page::Format;
use page::{Labels, Page, Value};
use tally::{BUCKETS, CODES, Counts, FAILURES, ServiceCounts};
pub(crate) use tally::{Served, Step, Tally};
use versions::{Number, Versions};

/// What all workers counted.
pub(crate) struct Metrics {
    /// The first one has no name: requests that no route took.
    services: Vec<Service>,
    /// A std mutex: locked when a worker starts, and when somebody asks for the numbers.
    workers: Mutex<Vec<Arc<Counts>>>,
}

struct Service {
    name: String,
    versions: Versions,
}

/// What others know at the moment, to be shown beside what was counted.
pub(crate) struct Situation<'a> {
    pub(crate) views: Vec<(&'a ServiceName, Option<Arc<View>>)>,
    pub(crate) clients: &'a Clients,
    pub(crate) access_log: Option<&'a AccessLog>,
}

/// The sums that tell at a glance how it goes.
#[derive(Serialize)]
pub(crate) struct Totals {
    requests: u64,
    /// Answered with 5xx, by nodes or by the gateway itself.
    failures: u64,
    retries: u64,
    hedges: u64,
}

impl Metrics {
    pub(crate) fn new<'a>(services: impl IntoIterator<Item = &'a ServiceName>) -> Self {
        let mut names = vec![String::new()];
        names.extend(services.into_iter().map(ServiceName::to_string));
        names.sort_unstable();
        names.dedup();
        let service = |name| Service {
            name,
            versions: Versions::default(),
        };
        Self {
            services: names.into_iter().map(service).collect(),
            workers: Mutex::default(),
        }
    }

    /// For one more worker.
    pub(crate) fn tally(&self) -> Tally {
        let counts = Arc::new(Counts::new(self.services.len()));
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(counts.clone());
        Tally::new(counts)
    }

    /// A route takes a request to this service.
    pub(crate) fn went_to(&self, served: &mut Served, service: &ServiceName) {
        let mut services = self.services.iter();
        let number = services.position(|known| known.name == service.as_str());
        served.service = number.unwrap_or_default();
    }

    /// A node of this version answered.
    pub(crate) fn came_from(&self, served: &mut Served, version: Option<&str>) {
        served.version = self.services[served.service].versions.number(version);
    }

    /// The name of the service that a request went to.
    pub(crate) fn service(&self, served: Served) -> Option<&str> {
        let name = &self.services[served.service].name;
        (!name.is_empty()).then_some(name)
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            requests: (0..CODES.len()).map(|code| self.answered(code)).sum(),
            failures: (FAILURES..CODES.len())
                .map(|code| self.answered(code))
                .sum(),
            retries: self.sum(|counts| &counts.steps[Step::Retry as usize]),
            hedges: self.sum(|counts| &counts.steps[Step::Hedge as usize]),
        }
    }

    /// Requests to all services whose status has this place in [`CODES`], by all workers.
    fn answered(&self, code: usize) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let services = workers.iter().flat_map(|counts| &counts.services);
        let counts = services.map(|service| service.of_code(code));
        counts.fold(0, u64::wrapping_add)
    }

    /// Gives the numbers of versions that no node has any more to others, once they run short. Their
    /// counts go with them.
    pub(crate) fn forget_versions<'a>(
        &self,
        views: impl IntoIterator<Item = (&'a ServiceName, &'a View)>,
    ) {
        for (name, view) in views {
            let mut services = self.services.iter();
            let service = services.find(|service| service.name == name.as_str());
            if let Some(service) = service.filter(|service| service.versions.is_short()) {
                let endpoints = view.endpoints().iter();
                let known = endpoints.filter_map(|endpoint| endpoint.version());
                service.versions.retain(&known.collect());
            }
        }
    }

    /// Everything, as `/metrics` shows it.
    #[rustfmt::skip]
    pub(crate) fn text(&self, situation: &Situation<'_>, format: Format) -> String {
        let Situation {
            views,
            clients,
            access_log,
        } = situation;
        let dropped = access_log.map_or(0, AccessLog::dropped);
        let of = |step: Step| self.sum(|counts| &counts.steps[step as usize]);
        let refusals = Reason::ALL.map(|reason| {
            let count = self.sum(|counts| &counts.refusals[reason as usize]);
            (labels([("reason", reason.name())]), count)
        });
        let cut = [("head", Timeout::Head), ("reading", Timeout::Response)]
            .map(|(name, slow)| (labels([("reason", name)]), clients.timed_out(slow)));
        let build = [(labels([("version", env!("CARGO_PKG_VERSION"))]), 1)];
        let mut page = Page::new(format);
        page.counter("requests", "Requests answered, by service, the node's version and the status", self.requests());
        page.histogram("request_duration_seconds", "Time to the head of the answer", self.latencies());
        page.counter("refusals", "Requests that the gateway answered itself", refusals);
        page.counter("attempts", "Requests sent to nodes", one(of(Step::Attempt)));
        page.counter("retries", "Requests sent to another node after an attempt failed", one(of(Step::Retry)));
        page.counter("hedges", "Requests sent to a second node beside a silent one", one(of(Step::Hedge)));
        page.counter("budget_refusals", "Further attempts that the retry budget refused", one(of(Step::BudgetRefusal)));
        page.gauge("connections", "Clients' connections now", one(clients.connections() as u64));
        page.gauge("requests_in_flight", "Requests being answered now", one(clients.in_flight() as u64));
        page.counter("connections_cut", "Connections cut off because the client was too slow", cut);
        page.gauge("nodes", "Nodes known now, by what may be done with them", each(views, nodes));
        page.gauge("nodes_ejected", "Ejected nodes", each(views, ejected));
        page.counter("ejections", "Ejections of nodes", each(views, ejections));
        page.gauge("registry_connected", "1 while the registry can be followed", each(views, connected));
        page.gauge("registry_revision", "The revision of the last list", each(views, |view| [(Labels::new(), view.map_or(0, View::revision))]));
        page.gauge("registry_stale_seconds", "For how long the last list is stale", each(views, stale));
        page.counter("registry_lists", "Snapshots received from the registry", each(views, |view| [(Labels::new(), view.map_or(0, View::snapshots))]));
        page.gauge("registry_skipped_entries", "Entries of the last list that could not be read", each(views, |view| [(Labels::new(), view.map_or(0, View::skipped) as u64)]));
        page.counter("access_log_dropped", "Lines of the access log that nobody took in time", one(dropped));
        page.counter("log_lines_dropped", "Lines of the program's own log that standard error did not take in time", one(logging::dropped_lines()));
        page.gauge("build_info", "The version of this gateway, always 1", build);
        page.process(&process::metrics(format == Format::OpenMetrics));
        page.end()
    }

    /// Only what was seen, but for each service at least the line without a version.
    fn requests(&self) -> Vec<(Labels, u64)> {
        let mut samples = Vec::new();
        for (service, Service { name, versions }) in self.services.iter().enumerate() {
            for (number, version) in versions.names() {
                let counts = self.requests_to(service, number);
                if number != Number::default() && counts.iter().all(|count| *count == 0) {
                    continue;
                }
                for (code, count) in CODES.into_iter().zip(counts) {
                    let pairs = [
                        ("service", name.as_str()),
                        ("version", &*version),
                        ("code", code),
                    ];
                    samples.push((labels(pairs), count));
                }
            }
        }
        samples
    }

    /// Requests to one version, by status as in [`CODES`], by all workers.
    fn requests_to(&self, service: usize, version: Number) -> [u64; CODES.len()] {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = [0_u64; CODES.len()];
        for counts in workers.iter() {
            let counts = counts.services[service].requests(version);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.wrapping_add(count);
            }
        }
        sums
    }

    fn latencies(&self) -> Vec<(Labels, Value)> {
        let services = self.services.iter().enumerate();
        let latencies = services.map(|(number, service)| {
            let sum = |of: fn(&ServiceCounts, usize) -> &AtomicU64, bucket: usize| {
                self.sum(|counts| of(&counts.services[number], bucket))
            };
            let seconds = sum(|counts, _| &counts.nanoseconds, 0) as f64 / 1e9;
            let bounds = BUCKETS.iter().map(|bound| *bound as f64 / 1e6);
            let buckets = bounds.chain([f64::INFINITY]).enumerate();
            let buckets = buckets
                .map(|(bucket, bound)| (bound, sum(|counts, n| &counts.latencies[n], bucket)));
            let value = Value::Latencies(seconds, buckets.collect());
            (labels([("service", service.name.as_str())]), value)
        });
        latencies.collect()
    }

    /// Of all workers.
    fn sum(&self, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = workers
            .iter()
            .map(|counts| of(counts).load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

/// A number without labels.
fn one(number: u64) -> [(Labels, u64); 1] {
    [(Labels::new(), number)]
}

/// Numbers of each service.
fn each<S: IntoIterator<Item = (Labels, u64)>>(
    views: &[(&ServiceName, Option<Arc<View>>)],
    numbers: impl Fn(Option<&View>) -> S,
) -> Vec<(Labels, u64)> {
    let mut samples = Vec::new();
    for (service, view) in views {
        for (more, number) in numbers(view.as_deref()) {
            let labels = labels([("service", service.as_str())]);
            samples.push(([labels, more].concat(), number));
        }
    }
    samples
}

fn nodes(view: Option<&View>) -> [(Labels, u64); 4] {
    NodeState::ALL.map(|state| {
        let count = count(view, |endpoint| endpoint.state() == state);
        (labels([("state", state.as_str())]), count)
    })
}

fn ejected(view: Option<&View>) -> [(Labels, u64); Ejection::ALL.len()] {
    Ejection::ALL.map(|why| {
        let count = count(view, |endpoint| endpoint.ejected() == Some(why));
        (labels([("reason", why.as_str())]), count)
    })
}

fn ejections(view: Option<&View>) -> [(Labels, u64); Ejection::ALL.len()] {
    let so_far = |why| view.map_or(0, |view| view.ejections(why));
    Ejection::ALL.map(|why| (labels([("reason", why.as_str())]), so_far(why)))
}

fn connected(view: Option<&View>) -> [(Labels, u64); 1] {
    one(view.is_some_and(|view| view.stale_for().is_none()).into())
}

fn stale(view: Option<&View>) -> [(Labels, u64); 1] {
    one(view
        .and_then(View::stale_for)
        .map_or(0, |stale| stale.as_secs()))
}

fn count(view: Option<&View>, counts: impl Fn(&Endpoint) -> bool) -> u64 {
    let endpoints = view.into_iter().flat_map(|view| view.endpoints().as_ref());
    endpoints.filter(|endpoint| counts(endpoint)).count() as u64
}
