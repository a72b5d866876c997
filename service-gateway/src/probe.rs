//! Nodes are asked for their health when they join, when they keep silent, and when their time aside
//! is over, so that no user has to find out.

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

/// How long a node may take to say how it is.
const LIMIT: Duration = Duration::from_millis(800);

/// A probe that took so much longer than its limit did not come to run in time: we are busy, and it
/// says nothing about the node.
const LATE: Duration = Duration::from_millis(200);

/// After this time an ejected node is probed by a request although its health check has no response.
const UNRESPONSIVE: Duration = Duration::from_secs(60);

/// Nodes asked at once, at most.
const PROBES: usize = 64;

/// Reports that wait, at most. More would say the same of the same nodes.
const QUEUE: usize = 256;

/// The queue of nodes whose health is to be checked, since requests to them have no response.
pub(crate) struct HealthCheckQueue(mpsc::Sender<Arc<Endpoint>>);

/// What asks the nodes.
pub(crate) struct Prober {
    suspects: mpsc::Receiver<Arc<Endpoint>>,
    path: Option<String>,
    interval: Duration,
    /// The endpoints of each service that were asked when they joined.
    known: BTreeMap<ServiceName, Arc<[Arc<Endpoint>]>>,
    /// To be asked, the most urgent first.
    waiting: VecDeque<Asked>,
    asking: HashSet<SocketAddr>,
    /// Ejected nodes of which the log has that their health checks fail.
    reported: HashSet<SocketAddr>,
}

/// The result of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// A response below 500. A node with a 404 has no such path, and works.
    Passed,
    /// A 5xx: the node is shutting down, does not work, or does not know better.
    Failed(u16),
    NotConnected,
    /// No connection for want of descriptors, memory or ports on this host.
    NotSent,
    /// No response in time, or an invalid one.
    NoResponse,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Uneject,
    HalfOpen,
    Eject(Ejection),
}

/// A node to be asked.
struct Asked {
    endpoint: Arc<Endpoint>,
    /// Whether requests to it have had no answer. Silence is held against nobody else: a node that
    /// is only slow, or a gateway that is, would do for it.
    suspected: bool,
}

impl HealthCheckQueue {
    /// Tells of a node that keeps silent.
    pub(crate) fn report(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.ejected().is_none() {
            // A full queue holds what matters; a closed one means that the gateway is leaving.
            let _ = self.0.try_send(endpoint.clone());
        }
    }
}

impl Prober {
    pub(crate) fn new(path: Option<String>, interval: Duration) -> (HealthCheckQueue, Self) {
        let (sender, suspects) = mpsc::channel(QUEUE);
        let prober = Self {
            suspects,
            path,
            interval,
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            asking: HashSet::new(),
            reported: HashSet::new(),
        };
        (HealthCheckQueue(sender), prober)
    }

    /// Asks whoever has to be asked. Has no end.
    pub(crate) async fn run(
        mut self,
        discovery: &DiscoveryClient,
        services: &[ServiceName],
    ) -> Infallible {
        let Some(path) = self.path.take() else {
            return self.run_without_asking(discovery, services).await;
        };
        let client = Client::builder()
            .timeout(LIMIT)
            .disable_redirects()
            .finish();
        let mut changes = changes(discovery, services);
        let mut ticks = interval(self.interval);
        let mut probes = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(suspect) = self.suspects.recv() => {
                    self.waiting.push_front(Asked::new(&suspect, true));
                }
                Some(service) = changes.next() => self.add_newcomers(discovery, &service),
                _ = ticks.tick() => self.add_due(),
                Some((endpoint, check, decision)) = probes.next() => {
                    self.act(&endpoint, check, decision);
                }
            }
            while probes.len() < PROBES
                && let Some(asked) = self.waiting.pop_front()
            {
                if self.asking.insert(asked.endpoint.address) {
                    probes.push(probe(&client, &path, asked));
                }
            }
        }
    }

    fn act(&mut self, endpoint: &Arc<Endpoint>, check: Check, decision: Decision) {
        self.asking.remove(&endpoint.address);
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

    /// Whoever was set aside is back when its time is over: the next request finds out. One that timed
    /// out is back when a single request has had a response.
    async fn run_without_asking(
        mut self,
        discovery: &DiscoveryClient,
        services: &[ServiceName],
    ) -> Infallible {
        let mut ticks = interval(self.interval);
        loop {
            ticks.tick().await;
            for service in services {
                self.add_newcomers(discovery, service);
            }
            self.waiting.clear();
            self.add_due();
            let now = std::time::Instant::now();
            for Asked { endpoint, .. } in self.waiting.drain(..) {
                match endpoint.ejected() {
                    Some(Ejection::Timeout) => endpoint.half_open(),
                    _ => endpoint.uneject(now),
                }
            }
        }
    }

    fn add_newcomers(&mut self, discovery: &DiscoveryClient, service: &ServiceName) {
        let Some(view) = discovery.view(service) else {
            return;
        };
        let known = self.known.entry(service.clone()).or_default();
        let newcomers = newcomers(known, view.endpoints());
        self.waiting
            .extend(newcomers.map(|endpoint| Asked::new(endpoint, false)));
        *known = view.endpoints().clone();
    }

    fn add_due(&mut self) {
        let waiting: HashSet<_> = self
            .waiting
            .iter()
            .map(|asked| asked.endpoint.address)
            .collect();
        let all = self.known.values().flat_map(|endpoints| endpoints.iter());
        let ejected = all.clone().filter(|e| e.ejected().is_some());
        let ejected: HashSet<_> = ejected.map(|endpoint| endpoint.address).collect();
        self.reported.retain(|address| ejected.contains(address));
        let due = all.filter(|e| e.is_ejection_expired() && !waiting.contains(&e.address));
        self.waiting
            .extend(due.map(|endpoint| Asked::new(endpoint, false)));
    }
}

