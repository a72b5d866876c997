use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::ServiceNode;
use crate::ejection::{Ejection, Record};

/// A node as a client sees it: what the registry says of it, and what the client knows by itself.
///
/// [Chapter 7 of the guide](crate::guide#7-when-nodes-die) is about what a client should tell it.
///
/// It stays the same through snapshots as long as the node's entry does; an entry that changed is
/// a new endpoint with nothing held against it.
#[derive(Debug)]
pub struct Endpoint {
    node: Arc<ServiceNode>,
    authority: Box<str>,
    weight: u16,
    in_flight: AtomicUsize,
    ended: Ended,
    record: Record,
    unconfirmed: AtomicBool,
}

/// Requests that have ended. Whoever wants rates takes the difference between two looks.
#[derive(Debug, Default)]
struct Ended {
    requests: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
}

/// What became of the requests that were sent to an endpoint so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Those that had an answer or failed.
    pub requests: u64,
    /// Those of them that had a bad answer, or none.
    pub failures: u64,
    /// How long all of them took together, each from its choice to the head of its answer.
    pub time: Duration,
}

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    pub fn new(node: Arc<ServiceNode>) -> Self {
        Self::with_record(node, Record::default())
    }

    pub(crate) fn with_record(node: Arc<ServiceNode>, record: Record) -> Self {
        Self {
            authority: node.address.to_string().into(),
            weight: node.weight(),
            node,
            in_flight: AtomicUsize::new(0),
            ended: Ended::default(),
            record,
            unconfirmed: AtomicBool::new(false),
        }
    }

    /// The node's address as it stands in a URL, `10.0.0.5:8080` or `[::1]:8080`, written once
    /// ([RFC 3986, section 3.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2)).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The node's [weight](ServiceNode::weight), read once.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// How many requests are with it now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What became of the requests that were sent to it so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.ended.requests.load(Ordering::Relaxed),
            failures: self.ended.failures.load(Ordering::Relaxed),
            time: Duration::from_micros(self.ended.micros.load(Ordering::Relaxed)),
        }
    }

    /// Whether somebody asked that it gets no requests. Unlike one that is set aside it gets none at
    /// all, even if there is nobody else.
    pub fn is_drained(&self) -> bool {
        self.record.counts().is_drained(self.address)
    }

    /// Sends no further requests to its address from this client, until it is
    /// [released](Self::release). Those it has go on. The state belongs to the address: it outlasts the
    /// entry in the registry and the node's process, unless no node registers there for a day.
    pub fn drain(&self) {
        if self.record.counts().set_drained(self.address, true) {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%; "node drained");
        }
    }

    /// The end of [draining](Self::drain).
    pub fn release(&self) {
        if self.record.counts().set_drained(self.address, false) {
            let (service, address) = (&self.service, self.address);
            info!(service:%, address:%; "node released");
        }
    }

    /// Whether it vanished from the registry in a way that is not believed yet. It stays usable for
    /// a while, or until nobody is found there.
    pub fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unconfirmed(&self, unconfirmed: bool) {
        self.unconfirmed.store(unconfirmed, Ordering::Relaxed);
        self.record.changed(); // it may be gone now, or be back
    }

    /// Whether there is no reason left to try it.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_unconfirmed() && self.ejected() == Some(Ejection::Unreachable)
    }

    /// Why it is set aside, `None` while it is not.
    pub fn ejected(&self) -> Option<Ejection> {
        self.record.ejected().map(|(why, _)| why)
    }

    /// Why it is set aside, and since when.
    pub(crate) fn ejected_since(&self) -> Option<(Ejection, Instant)> {
        self.record.ejected()
    }

    /// How many good answers it gave: to users, and when it was tried.
    pub fn good_answers(&self) -> u64 {
        self.record.good_answers()
    }

    /// Whether it ever gave a good answer.
    pub fn is_proven(&self) -> bool {
        self.good_answers() > 0
    }

    /// Sets it aside for a second, the next times for longer, up to a minute. It stays aside until
    /// somebody tries it when that is [due](Self::trial_is_due), and [restores](Self::restore) it.
    pub fn eject(&self, why: Ejection) {
        if let Some(time) = self.record.eject(why) {
            let ServiceNode {
                service, address, ..
            } = self.node.as_ref();
            warn!(service:%, address:%, why:%, time:?; "node set aside");
        }
    }

    /// Whether it is set aside, and its time is over: somebody should try it.
    pub fn trial_is_due(&self) -> bool {
        self.record.trial_is_due()
    }

    /// Lets requests show whether it works, if it is ejected and its time is over: one at a time, each of
    /// those that [`Resolver::resolve_or_probe`](crate::Resolver::resolve_or_probe) chooses for. For
    /// endpoints whose health check does not decide, because it fails for other reasons than requests
    /// do, or passes while requests [time out](Ejection::Timeout).
    pub fn half_open(&self) {
        self.record.half_open();
    }

    /// From when on a request that cannot be hedged may be the probe; `None` if none is to be.
    pub(crate) fn waits_for_probe(&self) -> Option<Instant> {
        self.record.waits_for_probe()
    }

    /// For how long it has been ejected.
    pub fn ejected_for(&self) -> Option<Duration> {
        self.record.ejected().map(|(_, since)| since.elapsed())
    }

    /// A trial succeeded that was begun at this time: it is like any other again, unless it was set
    /// aside later. What was on its way by then tells nothing of how it is now.
    pub fn restore(&self, begun: Instant) {
        if self.record.restore(begun) {
            let ServiceNode {
                service, address, ..
            } = self.node.as_ref();
            info!(service:%, address:%; "node is back");
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

/// A chosen endpoint. It counts as one request in flight until it is dropped, so keep it for as long
/// as the request lasts, its answer's body included.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    chosen: Instant,
    /// The ejection that this request may end.
    probe: Option<u32>,
}

impl InFlight {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self::with_probe(endpoint, None)
    }

    /// The probe of a half-open endpoint, unless another request is.
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

    /// Whether the endpoint is ejected, and this request shows whether it still has to be.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// Tells of its answer. A bad one says that the endpoint is at fault: five failures in a row eject
    /// it. A good one [restores](Endpoint::restore) an endpoint that was ejected because nothing came
    /// from it, or that this request was to probe.
    pub fn answered(&self, good: bool) {
        if self.record.answered(good) {
            self.eject(Ejection::Failing);
        } else if !good && self.is_probe() {
            self.fail_probe(Ejection::Failing);
        }
        let is_disproved = |why: Ejection| self.is_probe() || why != Ejection::Failing;
        if good && self.ejected().is_some_and(is_disproved) {
            self.restore(self.chosen);
        }
    }

    /// Reports that no response came in time, or so late that another endpoint had responded meanwhile:
    /// a failure like a bad answer.
    pub fn timed_out(&self) {
        if self.record.timed_out(self.chosen) {
            self.eject(Ejection::Timeout);
        } else if self.is_probe() {
            self.fail_probe(Ejection::Timeout);
        }
    }

    /// Reports that no connection was made in time: a failure like a bad answer. Five failures in a row
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

    /// Counts it into the endpoint's [`Traffic`]: its answer has come, or it failed. A request that
    /// nobody waited for until then is not counted.
    pub fn ended(&self, good: bool) {
        let Ended {
            requests,
            failures,
            micros,
        } = &self.endpoint.ended;
        let took = self.chosen.elapsed().as_micros();
        requests.fetch_add(1, Ordering::Relaxed);
        micros.fetch_add(took.try_into().unwrap_or(0), Ordering::Relaxed);
        if !good {
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
    fn an_address_is_written_as_it_stands_in_a_url() {
        for authority in ["10.0.0.1:80", "[2001:db8::1]:80"] {
            assert_eq!(endpoint(authority).authority(), authority);
        }
    }

    #[test]
    fn requests_are_counted_when_they_end() {
        let address = ([10, 0, 0, 1], 80).into();
        let node = ServiceNode::new("a".parse().unwrap(), address);
        let endpoint = Arc::new(Endpoint::new(Arc::new(node)));
        let [good, bad, given_up] = [(); 3].map(|()| InFlight::new(endpoint.clone()));
        assert_eq!(endpoint.traffic(), Traffic::default());
        let chosen = good.chosen.elapsed();
        good.ended(true);
        bad.ended(false);
        drop((good, bad, given_up));
        let traffic = endpoint.traffic();
        assert_eq!((traffic.requests, traffic.failures), (2, 1));
        assert!(traffic.time >= Duration::from_micros(chosen.as_micros() as u64));
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn an_answer_disproves_silence_and_not_sickness() {
        let endpoint = Arc::new(endpoint("10.0.0.1:80"));
        for (why, after) in [
            (Ejection::Silent, None),
            (Ejection::Unreachable, None),
            (Ejection::Timeout, None),
            (Ejection::Failing, Some(Ejection::Failing)),
        ] {
            endpoint.eject(why);
            let request = InFlight::new(endpoint.clone());
            request.answered(false);
            assert_eq!(endpoint.ejected(), Some(why), "a bad one says nothing");
            request.answered(true);
            assert_eq!(endpoint.ejected(), after);
        }
    }

    #[test]
    fn an_answer_to_a_request_from_before_disproves_nothing() {
        for why in Ejection::ALL {
            let endpoint = Arc::new(endpoint("10.0.0.1:80"));
            let request = InFlight::new(endpoint.clone());
            endpoint.eject(why);
            request.answered(true);
            assert_eq!(endpoint.ejected(), Some(why));
        }
    }
}
