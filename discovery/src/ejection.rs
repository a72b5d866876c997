//! Outlier detection: when an endpoint is ejected, for how long, and what un-ejects it.
//!
//! The model is that of [Envoy][1] and of [gRPC A50][2], with half-open probes. The invariant: an
//! ejection ends only with evidence that is younger than the ejection. Which endpoints receive
//! requests in spite of their ejection is the resolver's decision, not made here.
//!
//! | state | event | next state |
//! |---|---|---|
//! | up | five failures in a row: error responses, broken responses, timeouts, connect timeouts | ejected |
//! | up | a refused connection, or no response to a request nor to a health check | ejected |
//! | up | a success | up, counted from zero again |
//! | up | a timeout of a request from before the last ejection ended | up |
//! | ejected | its ejection expires | ejected, a health check is due |
//! | ejected | a check, or a request that began after the ejection, succeeds | up |
//! | ejected | [half-open](Record::half_open): only a request can end the ejection | half-open |
//! | half-open | a request is chosen as the probe: one that can be hedged, after a while any | probing |
//! | probing | the probe succeeds | up |
//! | probing | the probe fails | ejected, for twice the time |
//! | probing | the probe ends without a result | half-open |
//!
//! The first ejection lasts [`BASE_EJECTION_TIME`], each further one twice as long, up to
//! [`MAX_EJECTION_TIME`]. After a [timeout](Ejection::Timeout) the endpoint is half-open after
//! [`MAX_TIMEOUT_EJECTION_TIME`] at the latest, since a probe that is hedged costs its client little.
//!
//! [1]: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
//! [2]: https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// Failures in a row that eject an endpoint.
const CONSECUTIVE_FAILURES: u32 = 5;

/// Duration of the first ejection. Each further one doubles it.
const BASE_EJECTION_TIME: Duration = Duration::from_secs(1);

/// Maximum duration of an ejection. After an endpoint has been up for so long, the next ejection lasts
/// [`BASE_EJECTION_TIME`] again.
const MAX_EJECTION_TIME: Duration = Duration::from_secs(60);

/// Maximum time until an endpoint that was ejected for timeouts is probed by a request that can be
/// hedged.
const MAX_TIMEOUT_EJECTION_TIME: Duration = Duration::from_secs(10);

/// Time that a half-open endpoint waits for a probe that can be hedged. After it any request will do.
const UNHEDGED_PROBE_DELAY: Duration = Duration::from_secs(5);

/// Time for which an address stays drained that no snapshot contains.
const DRAIN_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Reason of an ejection: see [chapter 7 of the guide](crate::guide#7-when-nodes-die).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ejection {
    /// A connection was refused, or several in a row were not made in time.
    Unreachable,
    /// Connections can be made, and nothing comes back.
    Silent,
    /// Responses come back, and several in a row were failures.
    Failing,
    /// Several requests in a row got no response in time, whatever its health checks return.
    Timeout,
}

/// Which requests may be the probe of a half-open endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// The request goes to another endpoint too if this one fails or does not respond.
    Hedged,
    /// A failure of the probe is a failure of the request.
    Unhedged,
}

/// Progress of an ejected endpoint towards a request that shows whether it works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HalfOpen {
    #[default]
    No,
    Waiting,
    Probing,
}

/// Results of the requests to one endpoint, and its ejection if there is one.
#[derive(Debug, Default)]
pub(crate) struct Record {
    consecutive_failures: AtomicU32,
    /// Successes of requests, probes and health checks.
    successes: AtomicU64,
    /// A copy of `state.ejected.is_some()` that is read without a lock.
    is_ejected: AtomicBool,
    /// A std mutex: locked when something changes, never across an await.
    state: Mutex<State>,
    service: Arc<ServiceState>,
}

/// What the endpoints of one service share: a version, counters, and the drained addresses.
#[derive(Debug, Default)]
pub(crate) struct ServiceState {
    version: AtomicU64,
    ejections: [AtomicU64; Ejection::ALL.len()],
    /// With the time since which no snapshot contains the address. The state belongs to the address: an
    /// endpoint is replaced when its entry changes, and when its node registers again.
    drained: ArcSwap<HashMap<SocketAddr, Option<Instant>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Reason and start of the current ejection.
    ejected: Option<(Ejection, Instant)>,
    /// Expiry of the current ejection, or end of the last one.
    until: Option<Instant>,
    /// Ejections in a row, from which the duration of the next one follows.
    times: u32,
    /// Serial number of the ejection: a late result of a probe is not attributed to another one.
    number: u32,
    half_open: HalfOpen,
    /// Time from which a request that cannot be hedged may be the probe.
    unhedged_from: Option<Instant>,
}

