//! One node as a client uses it, and one request to it.
//!
//! An [`Endpoint`] combines what the registry contains (address, tags) with what only this client can
//! observe: requests in flight, results, an ejection. Its invariant: every [`InFlight`] is counted from
//! its creation to its drop. The rules of ejection are in `ejection.rs`; which endpoint is chosen is
//! decided in `resolver.rs`.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::ejection::{Ejection, Record};
use crate::{NodeState, ServiceNode};

/// A node and this client's experience with it. [Chapter 7 of the guide](crate::guide#7-when-nodes-die)
/// shows what a client should report.
///
/// An endpoint stays the same through snapshots as long as the node's entry does. A changed entry is a
/// new endpoint without a history.
#[derive(Debug)]
pub struct Endpoint {
    node: Arc<ServiceNode>,
    authority: Box<str>,
    weight: u16,
    in_flight: AtomicUsize,
    counters: Counters,
    record: Record,
    unconfirmed: AtomicBool,
}

/// Counters of requests that have ended. A rate is the difference of two readings.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
}

/// Numbers of the requests that an endpoint has had so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Requests that got a response or failed.
    pub requests: u64,
    /// Those of them that failed, or got an error response.
    pub failures: u64,
    /// Sum of their durations, each from the choice of the endpoint to the head of its response.
    pub time: Duration,
}

impl Endpoint {
    /// Creates an endpoint without a history.
    pub fn new(node: Arc<ServiceNode>) -> Self {
        Self::with_record(node, Record::default())
    }

    pub(crate) fn with_record(node: Arc<ServiceNode>, record: Record) -> Self {
        Self {
            authority: node.address.to_string().into(),
            weight: node.weight(),
            node,
            in_flight: AtomicUsize::new(0),
            counters: Counters::default(),
            record,
            unconfirmed: AtomicBool::new(false),
        }
    }

