//! Outlier detection: when an endpoint is ejected, for how long, and what un-ejects it.
//!
//! | state | event | next state |
//! |---|---|---|
//! | up | five failures in a row: error responses, broken responses, timeouts, connect timeouts | ejected |
//! | up | a refused connection, or no response to a request nor to a health check | ejected |
//! | up | a success | up, counted from zero again |
//! | up | a timeout of a request from before the last ejection ended | up |
//! | ejected | its ejection time is over | ejected, a health check is due |
//! | ejected | a check, or a request that began after the ejection, shows that it works | up |
//! | ejected | [half-open](Record::half_open): only a request can show it | half-open |
//! | half-open | a request is chosen as the probe: one that can be hedged, after a while any | probing |
//! | probing | the probe succeeds | up |
//! | probing | the probe fails | ejected, for twice the time |
//! | probing | the probe ends without a result | half-open |
//!
//! The first ejection takes [`SHORTEST`], each further one twice as long, up to [`LONGEST`]. After a
//! [timeout](Ejection::Timeout) the endpoint is half-open after [`LONGEST_UNTIL_HEDGED_PROBE`] at the
//! latest, since a probe that is hedged costs its client little.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// So many bad answers in a row, and an endpoint is ejected.
const BAD_ANSWERS: u32 = 5;

/// For how long an endpoint is ejected the first time. Each further time doubles it.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest it is ejected, and how long it has to behave for its past to be forgotten.
const LONGEST: Duration = Duration::from_secs(60);

/// The longest time until an endpoint that was ejected for timeouts is probed by a request that can be
/// hedged.
const LONGEST_UNTIL_HEDGED_PROBE: Duration = Duration::from_secs(10);

/// How long a half-open endpoint waits for a probe that can be hedged before any request will do.
const UNHEDGED_PROBE_DELAY: Duration = Duration::from_secs(5);

/// How long an address stays drained that no snapshot contains.
const DRAINED_UNLISTED: Duration = Duration::from_secs(24 * 60 * 60);

/// Why an endpoint is set aside: see [chapter 7 of the guide](crate::guide#7-when-nodes-die).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ejection {
    /// A connection was refused, or several in a row were not made in time.
    Unreachable,
    /// Connections can be made, and nothing comes back.
    Silent,
    /// Answers come back, and several in a row were bad.
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

/// Whether an ejected endpoint waits for a request that shows whether it works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HalfOpen {
    #[default]
    No,
    Waiting,
    Probing,
}

/// What a client has against one endpoint, if anything.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bad_answers: AtomicU32,
    /// Answers that were good, to probes too.
    good_answers: AtomicU64,
    /// Whether it is ejected, for those who have no time to ask why.
    is_ejected: AtomicBool,
    /// A std mutex: looked at when something changes, never across an await.
    standing: Mutex<Standing>,
    counts: Arc<Counts>,
}

/// How often something happened to the endpoints of one service, all together, and which of its
/// addresses are drained.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    changes: AtomicU64,
    ejections: [AtomicU64; Ejection::ALL.len()],
    /// With the time since when no snapshot contains the address. The state belongs to the address: an
    /// endpoint is replaced when its entry changes, and when its node registers again.
    drained: ArcSwap<HashMap<SocketAddr, Option<Instant>>>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Why, and since when.
    ejected: Option<(Ejection, Instant)>,
    /// Until when, or since when not any more.
    until: Option<Instant>,
    times: u32,
    /// Counts all of them, so that a late result of a probe is not taken for that of another one.
    number: u32,
    half_open: HalfOpen,
    /// From when on a request that cannot be hedged may be the probe.
    unhedged_from: Option<Instant>,
}

impl Record {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why it is ejected, and since when.
    pub(crate) fn ejected(&self) -> Option<(Ejection, Instant)> {
        match self.is_ejected.load(Ordering::Relaxed) {
            true => self.standing().ejected,
            false => None,
        }
    }

    /// Whether it is ejected and may be tried again.
    pub(crate) fn trial_is_due(&self) -> bool {
        if !self.is_ejected.load(Ordering::Relaxed) {
            return false;
        }
        let standing = self.standing();
        standing.ejected.is_some() && standing.until.is_none_or(|until| until <= Instant::now())
    }

    /// Lets one request at a time show whether it works, if its ejection time is over.
    pub(crate) fn half_open(&self) {
        let mut standing = self.standing();
        let is_due = standing.until.is_none_or(|until| until <= Instant::now());
        if standing.ejected.is_some() && is_due && standing.half_open == HalfOpen::No {
            standing.half_open = HalfOpen::Waiting;
            self.changed();
        }
    }

