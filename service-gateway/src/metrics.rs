use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::StatusCode;
use discovery::{Ejection, ServiceName, View};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::client::{Clients, Slow};
use crate::error::Reason;

/// Counts what the gateway does, for Prometheus.
pub(crate) struct Metrics {
    registry: Registry,
    /// By the first digit of the status, 1 to 5.
    requests: [Counter; 5],
    /// In the order of [`Reason::ALL`].
    refusals: [Counter; Reason::ALL.len()],
    duration: Histogram,
    attempts: Counter,
    retries: Counter,
    hedges: Counter,
    budget_refusals: Counter,
    connections: Gauge,
    in_flight: Gauge,
    cut: [Counter; 2],
    services: Services,
}

/// What is known of each service, set whenever somebody asks.
#[derive(Default)]
struct Services {
    nodes: Family<ServiceLabel, Gauge>,
    ejected: Family<EjectionLabels, Gauge>,
    ejections: Family<EjectionLabels, Counter>,
    connected: Family<ServiceLabel, Gauge>,
    revision: Family<ServiceLabel, Gauge>,
    stale_seconds: Family<ServiceLabel, Gauge>,
    skipped: Family<ServiceLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EjectionLabels {
    service: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// From a fast local answer to the default timeout, in seconds.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gateway");
        let (codes, reasons) = (
            Family::<CodeLabel, Counter>::default(),
            Family::<ReasonLabel, Counter>::default(),
        );
        let [attempts, retries, hedges, budget_refusals] = [(); 4].map(|()| Counter::default());
        let (connections, in_flight) = (Gauge::default(), Gauge::default());
        let cuts = Family::<ReasonLabel, Counter>::default();
        let duration = Histogram::new(BUCKETS);
        let services = Services::default();
        registry.register(
            "requests",
            "Requests answered, by the class of the status",
            codes.clone(),
        );
        registry.register(
            "refusals",
            "Requests the gateway answered itself, by reason",
            reasons.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time to the head of the answer",
            duration.clone(),
        );
        registry.register("attempts", "Requests sent to nodes", attempts.clone());
        registry.register(
            "hedges",
            "Requests sent to a second node beside a silent one",
            hedges.clone(),
        );
        registry.register(
            "budget_refusals",
            "Further attempts that the retry budget refused",
            budget_refusals.clone(),
        );
        registry.register(
            "connections",
            "Clients' connections now",
            connections.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests being answered now",
            in_flight.clone(),
        );
        registry.register(
            "connections_cut",
            "Connections cut off because the client was too slow, by what",
            cuts.clone(),
        );
        registry.register(
            "nodes_ejected",
            "Nodes set aside now, by reason",
            services.ejected.clone(),
        );
        registry.register(
            "ejections",
            "How often nodes were set aside, by reason",
            services.ejections.clone(),
        );
        registry.register(
            "retries",
            "Requests sent to another node after an attempt failed",
            retries.clone(),
        );
        registry.register("nodes", "Nodes known", services.nodes.clone());
        registry.register(
            "registry_connected",
            "1 while the registry can be followed",
            services.connected.clone(),
        );
        registry.register(
            "registry_revision",
            "The revision of the last list",
            services.revision.clone(),
        );
        registry.register(
            "registry_stale_seconds",
            "For how long the list is stale",
            services.stale_seconds.clone(),
        );
        registry.register(
            "registry_skipped_entries",
            "Entries that could not be read",
            services.skipped.clone(),
        );
        let code = |code| codes.get_or_create_owned(&CodeLabel { code });
        let reason = |reason: Reason| {
            reasons.get_or_create_owned(&ReasonLabel {
                reason: reason.name(),
            })
        };
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(code);
        let refusals = Reason::ALL.map(reason);
        let cut =
            ["head", "reading"].map(|reason| cuts.get_or_create_owned(&ReasonLabel { reason }));
        Self {
            registry,
            connections,
            in_flight,
            cut,
            requests,
            refusals,
            duration,
            attempts,
            retries,
            hedges,
            budget_refusals,
            services,
        }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.requests.get(class).map(Counter::inc);
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals[reason as usize].inc();
    }

    pub(crate) fn attempted(&self) {
        self.attempts.inc();
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn hedged(&self) {
        self.hedges.inc();
    }

    pub(crate) fn refused_by_budget(&self) {
        self.budget_refusals.inc();
    }

    /// Everything in the text format of [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/).
    pub(crate) fn text<'a>(
        &self,
        services: impl Iterator<Item = (&'a ServiceName, Option<&'a View>)>,
        clients: &Clients,
    ) -> String {
        self.connections.set(clients.connections() as i64);
        self.in_flight.set(clients.in_flight() as i64);
        for slow in [Slow::Head, Slow::Reader] {
            let counter = &self.cut[slow as usize];
            counter.inner().store(clients.cut(slow), Ordering::Relaxed);
        }
        services.for_each(|(name, view)| self.services.set(name, view));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

impl Services {
    fn set(&self, name: &ServiceName, view: Option<&View>) {
        let label = ServiceLabel {
            service: name.to_string(),
        };
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let stale = view.and_then(View::stale_for);
        let set = |family: &Family<ServiceLabel, Gauge>, value: u64| {
            family.get_or_create(&label).set(number(value));
        };
        set(
            &self.nodes,
            view.map_or(0, |view| view.endpoints().len() as u64),
        );
        set(
            &self.connected,
            u64::from(view.is_some() && stale.is_none()),
        );
        set(&self.revision, view.map_or(0, View::revision));
        set(
            &self.stale_seconds,
            stale.map_or(0, |stale| stale.as_secs()),
        );
        set(&self.skipped, view.map_or(0, |view| view.skipped() as u64));
        for why in Ejection::ALL {
            self.set_ejections(name, why, view);
        }
    }

    fn set_ejections(&self, name: &ServiceName, why: Ejection, view: Option<&View>) {
        let labels = EjectionLabels {
            service: name.to_string(),
            reason: why.as_str(),
        };
        let endpoints = view.into_iter().flat_map(|view| view.endpoints().iter());
        let now = endpoints
            .filter(|endpoint| endpoint.ejected() == Some(why))
            .count();
        let so_far = view.map_or(0, |view| view.ejections(why));
        self.ejected.get_or_create(&labels).set(now as i64);
        let counter = self.ejections.get_or_create(&labels);
        counter.inner().store(so_far, Ordering::Relaxed); // the client counts, we tell
    }
}