    /// Returns the node's address as in a URL, `10.0.0.5:8080` or `[::1]:8080`, formatted once
    /// ([RFC 3986, section 3.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2)).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the node's [weight](ServiceNode::weight), parsed once.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the numbers of its requests so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.counters.requests.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            time: Duration::from_micros(self.counters.micros.load(Ordering::Relaxed)),
        }
    }

    /// Returns its state in this client.
    pub fn state(&self) -> NodeState {
        if self.is_drained() {
            NodeState::Draining
        } else if self.ejected().is_some() {
            NodeState::Ejected
        } else if self.is_unconfirmed() {
            NodeState::Unconfirmed
        } else {
            NodeState::Up
        }
    }

    /// Returns true if an operator has [drained](Self::drain) it. Unlike an ejected endpoint it gets no
    /// requests at all, even if there is no other one.
    pub fn is_drained(&self) -> bool {
        self.record.service().is_drained(self.address)
    }

    /// Sends no further requests to its address from this client, until it is
    /// [undrained](Self::undrain). Those in flight go on. The state belongs to the address: it outlasts
    /// the entry in the registry and the node's process, unless no node registers there for a day.
    pub fn drain(&self) {
        if self.record.service().set_drained(self.address, true) {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%; "node drained");
        }
    }

    /// Ends [draining](Self::drain).
    pub fn undrain(&self) {
        if self.record.service().set_drained(self.address, false) {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%; "node undrained");
        }
    }

    /// Returns true if it was removed from the registry together with most of the service's nodes, and is
    /// retained by mass-removal protection. It stays eligible until the protection expires, or until
    /// connections to it are refused.
    pub fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unconfirmed(&self, unconfirmed: bool) {
        self.unconfirmed.store(unconfirmed, Ordering::Relaxed);
        self.record.changed(); // `is_gone` depends on it
    }

    /// Returns true if neither the registry nor the network has it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_unconfirmed() && self.ejected() == Some(Ejection::Unreachable)
    }

    /// Returns the reason of its ejection, `None` if it is not ejected.
    pub fn ejected(&self) -> Option<Ejection> {
        self.record.ejected().map(|(why, _)| why)
    }

    /// Returns the reason and the start of its ejection.
    pub(crate) fn ejected_since(&self) -> Option<(Ejection, Instant)> {
        self.record.ejected()
    }

    /// Returns the number of successful requests, probes and health checks so far.
    pub fn successes(&self) -> u64 {
        self.record.successes()
    }

    /// Returns true if any request, probe or health check has ever succeeded.
    pub fn has_succeeded(&self) -> bool {
        self.successes() > 0
    }

    /// Ejects it for a second, the next times for longer, up to a minute. After that it stays ejected
    /// until a health check, which is [due](Self::is_ejection_expired) then, [un-ejects](Self::uneject)
    /// it.
    pub fn eject(&self, why: Ejection) {
        if let Some(time) = self.record.eject(why) {
            let (service, address) = (&self.service, self.address);
            warn!(service:%, address:%, why:%, time:?; "node ejected");
        }
    }

    /// Returns true if it is ejected and its ejection time is over: a health check is due.
    pub fn is_ejection_expired(&self) -> bool {
        self.record.is_ejection_expired()
    }

    /// Lets requests show whether it works, if it is ejected and its ejection has expired: one at a time,
    /// each of those that [`Resolver::resolve_or_probe`](crate::Resolver::resolve_or_probe) chooses for.
    /// For endpoints whose health check does not decide, because it fails for other reasons than requests
    /// do, or passes while requests [time out](Ejection::Timeout).
    pub fn half_open(&self) {
        self.record.half_open();
    }

    /// Time from which a request that cannot be hedged may be the probe; `None` if it awaits no probe.
    pub(crate) fn waits_for_probe(&self) -> Option<Instant> {
        self.record.waits_for_probe()
    }

    /// Returns the time since its ejection.
    pub fn ejected_for(&self) -> Option<Duration> {
        self.record.ejected().map(|(_, since)| since.elapsed())
    }

    /// Ends its ejection after a health check succeeded that began at `begun`. A check that is older than
    /// the ejection has no effect.
    pub fn uneject(&self, begun: Instant) {
        if self.record.uneject(begun) {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%; "node un-ejected");
        }
    }

    #[cfg(test)]
    pub(crate) fn expire_ejection(&self) {
        self.record.expire();
    }

    pub(crate) fn entry(&self) -> &Arc<ServiceNode> {
        &self.node
    }
}

impl Deref for Endpoint {
    type Target = ServiceNode;

    fn deref(&self) -> &ServiceNode {
        &self.node
    }
}

/// A chosen endpoint, counted as one request in flight until it is dropped. Keep it for as long as the
/// request lasts, the body of its response included.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    chosen: Instant,
    /// Number of the ejection that this request may end.
    probe: Option<u32>,
}

