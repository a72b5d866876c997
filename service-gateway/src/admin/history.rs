//! What changed lately, for those who come to look later.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem::replace;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use discovery::{Ejection, Endpoint, NodeState, ServiceName, View};
use serde::Serialize;

use super::Views;

/// Events that are remembered.
const REMEMBERED: usize = 50;

/// More nodes than this to which the same happens at once are told as a number.
const ONE_BY_ONE: usize = 5;

/// Compares what is with what was, and remembers the difference.
pub(super) struct History {
    began: Instant,
    /// A std mutex, held for one look and never across an await.
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    services: BTreeMap<ServiceName, Known>,
    events: VecDeque<Event>,
    number: u64,
}

/// A service as it was at the last look.
#[derive(Default)]
struct Known {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// Only those that are not up.
    states: HashMap<SocketAddr, State>,
    is_away: bool,
}

/// The state of a node, and the reason if it is ejected.
type State = (NodeState, Option<Ejection>);

/// Something happened, to one node, to many, or to a service's list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    number: u64,
    /// Seconds after the gateway began.
    at: u64,
    service: String,
    /// `listed`, `joined`, `left`, `changed`, `ejected`, `draining`, `unconfirmed`, `up`, `away` or
    /// `connected`.
    kind: &'static str,
    /// Reason of an ejection.
    why: Option<&'static str>,
    /// The node, if it is one.
    instance: Option<String>,
    version: Option<String>,
    /// How many nodes it happened to.
    nodes: usize,
}

/// What happened, and why, to which nodes.
type Changes = BTreeMap<(&'static str, Option<&'static str>), Vec<Arc<Endpoint>>>;

impl History {
    pub(super) fn new(began: Instant) -> Self {
        let past = Mutex::default();
        Self { began, past }
    }

    /// The last events, the oldest first.
    pub(super) fn events(&self) -> Vec<Event> {
        self.past().events.iter().cloned().collect()
    }

    /// Remembers what has changed since the last look.
    pub(super) fn look(&self, views: &Views<'_>) {
        let mut past = self.past();
        let at = self.began.elapsed().as_secs();
        let views = views.iter();
        for (service, view) in views.filter_map(|(service, view)| Some((service, view.as_ref()?))) {
            past.look(at, service, view);
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Nothing panics while holding it.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn look(&mut self, at: u64, service: &ServiceName, view: &View) {
        let Some(known) = self.services.get_mut(service) else {
            let known = self.services.entry(service.clone()).or_default();
            known.changes(view); // of which the first list is told
            self.remember(at, service, "listed", None, view.endpoints(), true);
            return;
        };
        let changes = known.changes(view);
        let is_away = view.stale_for().is_some();
        let was_away = replace(&mut known.is_away, is_away);
        if is_away != was_away {
            let kind = if is_away { "away" } else { "connected" };
            self.remember(at, service, kind, None, view.endpoints(), true);
        }
        for ((kind, why), nodes) in changes {
            self.remember(at, service, kind, why, &nodes, nodes.len() > ONE_BY_ONE);
        }
    }

    fn remember(
        &mut self,
        at: u64,
        service: &ServiceName,
        kind: &'static str,
        why: Option<&'static str>,
        nodes: &[Arc<Endpoint>],
        together: bool,
    ) {
        let mut event = |node: Option<&Arc<Endpoint>>, nodes| {
            self.number += 1;
            self.events.push_back(Event {
                number: self.number,
                at,
                service: service.to_string(),
                kind,
                why,
                instance: node.map(|node| node.authority().to_owned()),
                version: node.and_then(|node| node.version()).map(str::to_owned),
                nodes,
            });
        };
        match together {
            true => event(None, nodes.len()),
            false => nodes.iter().for_each(|node| event(Some(node), 1)),
        }
        let surplus = self.events.len().saturating_sub(REMEMBERED);
        self.events.drain(..surplus);
    }
}

impl Known {
    fn changes(&mut self, view: &View) -> Changes {
        let mut changes = Changes::new();
        let before = replace(&mut self.endpoints, view.endpoints().clone());
        if !Arc::ptr_eq(&before, &self.endpoints) {
            self.compare_lists(&before, &mut changes);
        }
        for endpoint in self.endpoints.iter() {
            let (address, now) = (endpoint.address, state_of(endpoint));
            let was = match now {
                UP => self.states.remove(&address),
                now => self.states.insert(address, now),
            };
            if was.unwrap_or(UP) != now {
                let (state, why) = now;
                let kind = (state.as_str(), why.map(Ejection::as_str));
                changes.entry(kind).or_default().push(endpoint.clone());
            }
        }
        changes
    }

    fn compare_lists(&mut self, before: &[Arc<Endpoint>], changes: &mut Changes) {
        for endpoint in self.endpoints.iter() {
            let kind = match find(before, endpoint.address) {
                Some(old) if Arc::ptr_eq(old, endpoint) => continue,
                Some(_) => "changed",
                None => "joined",
            };
            let change = changes.entry((kind, None)).or_default();
            change.push(endpoint.clone());
        }
        for old in before {
            if find(&self.endpoints, old.address).is_none() {
                self.states.remove(&old.address);
                changes.entry(("left", None)).or_default().push(old.clone());
            }
        }
    }
}

const UP: State = (NodeState::Up, None);

fn state_of(endpoint: &Endpoint) -> State {
    match endpoint.state() {
        NodeState::Ejected => (NodeState::Ejected, endpoint.ejected()),
        state => (state, None),
    }
}

/// Lists are sorted by address.
fn find(list: &[Arc<Endpoint>], address: SocketAddr) -> Option<&Arc<Endpoint>> {
    let found = list.binary_search_by_key(&address, |endpoint| endpoint.address);
    found.ok().map(|index| &list[index])
}