impl Record {
    pub(crate) fn new(service: Arc<ServiceState>) -> Self {
        Self {
            service,
            ..Self::default()
        }
    }

    /// The state that it shares with the other endpoints of its service.
    pub(crate) fn service(&self) -> &ServiceState {
        &self.service
    }

    /// Reason and start of the ejection, `None` if there is none.
    pub(crate) fn ejected(&self) -> Option<(Ejection, Instant)> {
        if self.is_ejected.load(Ordering::Relaxed) {
            self.state().ejected
        } else {
            None
        }
    }

    /// Returns true if the endpoint is ejected and its ejection time is over.
    pub(crate) fn is_ejection_expired(&self) -> bool {
        if !self.is_ejected.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.state();
        state.ejected.is_some() && state.until.is_none_or(|until| until <= Instant::now())
    }

    /// Lets one request at a time show whether it works, if its ejection has expired.
    pub(crate) fn half_open(&self) {
        let mut state = self.state();
        let is_expired = state.until.is_none_or(|until| until <= Instant::now());
        if state.ejected.is_some() && is_expired && state.half_open == HalfOpen::No {
            state.half_open = HalfOpen::Waiting;
            self.changed();
        }
    }

    /// Time from which a request that cannot be hedged may be the probe; `None` if it awaits no probe.
    pub(crate) fn waits_for_probe(&self) -> Option<Instant> {
        let state = self.state();
        let is_waiting = state.half_open == HalfOpen::Waiting;
        state.unhedged_from.filter(|_| is_waiting)
    }

    /// Takes the right to probe, which one request has at a time. Returns the number of the ejection.
    pub(crate) fn begin_probe(&self) -> Option<u32> {
        let mut state = self.state();
        if state.half_open != HalfOpen::Waiting {
            return None;
        }
        state.half_open = HalfOpen::Probing;
        self.changed();
        Some(state.number)
    }

    /// Begins the next ejection, after the probe of this one failed. Returns its duration, `None` if
    /// another ejection began meanwhile.
    pub(crate) fn probe_failed(&self, ejection: u32, why: Ejection) -> Option<Duration> {
        let mut state = self.state();
        let time = state
            .is_probed_for(ejection)
            .then(|| state.begin(why, Instant::now()));
        if time.is_some() {
            self.changed();
        }
        time
    }

    /// Gives back the right to probe: after a probe without a result another one may begin.
    pub(crate) fn probe_ended(&self, ejection: u32) {
        let mut state = self.state();
        if state.is_probed_for(ejection) {
            state.half_open = HalfOpen::Waiting;
            self.changed();
        }
    }

    /// Number of successes so far.
    pub(crate) fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// Counts a response. Returns true if the endpoint is to be ejected for it.
    pub(crate) fn responded(&self, is_success: bool) -> bool {
        if !is_success {
            let failures = self.consecutive_failures.fetch_add(1, Ordering::Relaxed) + 1;
            return failures >= CONSECUTIVE_FAILURES;
        }
        self.successes.fetch_add(1, Ordering::Relaxed);
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
        false
    }

    /// Counts a request that was sent at `begun` and got no response in time. Returns true if the
    /// endpoint is to be ejected for it. A request from before the end of the last ejection is not
    /// counted.
    pub(crate) fn timed_out(&self, begun: Instant) -> bool {
        let is_outdated = self.state().ended_after(begun);
        !is_outdated && self.responded(false)
    }

    /// Ejects the endpoint. Returns the duration, `None` if it is ejected already.
    pub(crate) fn eject(&self, why: Ejection) -> Option<Duration> {
        let mut state = self.state();
        if state.ejected.is_some() {
            return None;
        }
        let now = Instant::now();
        if state
            .until
            .is_none_or(|until| until + MAX_EJECTION_TIME < now)
        {
            state.times = 0;
        }
        let time = state.begin(why, now);
        self.is_ejected.store(true, Ordering::Relaxed);
        self.service.ejections[why as usize].fetch_add(1, Ordering::Relaxed);
        self.changed();
        Some(time)
    }

