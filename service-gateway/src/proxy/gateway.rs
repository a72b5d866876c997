//! The state behind all requests: of the process, and of each worker.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderValue;
use discovery::{DiscoveryClient, Network, Resolver, ServiceName};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use upstream::Pool;

use super::budget::Budget;
use super::latency::Latencies;
use crate::access_log::AccessLog;
use crate::client::Clients;
use crate::descriptors::Descriptors;
use crate::metrics::{Metrics, Tally};
use crate::probe::HealthCheckQueue;
use crate::{Config, Route};

/// The state that all workers share.
pub(crate) struct Gateway {
    pub(crate) routes: Vec<Route>,
    pub(crate) discovery: DiscoveryClient,
    pub(crate) metrics: Metrics,
    pub(crate) health_checks: HealthCheckQueue,
    pub(crate) clients: Arc<Clients>,
    /// `None` unless each request is logged.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// Cancelled when the drain period is over and the port closes.
    pub(crate) leaving: CancellationToken,
    /// The retry budget of each route's service, in the order of the routes. Services do not share one, so
    /// that failures of one do not use up the retries of another.
    pub(super) budgets: Vec<Arc<Budget>>,
    /// A permit for each byte of request bodies that may be held for a retry.
    pub(super) held_bodies: Arc<Semaphore>,
    /// A permit for each connection to a node that may be open.
    upstream: Arc<Semaphore>,
    pub(super) timeout: Duration,
    pub(super) hedge_after: Duration,
    pub(super) idle_timeout: Duration,
    connect_timeout: Duration,
    /// The maximum number of attempts, the first included.
    pub(super) attempts: usize,
    pub(super) max_body: u64,
    /// Networks whose proxies may describe the client.
    pub(crate) trust: Arc<[Network]>,
    /// Names that the admin port's host may have.
    pub(crate) admin_hosts: Vec<String>,
    /// The name of this process in `Via`. It is unique, so that a loop differs from a chain of gateways.
    pub(super) via: HeaderValue,
}

/// The state of one worker: its connections, the resolvers of its routes, and its metrics.
pub(crate) struct Worker {
    pub(super) gateway: Arc<Gateway>,
    pub(crate) tally: Rc<Tally>,
    pub(super) resolvers: Vec<Arc<Resolver>>,
    /// In the order of the routes.
    pub(super) latencies: Vec<Latencies>,
    pub(super) pool: Rc<Pool>,
}

impl Gateway {
    pub(crate) fn new(
        config: &Config,
        descriptors: Descriptors,
        discovery: DiscoveryClient,
        health_checks: HealthCheckQueue,
        access_log: Option<Arc<AccessLog>>,
    ) -> Self {
        let mut routes = config.routes.clone();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len())); // the longest first
        let budgets = budgets(&routes);
        let metrics = Metrics::new(routes.iter().map(|route| &route.service));
        Self {
            routes,
            discovery,
            metrics,
            access_log,
            health_checks,
            clients: Arc::new(Clients::new(config, descriptors.clients)),
            leaving: CancellationToken::new(),
            budgets,
            held_bodies: permits(config.held_bodies.0),
            upstream: permits(descriptors.upstream as u64),
            timeout: config.timeout,
            hedge_after: config.hedge_after,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            attempts: config.attempts.get(),
            max_body: config.max_body.0,
            trust: config.trust.clone().into(),
            admin_hosts: config.admin_hosts.clone(),
            via: via(),
        }
    }
}

impl Worker {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let resolver = |route: &Route| gateway.discovery.resolver(&route.service, &route.tags);
        let resolvers = gateway.routes.iter().map(resolver).collect();
        let latencies = gateway.routes.iter().map(|_| Latencies::default());
        let latencies = latencies.collect();
        let pool = Pool::new(gateway.connect_timeout, gateway.upstream.clone());
        let tally = Rc::new(gateway.metrics.tally());
        Self {
            gateway,
            tally,
            resolvers,
            latencies,
            pool,
        }
    }
}

fn permits(count: u64) -> Arc<Semaphore> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// Creates one budget for each service. Returns them in the order of the routes.
fn budgets(routes: &[Route]) -> Vec<Arc<Budget>> {
    let mut services = BTreeMap::<&ServiceName, Arc<Budget>>::new();
    let budgets = routes
        .iter()
        .map(|route| services.entry(&route.service).or_default().clone());
    budgets.collect()
}

fn via() -> HeaderValue {
    let via = format!("1.1 gateway-{:08x}", fastrand::u32(..));
    via.try_into().expect("ASCII")
}