    /// From when on a request that cannot be hedged may be the probe; `None` if there is none to be.
    pub(crate) fn waits_for_probe(&self) -> Option<Instant> {
        let standing = self.standing();
        let is_waiting = standing.half_open == HalfOpen::Waiting;
        standing.unhedged_from.filter(|_| is_waiting)
    }

    /// Takes the right to probe, which one request has at a time. Returns the ejection it is for.
    pub(crate) fn begin_probe(&self) -> Option<u32> {
        let mut standing = self.standing();
        if standing.half_open != HalfOpen::Waiting {
            return None;
        }
        standing.half_open = HalfOpen::Probing;
        self.changed();
        Some(standing.number)
    }

    /// The probe of this ejection failed: the next one begins. Returns for how long.
    pub(crate) fn probe_failed(&self, ejection: u32, why: Ejection) -> Option<Duration> {
        let mut standing = self.standing();
        let time = standing
            .is_probed_for(ejection)
            .then(|| standing.begin(why, Instant::now()));
        if time.is_some() {
            self.changed();
        }
        time
    }

    /// The probe of this ejection ended. Without a result another one may begin.
    pub(crate) fn probe_ended(&self, ejection: u32) {
        let mut standing = self.standing();
        if standing.is_probed_for(ejection) {
            standing.half_open = HalfOpen::Waiting;
            self.changed();
        }
    }

    pub(crate) fn good_answers(&self) -> u64 {
        self.good_answers.load(Ordering::Relaxed)
    }

    /// An answer came. Returns whether it was one bad answer too many.
    pub(crate) fn answered(&self, good: bool) -> bool {
        if !good {
            return self.bad_answers.fetch_add(1, Ordering::Relaxed) + 1 >= BAD_ANSWERS;
        }
        self.good_answers.fetch_add(1, Ordering::Relaxed);
        if self.bad_answers.load(Ordering::Relaxed) != 0 {
            self.bad_answers.store(0, Ordering::Relaxed);
        }
        false
    }

    /// A request that began then got no response in time. Returns whether it was one failure too many.
    pub(crate) fn timed_out(&self, begun: Instant) -> bool {
        let is_outdated = self.standing().ended_after(begun);
        !is_outdated && self.answered(false)
    }

    /// Returns for how long it is ejected, `None` if it is already.
    pub(crate) fn eject(&self, why: Ejection) -> Option<Duration> {
        let mut standing = self.standing();
        if standing.ejected.is_some() {
            return None;
        }
        let now = Instant::now();
        if standing.until.is_none_or(|until| until + LONGEST < now) {
            standing.times = 0;
        }
        let time = standing.begin(why, now);
        self.is_ejected.store(true, Ordering::Relaxed);
        self.counts.ejections[why as usize].fetch_add(1, Ordering::Relaxed);
        self.changed();
        Some(time)
    }

    /// What was begun at this time had a good answer. Returns whether that ends an ejection: one that
    /// began later may be for what happened since.
    pub(crate) fn restore(&self, begun: Instant) -> bool {
        self.good_answers.fetch_add(1, Ordering::Relaxed);
        let mut standing = self.standing();
        let is_older = |(_, since): &mut (Ejection, Instant)| *since <= begun;
        let was_ejected = standing.ejected.take_if(is_older).is_some();
        if was_ejected {
            standing.until = Some(Instant::now());
            standing.half_open = HalfOpen::No;
            self.bad_answers.store(0, Ordering::Relaxed);
            self.is_ejected.store(false, Ordering::Relaxed);
            self.changed();
        }
        was_ejected
    }

    /// Whoever chooses has to look at its endpoint again.
    pub(crate) fn changed(&self) {
        self.counts.changes.fetch_add(1, Ordering::Release);
    }

    /// Ends the time of its ejection.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        self.standing().until = Some(Instant::now());
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        // Nothing panics while holding it.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Begins an ejection and returns its time.
    fn begin(&mut self, why: Ejection, now: Instant) -> Duration {
        let doubled = SHORTEST.saturating_mul(1 << self.times.min(16));
        let full = doubled.min(LONGEST).mul_f64(0.8 + 0.2 * fastrand::f64());
        let time = match why {
            Ejection::Timeout => full.min(LONGEST_UNTIL_HEDGED_PROBE),
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

    /// Whether an ejection ended after that time. While there is one, `until` is when it ends.
    fn ended_after(&self, time: Instant) -> bool {
        self.ejected.is_none() && self.until.is_some_and(|ended| time < ended)
    }
}

impl Counts {
    /// Counted up at every ejection and restoration, and when an endpoint is doubted or confirmed,
    /// drained or released.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn ejections(&self, why: Ejection) -> u64 {
        self.ejections[why as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn is_drained(&self, address: SocketAddr) -> bool {
        self.drained.load().contains_key(&address)
    }

    /// Returns whether that changed anything.
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
            self.changes.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// The drained addresses that the last snapshot did not contain.
    pub(crate) fn drained_unlisted(&self) -> Vec<SocketAddr> {
        let drained = self.drained.load();
        let unlisted = drained.iter().filter(|(_, since)| since.is_some());
        let mut unlisted: Vec<_> = unlisted.map(|(address, _)| *address).collect();
        unlisted.sort_unstable();
        unlisted
    }

    /// Notes which drained addresses a snapshot contains, and forgets those that no snapshot has
    /// contained for [a day](DRAINED_UNLISTED): another node may have the address then.
    pub(crate) fn see_listed(&self, now: Instant, is_listed: impl Fn(SocketAddr) -> bool) {
        if self.drained.load().is_empty() {
            return;
        }
        self.drained.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.retain(|address, unlisted_since| {
                *unlisted_since = match is_listed(*address) {
                    true => None,
                    false => Some(unlisted_since.unwrap_or(now)),
                };
                unlisted_since.is_none_or(|since| now - since < DRAINED_UNLISTED)
            });
            known
        });
    }
}

impl Ejection {
    /// Every reason there is.
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
mod tests {
    use super::*;

