//! Health checks of nodes: when they are added, when requests to them have no response, and when their
//! ejection expires, so that no request has to probe a node that does not work.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use awc::error::{ConnectError, SendRequestError};
use discovery::{DiscoveryClient, Ejection, Endpoint, ServiceName};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered, select_all, unfold};
use log::warn;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};
use upstream::is_local;

/// The timeout of a health check.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The excess over the timeout from which a health check without a response is not counted: the gateway is
/// overloaded, and has polled it late.
const MAX_DELAY: Duration = Duration::from_millis(200);

/// The time after which an ejected node is probed by a request although its health check has no response.
const UNRESPONSIVE_PERIOD: Duration = Duration::from_secs(60);

/// The maximum number of health checks at a time.
const MAX_CHECKS: usize = 64;

/// The capacity of the queue. Further reports would be about the same nodes.
const QUEUE_CAPACITY: usize = 256;

/// The queue of nodes whose health is to be checked, since requests to them have no response.
pub(crate) struct HealthCheckQueue(mpsc::Sender<Arc<Endpoint>>);

/// Checks the health of nodes.
pub(crate) struct Prober {
    queue: mpsc::Receiver<Arc<Endpoint>>,
    path: Option<String>,
    interval: Duration,
    /// The endpoints of each service that have been queued after they were added.
    known: BTreeMap<ServiceName, Arc<[Arc<Endpoint>]>>,
    /// The checks to begin, the most urgent first.
    waiting: VecDeque<Pending>,
    running: HashSet<SocketAddr>,
    /// Ejected nodes whose failed health checks have been logged.
    reported: HashSet<SocketAddr>,
}

/// The result of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// A response below 500. A node with a 404 has no such path, and works.
    Passed,
    /// A 5xx: the node is shutting down, does not work, or has no such path.
    Failed(u16),
    NotConnected,
    /// No connection for lack of descriptors, memory or ports on this host.
    NotSent,
    /// No response in time, or an invalid one.
    NoResponse,
}

/// The action after a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Uneject,
    HalfOpen,
    Eject(Ejection),
}

/// A health check to begin.
struct Pending {
    endpoint: Arc<Endpoint>,
    /// Set if requests to the node have had no response. Without that, a check without a response does not
    /// eject: a slow node or a slow gateway would suffice for it.
    is_suspected: bool,
}

impl HealthCheckQueue {
    /// Reports a node without a response to a request.
    pub(crate) fn report(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.ejected().is_none() {
            // A full queue contains enough; a closed one means that the gateway is shutting down.
            let _ = self.0.try_send(endpoint.clone());
        }
    }
}

impl Prober {
    pub(crate) fn new(path: Option<String>, interval: Duration) -> (HealthCheckQueue, Self) {
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let prober = Self {
            queue,
            path,
            interval,
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: HashSet::new(),
            reported: HashSet::new(),
        };
        (HealthCheckQueue(sender), prober)
    }