    /// Counts a success of a request or a check that began at `begun`, and ends the ejection unless that
    /// is younger. Returns true if it ended one.
    pub(crate) fn uneject(&self, begun: Instant) -> bool {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let is_older = |(_, since): &mut (Ejection, Instant)| *since <= begun;
        let was_ejected = state.ejected.take_if(is_older).is_some();
        if was_ejected {
            state.until = Some(Instant::now());
            state.half_open = HalfOpen::No;
            self.consecutive_failures.store(0, Ordering::Relaxed);
            self.is_ejected.store(false, Ordering::Relaxed);
            self.changed();
        }
        was_ejected
    }

    /// Invalidates what resolvers have derived from the endpoint's state.
    pub(crate) fn changed(&self) {
        self.service.version.fetch_add(1, Ordering::Release);
    }

    /// Lets the current ejection expire.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        self.state().until = Some(Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins an ejection and returns its duration.
    fn begin(&mut self, why: Ejection, now: Instant) -> Duration {
        let doubled = BASE_EJECTION_TIME.saturating_mul(1 << self.times.min(16));
        let jitter = 0.8 + 0.2 * fastrand::f64();
        let full = doubled.min(MAX_EJECTION_TIME).mul_f64(jitter);
        let time = match why {
            Ejection::Timeout => full.min(MAX_TIMEOUT_EJECTION_TIME),
            Ejection::Unreachable | Ejection::Silent | Ejection::Failing => full,
        };
        self.times += 1;
        self.number = self.number.wrapping_add(1);
        self.ejected = Some((why, now));
        self.until = Some(now + time);
        self.half_open = HalfOpen::No;
        self.unhedged_from = Some(now + full + UNHEDGED_PROBE_DELAY);
        time
    }

    fn is_probed_for(&self, ejection: u32) -> bool {
        self.half_open == HalfOpen::Probing && self.number == ejection
    }

    /// Returns true if an ejection ended after that time and no other has begun.
    fn ended_after(&self, time: Instant) -> bool {
        self.ejected.is_none() && self.until.is_some_and(|ended| time < ended)
    }
}

impl ServiceState {
    /// Changes whenever an endpoint is ejected, un-ejected, probed, drained or undrained, or becomes
    /// confirmed or unconfirmed.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Number of ejections for this reason so far.
    pub(crate) fn ejections(&self, why: Ejection) -> u64 {
        self.ejections[why as usize].load(Ordering::Relaxed)
    }

    /// Returns true if the address is drained.
    pub(crate) fn is_drained(&self, address: SocketAddr) -> bool {
        self.drained.load().contains_key(&address)
    }

    /// Drains or undrains an address. Returns true if that changed anything.
    pub(crate) fn set_drained(&self, address: SocketAddr, drained: bool) -> bool {
        let before = self.drained.rcu(|known| {
            let mut known = HashMap::clone(known);
            if drained {
                known.entry(address).or_default();
            } else {
                known.remove(&address);
            }
            known
        });
        let changed = before.contains_key(&address) != drained;
        if changed {
            self.version.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Drained addresses that the last snapshot did not contain, sorted.
    pub(crate) fn drained_unregistered(&self) -> Vec<SocketAddr> {
        let drained = self.drained.load();
        let unregistered = drained.iter().filter(|(_, since)| since.is_some());
        let mut unregistered: Vec<_> = unregistered.map(|(address, _)| *address).collect();
        unregistered.sort_unstable();
        unregistered
    }

    /// Records which drained addresses a snapshot contains. Removes those that no snapshot has contained
    /// for [a day](DRAIN_RETENTION): another node may have the address then.
    pub(crate) fn update_registered(
        &self,
        now: Instant,
        is_registered: impl Fn(SocketAddr) -> bool,
    ) {
        if self.drained.load().is_empty() {
            return;
        }
        self.drained.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.retain(|address, unregistered_since| {
                *unregistered_since = if is_registered(*address) {
                    None
                } else {
                    Some(unregistered_since.unwrap_or(now))
                };
                unregistered_since.is_none_or(|since| now - since < DRAIN_RETENTION)
            });
            known
        });
    }
}

impl Ejection {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::Unreachable,
        Self::Silent,
        Self::Failing,
        Self::Timeout,
    ];

    /// The reason in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Failing => "failing",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