    #[test]
    fn five_bad_answers_in_a_row_are_too_many() {
        let record = Record::default();
        let bad: Vec<_> = (0..4).map(|_| record.answered(false)).collect();
        assert_eq!(bad, [false; 4]);
        assert!(!record.answered(true), "a good one begins anew");
        let bad: Vec<_> = (0..5).map(|_| record.answered(false)).collect();
        assert_eq!(bad, [false, false, false, false, true]);
    }

    #[test]
    fn the_time_doubles_with_every_ejection_up_to_a_minute() {
        let record = Record::default();
        for times in 0..10 {
            let time = record.eject(Ejection::Failing).unwrap();
            let longest = (SHORTEST * (1 << times)).min(LONGEST);
            assert!(
                time <= longest && time >= longest.mul_f64(0.8),
                "{time:?} of {longest:?}"
            );
            assert_eq!(record.eject(Ejection::Silent), None, "once is enough");
            assert!(!record.trial_is_due());
            let why = record.ejected().map(|(why, _)| why);
            assert_eq!(why, Some(Ejection::Failing));
            let restored = [(); 2].map(|()| record.restore(Instant::now()));
            assert_eq!(restored, [true, false]);
        }
    }

    #[test]
    fn every_change_is_counted() {
        let counts = Arc::<Counts>::default();
        let record = Record::new(counts.clone());
        record.eject(Ejection::Unreachable);
        record.eject(Ejection::Unreachable);
        record.restore(Instant::now());
        record.restore(Instant::now());
        assert_eq!(counts.changes(), 2);
        let address = ([10, 0, 0, 1], 80).into();
        let changed =
            [true, true, false, false].map(|drained| counts.set_drained(address, drained));
        assert_eq!(changed, [true, false, true, false]);
        assert_eq!(counts.changes(), 4);
        let ejections = Ejection::ALL.map(|why| counts.ejections(why));
        assert_eq!(ejections, [1, 0, 0, 0]);
    }

    #[test]
    fn a_trial_is_due_when_the_time_is_over() {
        let record = Record::default();
        assert!(!record.trial_is_due(), "it is not ejected");
        record.eject(Ejection::Silent).unwrap();
        assert!(!record.trial_is_due());
        record.standing().until = Some(Instant::now());
        assert!(record.trial_is_due());
        record.restore(Instant::now());
        assert!(!record.trial_is_due());
    }

    #[test]
    fn what_was_begun_before_an_ejection_does_not_end_it() {
        let (record, before) = (Record::default(), Instant::now());
        record.eject(Ejection::Unreachable).unwrap();
        assert!(!record.restore(before));
        let (_, since) = record.ejected().unwrap();
        assert!(record.restore(since));
        assert_eq!(record.good_answers(), 2);
    }

    #[test]
    fn who_behaves_for_a_minute_begins_anew() {
        let record = Record::default();
        for behaved in [Duration::ZERO, LONGEST, LONGEST + SHORTEST] {
            record.eject(Ejection::Failing).unwrap();
            record.restore(Instant::now());
            record.standing().until = Instant::now().checked_sub(behaved);
        }
        let time = record.eject(Ejection::Failing).unwrap();
        assert!(time <= SHORTEST, "{time:?}");
    }

    #[test]
    fn a_good_answer_and_a_good_trial_are_counted() {
        let [answered, tried] = [Record::default(), Record::default()];
        answered.answered(false);
        assert_eq!([answered.good_answers(), tried.good_answers()], [0, 0]);
        answered.answered(true);
        tried.restore(Instant::now());
        assert_eq!([answered.good_answers(), tried.good_answers()], [1, 1]);
    }