    /// Checks the nodes of these services. Never returns.
    pub(crate) async fn run(
        mut self,
        discovery: &DiscoveryClient,
        services: &[ServiceName],
    ) -> Infallible {
        let Some(path) = self.path.take() else {
            return self.run_without_checks(discovery, services).await;
        };
        let client = Client::builder()
            .timeout(TIMEOUT)
            .disable_redirects()
            .finish();
        let mut changes = changes(discovery, services);
        let mut ticks = interval(self.interval);
        let mut checks = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(endpoint) = self.queue.recv() => {
                    self.waiting.push_front(Pending::new(&endpoint, true));
                }
                Some(service) = changes.next() => self.add_new(discovery, &service),
                _ = ticks.tick() => self.add_due(),
                Some((endpoint, check, decision)) = checks.next() => {
                    self.act(&endpoint, check, decision);
                }
            }
            while checks.len() < MAX_CHECKS
                && let Some(pending) = self.waiting.pop_front()
            {
                if self.running.insert(pending.endpoint.address) {
                    checks.push(check(&client, &path, pending));
                }
            }
        }
    }

    fn act(&mut self, endpoint: &Arc<Endpoint>, check: Check, decision: Decision) {
        self.running.remove(&endpoint.address);
        match decision {
            Decision::Nothing | Decision::Uneject => {}
            Decision::Eject(why) => endpoint.eject(why),
            Decision::HalfOpen => {
                endpoint.half_open();
                if check != Check::Passed && self.reported.insert(endpoint.address) {
                    let (service, address) = (&endpoint.service, endpoint.address);
                    let ejected = endpoint.ejected().map(Ejection::as_str);
                    warn!(
                        service:%, address:%, ejected, check:%;
                        "the health check of an ejected node fails, a request has to probe it"
                    );
                }
            }
        }
    }

    /// Un-ejects nodes when their ejection expires. After timeouts a node becomes half-open instead, and is
    /// un-ejected when a single request has had a response.
    async fn run_without_checks(
        mut self,
        discovery: &DiscoveryClient,
        services: &[ServiceName],
    ) -> Infallible {
        let mut ticks = interval(self.interval);
        loop {
            ticks.tick().await;
            for service in services {
                self.add_new(discovery, service);
            }
            self.waiting.clear();
            self.add_due();
            let now = std::time::Instant::now();
            for Pending { endpoint, .. } in self.waiting.drain(..) {
                match endpoint.ejected() {
                    Some(Ejection::Timeout) => endpoint.half_open(),
                    _ => endpoint.uneject(now),
                }
            }
        }
    }

    fn add_new(&mut self, discovery: &DiscoveryClient, service: &ServiceName) {
        let Some(view) = discovery.view(service) else {
            return;
        };
        let known = self.known.entry(service.clone()).or_default();
        let added = added(known, view.endpoints());
        self.waiting
            .extend(added.map(|endpoint| Pending::new(endpoint, false)));
        *known = view.endpoints().clone();
    }

    fn add_due(&mut self) {
        let waiting: HashSet<_> = self
            .waiting
            .iter()
            .map(|pending| pending.endpoint.address)
            .collect();
        let all = self.known.values().flat_map(|endpoints| endpoints.iter());
        let ejected = all.clone().filter(|e| e.ejected().is_some());
        let ejected: HashSet<_> = ejected.map(|endpoint| endpoint.address).collect();
        self.reported.retain(|address| ejected.contains(address));
        let due = all.filter(|e| e.is_ejection_expired() && !waiting.contains(&e.address));
        self.waiting
            .extend(due.map(|endpoint| Pending::new(endpoint, false)));
    }
}

impl Pending {
    fn new(endpoint: &Arc<Endpoint>, is_suspected: bool) -> Self {
        Self {
            endpoint: endpoint.clone(),
            is_suspected,
        }
    }
}

/// Returns the endpoints of a snapshot that are not in the one before it. Both are sorted by address, and
/// unchanged endpoints are identical, so that most need no comparison of addresses.
fn added<'a>(
    before: &'a [Arc<Endpoint>],
    now: &'a [Arc<Endpoint>],
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let mut before = before.iter().peekable();
    now.iter().filter(move |endpoint| {
        let mut is_known = before.next_if(|old| Arc::ptr_eq(old, endpoint)).is_some();
        while !is_known && let Some(old) = before.next_if(|old| old.address <= endpoint.address) {
            is_known = Arc::ptr_eq(old, endpoint);
        }
        !is_known
    })
}

/// Returns the services that have changed, and at first all of them.
fn changes(
    discovery: &DiscoveryClient,
    services: &[ServiceName],
) -> BoxStream<'static, ServiceName> {
    let changes = services.iter().map(|service| {
        let mut changes: watch::Receiver<()> = discovery.changes(service);
        changes.mark_changed();
        unfold(
            (changes, service.clone()),
            |(mut changes, service)| async move {
                changes.changed().await.ok()?;
                Some((service.clone(), (changes, service)))
            },
        )
        .boxed()
    });
    select_all(changes).boxed()
}

/// Checks the health of one node, and decides on the action.
async fn check(client: &Client, path: &str, pending: Pending) -> (Arc<Endpoint>, Check, Decision) {
    let endpoint = pending.endpoint;
    let (began, heard) = (Instant::now(), endpoint.successes());
    let request = client.get(format!("http://{}{path}", endpoint.address));
    let request = request.force_close(); // awc would pool it, and not detect that the node has closed it
    let check = match request.send().await {
        Ok(response) if response.status().is_server_error() => {
            Check::Failed(response.status().as_u16())
        }
        Ok(_) => Check::Passed,
        Err(SendRequestError::Connect(ConnectError::Io(error))) if is_local(&error) => {
            Check::NotSent
        }
        Err(SendRequestError::Connect(_)) => Check::NotConnected,
        Err(_) => Check::NoResponse,
    };
    let in_time = began.elapsed() < TIMEOUT + MAX_DELAY;
    let is_silent = pending.is_suspected && in_time && endpoint.successes() == heard;
    let ejected = endpoint.ejected().zip(endpoint.ejected_for());
    let decision = decide(ejected, check, is_silent);
    if decision == Decision::Uneject {
        endpoint.uneject(began.into_std());
    }
    (endpoint, check, decision)
}