impl InFlight {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self::with_probe(endpoint, None)
    }

    /// Creates the probe of a half-open endpoint, `None` if it awaits none.
    pub(crate) fn probe(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let ejection = endpoint.record.begin_probe()?;
        Some(Self::with_probe(endpoint.clone(), Some(ejection)))
    }

    fn with_probe(endpoint: Arc<Endpoint>, probe: Option<u32>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint,
            chosen: Instant::now(),
            probe,
        }
    }

    /// Returns true if the endpoint is ejected, and this request decides whether it stays ejected.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Reports a response. A failure is one that the endpoint is to blame for: five in a row eject it. A
    /// success [un-ejects](Endpoint::uneject) an endpoint that was ejected because nothing came from it,
    /// or that this request probed.
    pub fn responded(&self, is_success: bool) {
        if self.record.responded(is_success) {
            self.eject(Ejection::Failing);
        } else if !is_success && self.is_probe() {
            self.fail_probe(Ejection::Failing);
        }
        let is_disproved = |why: Ejection| self.is_probe() || why != Ejection::Failing;
        if is_success && self.ejected().is_some_and(is_disproved) {
            self.uneject(self.chosen);
        }
    }

    /// Reports that no response came in time, or so late that another endpoint had responded meanwhile.
    /// Counts like a failed response.
    pub fn timed_out(&self) {
        if self.record.timed_out(self.chosen) {
            self.eject(Ejection::Timeout);
        } else if self.is_probe() {
            self.fail_probe(Ejection::Timeout);
        }
    }

    /// Reports that no connection was made in time. Counts like a failed response; five failures in a row
    /// eject the endpoint as unreachable.
    pub fn connect_timed_out(&self) {
        if self.record.timed_out(self.chosen) {
            self.eject(Ejection::Unreachable);
        } else if self.is_probe() {
            self.fail_probe(Ejection::Unreachable);
        }
    }

    /// [Ejects](Endpoint::eject) the endpoint, for longer if this request was to probe it.
    pub fn eject(&self, why: Ejection) {
        if self.is_probe() {
            self.fail_probe(why);
        }
        self.endpoint.eject(why);
    }

    fn fail_probe(&self, why: Ejection) {
        let probe = self.probe.and_then(|p| self.record.probe_failed(p, why));
        if let Some(time) = probe {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%, why:%, time:?; "half-open probe failed, still ejected");
        }
    }

    /// Counts the request into the endpoint's [`Traffic`]: its response has come, or it failed. A request
    /// that was cancelled before that is not counted.
    pub fn ended(&self, is_success: bool) {
        let Counters {
            requests,
            failures,
            micros,
        } = &self.endpoint.counters;
        let took = self.chosen.elapsed().as_micros();
        requests.fetch_add(1, Ordering::Relaxed);
        micros.fetch_add(took.try_into().unwrap_or(0), Ordering::Relaxed);
        if !is_success {
            failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Deref for InFlight {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(ejection) = self.probe {
            self.record.probe_ended(ejection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        let address = address.parse().unwrap();
        Endpoint::new(Arc::new(ServiceNode::new("a".parse().unwrap(), address)))
    }

    #[test]
    fn the_authority_has_the_form_of_a_url() {
        for authority in ["10.0.0.1:80", "[2001:db8::1]:80"] {
            assert_eq!(endpoint(authority).authority(), authority);
        }
    }

    #[test]
    fn requests_count_when_they_end() {
        let address = ([10, 0, 0, 1], 80).into();
        let node = ServiceNode::new("a".parse().unwrap(), address);
        let endpoint = Arc::new(Endpoint::new(Arc::new(node)));
        let [succeeded, failed, cancelled] = [(); 3].map(|()| InFlight::new(endpoint.clone()));
        assert_eq!(endpoint.traffic(), Traffic::default());
        let chosen = succeeded.chosen.elapsed();
        succeeded.ended(true);
        failed.ended(false);
        drop((succeeded, failed, cancelled));
        let traffic = endpoint.traffic();
        assert_eq!((traffic.requests, traffic.failures), (2, 1));
        assert!(traffic.time >= Duration::from_micros(chosen.as_micros() as u64));
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn a_success_disproves_all_but_failing() {
        let endpoint = Arc::new(endpoint("10.0.0.1:80"));
        for (why, after) in [
            (Ejection::Silent, None),
            (Ejection::Unreachable, None),
            (Ejection::Timeout, None),
            (Ejection::Failing, Some(Ejection::Failing)),
        ] {
            endpoint.eject(why);
            let request = InFlight::new(endpoint.clone());
            request.responded(false);
            assert_eq!(
                endpoint.ejected(),
                Some(why),
                "an error response changes nothing"
            );
            request.responded(true);
            assert_eq!(endpoint.ejected(), after);
        }
    }

    #[test]
    fn older_successes_do_not_uneject() {
        for why in Ejection::ALL {
            let endpoint = Arc::new(endpoint("10.0.0.1:80"));
            let request = InFlight::new(endpoint.clone());
            endpoint.eject(why);
            request.responded(true);
            assert_eq!(endpoint.ejected(), Some(why));
        }
    }
}