    #[test]
    fn a_reason_is_one_word() {
        let words = Ejection::ALL.map(|reason| reason.to_string());
        assert_eq!(words, ["unreachable", "silent", "failing", "timeout"]);
    }
    /// A record that is ejected for this reason, and whose ejection time is over.
    fn expired(why: Ejection) -> Record {
        let record = Record::default();
        record.eject(why).unwrap();
        record.expire();
        record
    }

    #[test]
    fn timeouts_and_bad_answers_in_a_row_are_counted_together() {
        let (record, begun) = (Record::default(), Instant::now());
        let failures = [
            record.timed_out(begun),
            record.answered(false),
            record.timed_out(begun),
            record.answered(false),
        ];
        assert_eq!(failures, [false; 4]);
        assert!(record.timed_out(begun));
        record.answered(true);
        assert!(!record.timed_out(begun), "a success counts from zero");
    }

    #[test]
    fn a_passed_health_check_of_an_endpoint_that_is_up_is_no_success() {
        let (record, begun) = (Record::default(), Instant::now());
        let failures: Vec<_> = (0..5)
            .map(|_| {
                record.restore(Instant::now());
                record.timed_out(begun)
            })
            .collect();
        assert_eq!(failures, [false, false, false, false, true]);
    }

    #[test]
    fn timeouts_from_before_an_ejection_ended_do_not_count() {
        let (record, before) = (Record::default(), Instant::now());
        record.eject(Ejection::Timeout);
        record.restore(Instant::now());
        let failures = [(); 9].map(|()| record.timed_out(before));
        assert_eq!(failures, [false; 9]);
        let after = Instant::now();
        let failures = [(); 5].map(|()| record.timed_out(after));
        assert_eq!(failures, [false, false, false, false, true]);
    }

    #[test]
    fn a_half_open_endpoint_is_probed_by_one_request_at_a_time() {
        for why in Ejection::ALL {
            let record = Record::default();
            record.half_open();
            assert_eq!(record.begin_probe(), None, "it is up");
            record.eject(why).unwrap();
            record.half_open();
            assert_eq!(record.begin_probe(), None, "its time is not over");
            let record = expired(why);
            assert_eq!(record.begin_probe(), None, "it is not half-open");
            record.half_open();
            let probe = record.begin_probe().unwrap();
            record.half_open();
            assert_eq!(record.begin_probe(), None, "one is enough");
            record.probe_ended(probe);
            assert_eq!(record.begin_probe(), Some(probe));
            assert!(record.restore(Instant::now()));
            record.probe_ended(probe);
            assert!(record.ejected().is_none() && record.waits_for_probe().is_none());
        }
    }

    #[test]
    fn a_failed_probe_ejects_for_longer_and_is_no_further_ejection() {
        let (counts, now) = (Arc::<Counts>::default(), Instant::now());
        let record = Record::new(counts.clone());
        record.eject(Ejection::Failing).unwrap();
        for times in 1..9 {
            record.standing().until = Some(now);
            record.half_open();
            let probe = record.begin_probe().unwrap();
            let time = record.probe_failed(probe, Ejection::Timeout).unwrap();
            let limit = (SHORTEST * (1 << times)).min(LONGEST_UNTIL_HEDGED_PROBE);
            assert!(time <= limit && time >= limit.mul_f64(0.8), "{time:?}");
            assert_eq!(record.probe_failed(probe, Ejection::Timeout), None);
            assert_eq!(record.begin_probe(), None);
        }
        let unhedged_from = record.standing().unhedged_from.unwrap();
        assert!(unhedged_from > now + LONGEST.mul_f64(0.8));
        let ejections = Ejection::ALL.map(|why| counts.ejections(why));
        assert_eq!(ejections, [0, 0, 1, 0]);
    }

    #[test]
    fn a_drained_address_is_forgotten_a_day_after_its_last_snapshot() {
        let (counts, now) = (Counts::default(), Instant::now());
        let [one, two] = [1, 2].map(|port| ([10, 0, 0, 1], port).into());
        counts.set_drained(one, true);
        counts.set_drained(two, true);
        let later = [0.0, 0.9, 1.1].map(|days| now + DRAINED_UNLISTED.mul_f64(days));
        for (time, remaining) in later.into_iter().zip([true, true, false]) {
            counts.see_listed(time, |address| address == two);
            assert_eq!(counts.is_drained(one), remaining);
            assert_eq!(
                counts.drained_unlisted(),
                [one; 1][..usize::from(remaining)]
            );
        }
        assert!(counts.is_drained(two));
        counts.see_listed(later[0], |_| false);
        assert_eq!(counts.drained_unlisted(), [two]);
        counts.see_listed(later[2], |_| true);
        assert!(counts.is_drained(two) && counts.drained_unlisted().is_empty());
    }
}