/// Decides on the action after a health check, of a node that is ejected (for a reason, since a time) or not.
///
/// | check | up | ejected | ejected for timeouts |
/// |---|---|---|---|
/// | passes | it has responded | un-ejected | half-open: it may pass while requests hang |
/// | fails with a 5xx | nothing | half-open: it may fail while requests succeed | half-open |
/// | has no response | ejected as silent, if a request had none either | nothing; half-open after a minute | the same |
/// | gets no connection | ejected as unreachable | nothing | nothing |
/// | is not sent, for a reason of this host | nothing | nothing | nothing |
///
/// A node is half-open only when its ejection time is over: before, [`Endpoint::half_open`] does nothing.
fn decide(ejected: Option<(Ejection, Duration)>, check: Check, is_silent: bool) -> Decision {
    match (check, ejected) {
        (Check::Passed, Some((Ejection::Timeout, _))) => Decision::HalfOpen,
        (Check::Passed, _) => Decision::Uneject,
        (Check::Failed(_), Some(_)) => Decision::HalfOpen,
        (Check::Failed(_), None) => Decision::Nothing,
        (Check::NoResponse, Some((_, time))) if time >= UNRESPONSIVE_PERIOD => Decision::HalfOpen,
        (Check::NoResponse, None) if is_silent => Decision::Eject(Ejection::Silent),
        (Check::NoResponse, _) => Decision::Nothing,
        (Check::NotConnected, _) => Decision::Eject(Ejection::Unreachable),
        (Check::NotSent, _) => Decision::Nothing,
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(status) => write!(f, "status {status}"),
            Self::NotConnected => f.write_str("no connection"),
            Self::NotSent => f.write_str("not sent"),
            Self::NoResponse => f.write_str("no response"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::ServiceNode;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        let name = "a".parse().unwrap();
        Arc::new(Endpoint::new(Arc::new(ServiceNode::new(
            name,
            ([10, 0, 0, 1], port).into(),
        ))))
    }

    #[test]
    fn added_and_changed_endpoints_are_new() {
        let before: Vec<_> = [2, 3, 5, 6, 8].map(endpoint).into();
        let [_, three, five, _, eight] = &*before else {
            panic!("five of them")
        };
        let changed = endpoint(6);
        let now = [
            endpoint(1),
            three.clone(),
            endpoint(4),
            five.clone(),
            changed,
            eight.clone(),
        ];
        let new =
            |before, now| -> Vec<_> { added(before, now).map(|new| new.address.port()).collect() };
        assert_eq!(new(&before, &now), [1, 4, 6]);
        assert_eq!(new(&[], &now), [1, 3, 4, 5, 6, 8]);
        assert_eq!(new(&now, &now), [0; 0]);
        assert_eq!(new(&now, &[endpoint(9)]), [9]);
    }

    #[test]
    fn each_check_leads_to_its_action_in_the_table() {
        use Decision::{Eject, HalfOpen, Nothing, Uneject};
        let recent = |why| Some((why, Duration::from_secs(1)));
        let silent = Eject(Ejection::Silent);
        let gone = Eject(Ejection::Unreachable);
        // Up, ejected as failing, for timeouts.
        for (check, decisions) in [
            (Check::Passed, [Uneject, Uneject, HalfOpen]),
            (Check::Failed(503), [Nothing, HalfOpen, HalfOpen]),
            (Check::NoResponse, [silent, Nothing, Nothing]),
            (Check::NotConnected, [gone, gone, gone]),
        ] {
            let states = [None, recent(Ejection::Failing), recent(Ejection::Timeout)];
            let decided = states.map(|ejected| decide(ejected, check, true));
            assert_eq!(decided, decisions, "{check}");
        }
        for why in Ejection::ALL {
            let ejected = Some((why, UNRESPONSIVE_PERIOD));
            assert_eq!(decide(ejected, Check::NoResponse, true), HalfOpen);
            assert_eq!(decide(ejected, Check::NoResponse, false), HalfOpen);
        }
        assert_eq!(
            decide(None, Check::NoResponse, false),
            Nothing,
            "a request had a response"
        );
    }
}