impl Asked {
    fn new(endpoint: &Arc<Endpoint>, suspected: bool) -> Self {
        Self {
            endpoint: endpoint.clone(),
            suspected,
        }
    }
}

/// Those of a list who are not in the one before it. Both are sorted by address, and what stayed the
/// same is the same in both, so most take no look at their address.
fn newcomers<'a>(
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

/// Which of the routes' services changed in any way, or was there from the beginning.
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

/// Checks the health of one node, and decides what follows.
async fn probe(client: &Client, path: &str, asked: Asked) -> (Arc<Endpoint>, Check, Decision) {
    let endpoint = asked.endpoint;
    let (began, heard) = (Instant::now(), endpoint.successes());
    let request = client.get(format!("http://{}{path}", endpoint.address));
    let request = request.force_close(); // awc would keep it, and not notice when the node goes
    let check = match request.send().await {
        Ok(answer) if answer.status().is_server_error() => Check::Failed(answer.status().as_u16()),
        Ok(_) => Check::Passed,
        Err(SendRequestError::Connect(ConnectError::Io(error))) if is_local(&error) => {
            Check::NotSent
        }
        Err(SendRequestError::Connect(_)) => Check::NotConnected,
        Err(_) => Check::NoResponse,
    };
    let in_time = began.elapsed() < LIMIT + LATE;
    let is_silent = asked.suspected && in_time && endpoint.successes() == heard;
    let ejected = endpoint.ejected().zip(endpoint.ejected_for());
    let decision = decide(ejected, check, is_silent);
    if decision == Decision::Uneject {
        endpoint.uneject(began.into_std());
    }
    (endpoint, check, decision)
}

/// What follows from the health check of a node that is ejected for a reason and since a time, or not.
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
        (Check::NoResponse, Some((_, time))) if time >= UNRESPONSIVE => Decision::HalfOpen,
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
    fn newcomers_are_those_who_joined_and_those_whose_entry_changed() {
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
        let new = |before, now| -> Vec<_> {
            newcomers(before, now)
                .map(|new| new.address.port())
                .collect()
        };
        assert_eq!(new(&before, &now), [1, 4, 6]);
        assert_eq!(new(&[], &now), [1, 3, 4, 5, 6, 8]);
        assert_eq!(new(&now, &now), [0; 0]);
        assert_eq!(new(&now, &[endpoint(9)]), [9]);
    }

    #[test]
    fn every_check_leads_to_what_the_table_has() {
        use Decision::{Eject, HalfOpen, Nothing, Uneject};
        let lately = |why| Some((why, Duration::from_secs(1)));
        let silent = Eject(Ejection::Silent);
        let gone = Eject(Ejection::Unreachable);
        // Up, ejected as failing, for timeouts.
        for (check, decisions) in [
            (Check::Passed, [Uneject, Uneject, HalfOpen]),
            (Check::Failed(503), [Nothing, HalfOpen, HalfOpen]),
            (Check::NoResponse, [silent, Nothing, Nothing]),
            (Check::NotConnected, [gone, gone, gone]),
        ] {
            let states = [None, lately(Ejection::Failing), lately(Ejection::Timeout)];
            let decided = states.map(|ejected| decide(ejected, check, true));
            assert_eq!(decided, decisions, "{check}");
        }
        for why in Ejection::ALL {
            let ejected = Some((why, UNRESPONSIVE));
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
