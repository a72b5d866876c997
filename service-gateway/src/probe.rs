//! Nodes are asked for their health when they join, when they keep silent, and when their time aside
//! is over, so that no user has to find out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use awc::error::{ConnectError, SendRequestError};
use discovery::{Ejection, Endpoint, ServiceName};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered, select_all, unfold};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

use crate::descriptors::is_local;
use crate::proxy::Gateway;

/// How long a node may take to say how it is.
const LIMIT: Duration = Duration::from_millis(800);

/// A probe that took so much longer than its limit did not come to run in time: we are busy, and it
/// says nothing about the node.
const LATE: Duration = Duration::from_millis(200);

/// Nodes asked at once, at most.
const PROBES: usize = 64;

/// Reports that wait, at most. More would say the same of the same nodes.
const QUEUE: usize = 256;

/// Where those who notice something tell it.
pub(crate) struct Suspects(mpsc::Sender<Arc<Endpoint>>);

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
}

/// A node to be asked.
struct Asked {
    endpoint: Arc<Endpoint>,
    /// Whether requests to it have had no answer. Silence is held against nobody else: a node that
    /// is only slow, or a gateway that is, would do for it.
    suspected: bool,
}

impl Suspects {
    /// Tells of a node that keeps silent.
    pub(crate) fn report(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.ejected().is_none() {
            // A full queue holds what matters; a closed one means that the gateway is leaving.
            let _ = self.0.try_send(endpoint.clone());
        }
    }
}

impl Prober {
    pub(crate) fn new(path: Option<String>, interval: Duration) -> (Suspects, Self) {
        let (sender, suspects) = mpsc::channel(QUEUE);
        let prober = Self {
            suspects,
            path,
            interval,
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            asking: HashSet::new(),
        };
        (Suspects(sender), prober)
    }

    /// Asks whoever has to be asked. Has no end.
    pub(crate) async fn run(mut self, gateway: &Gateway) -> Infallible {
        let Some(path) = self.path.take() else {
            return self.run_without_asking(gateway).await;
        };
        let client = Client::builder()
            .timeout(LIMIT)
            .disable_redirects()
            .finish();
        let mut changes = changes(gateway);
        let mut ticks = interval(self.interval);
        let mut probes = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(suspect) = self.suspects.recv() => {
                    self.waiting.push_front(Asked::new(&suspect, true));
                }
                Some(service) = changes.next() => self.add_newcomers(gateway, &service),
                _ = ticks.tick() => self.add_due(),
                Some(address) = probes.next() => { self.asking.remove(&address); }
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

    /// Whoever was set aside is back when its time is over: the next request finds out.
    async fn run_without_asking(mut self, gateway: &Gateway) -> Infallible {
        let mut ticks = interval(self.interval);
        loop {
            ticks.tick().await;
            for route in &gateway.routes {
                self.add_newcomers(gateway, &route.service);
            }
            self.waiting.clear();
            self.add_due();
            let now = std::time::Instant::now();
            self.waiting
                .drain(..)
                .for_each(|asked| asked.endpoint.restore(now));
        }
    }

    fn add_newcomers(&mut self, gateway: &Gateway, service: &ServiceName) {
        let Some(view) = gateway.discovery.view(service) else {
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
        let due = all.filter(|e| e.trial_is_due() && !waiting.contains(&e.address));
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
fn changes(gateway: &Gateway) -> BoxStream<'static, ServiceName> {
    let changes = gateway.routes.iter().map(|route| {
        let mut changes: watch::Receiver<()> = gateway.discovery.changes(&route.service);
        changes.mark_changed();
        unfold(
            (changes, route.service.clone()),
            |(mut changes, service)| async move {
                changes.changed().await.ok()?;
                Some((service.clone(), (changes, service)))
            },
        )
        .boxed()
    });
    select_all(changes).boxed()
}

/// Asks one node, and acts on what it says.
async fn probe(client: &Client, path: &str, asked: Asked) -> SocketAddr {
    let endpoint = asked.endpoint;
    let (began, heard) = (Instant::now(), endpoint.good_answers());
    let is_silent = || {
        let in_time = began.elapsed() < LIMIT + LATE;
        asked.suspected && in_time && endpoint.good_answers() == heard
    };
    let request = client.get(format!("http://{}{path}", endpoint.address));
    let request = request.force_close(); // awc would keep it, and not notice when the node goes
    match request.send().await {
        // Whoever says 404 has no such path, and is well.
        Ok(answer) if !answer.status().is_server_error() => endpoint.restore(began.into_std()),
        // A node that is leaving says 503, and a sick one 500: both are there.
        Ok(_) => {}
        Err(SendRequestError::Connect(ConnectError::Io(error))) if is_local(&error) => {}
        Err(SendRequestError::Connect(_)) => endpoint.eject(Ejection::Unreachable),
        Err(_) if is_silent() => endpoint.eject(Ejection::Silent),
        Err(_) => {}
    }
    endpoint.address
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
}
