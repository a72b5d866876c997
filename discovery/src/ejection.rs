use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many bad answers in a row, and an endpoint is ejected.
const BAD_ANSWERS: u32 = 5;

/// For how long an endpoint is ejected the first time. Each further time doubles it.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest it is ejected, and how long it has to behave for its past to be forgotten.
const LONGEST: Duration = Duration::from_secs(60);

/// Why an endpoint is set aside: see [chapter 7 of the guide](crate::guide#7-when-nodes-die).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ejection {
    /// No connection could be made: nobody is there.
    Unreachable,
    /// Connections can be made, and nothing comes back.
    Silent,
    /// Answers come back, and several in a row were bad.
    Failing,
}

/// What a client has against one endpoint, if anything.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bad_answers: AtomicU32,
    /// Answers that were good, to probes too.
    good_answers: AtomicU64,
    /// Whether it is ejected, for those who have no time to ask why.
    is_ejected: AtomicBool,
    /// Whether somebody asked that it gets no requests.
    is_drained: AtomicBool,
    /// A std mutex: looked at when something changes, never across an await.
    standing: Mutex<Standing>,
    counts: Arc<Counts>,
}

/// How often something happened to the endpoints of one service, all together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    changes: AtomicU64,
    ejections: [AtomicU64; Ejection::ALL.len()],
}

#[derive(Debug, Default)]
struct Standing {
    /// Why, and since when.
    ejected: Option<(Ejection, Instant)>,
    /// Until when, or since when not any more.
    until: Option<Instant>,
    times: u32,
}

impl Record {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            ..Self::default()
        }
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
        let standing = self.standing();
        standing.ejected.is_some() && standing.until.is_none_or(|until| until <= Instant::now())
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Returns whether that changed anything.
    pub(crate) fn set_drained(&self, drained: bool) -> bool {
        let changed = self.is_drained.swap(drained, Ordering::Relaxed) != drained;
        if changed {
            self.counts.changes.fetch_add(1, Ordering::Release);
        }
        changed
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
        let time = SHORTEST
            .saturating_mul(1 << standing.times.min(16))
            .min(LONGEST);
        let time = time.mul_f64(0.8 + 0.2 * fastrand::f64());
        standing.times += 1;
        standing.until = Some(now + time);
        standing.ejected = Some((why, now));
        self.is_ejected.store(true, Ordering::Relaxed);
        self.counts.ejections[why as usize].fetch_add(1, Ordering::Relaxed);
        self.changed();
        Some(time)
    }

    /// What was begun at this time had a good answer. Returns whether that ends an ejection: one that
    /// began later may be for what happened since.
    pub(crate) fn restore(&self, begun: Instant) -> bool {
        self.answered(true);
        let mut standing = self.standing();
        let is_older = |(_, since): &mut (Ejection, Instant)| *since <= begun;
        let was_ejected = standing.ejected.take_if(is_older).is_some();
        if was_ejected {
            standing.until = Some(Instant::now());
            self.is_ejected.store(false, Ordering::Relaxed);
            self.changed();
        }
        was_ejected
    }

    /// Whoever chooses has to look at its endpoint again.
    pub(crate) fn changed(&self) {
        self.counts.changes.fetch_add(1, Ordering::Release);
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        // Nothing panics while holding it.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Ejection {
    /// Every reason there is.
    pub const ALL: [Self; 3] = [Self::Unreachable, Self::Silent, Self::Failing];

    /// The reason in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Failing => "failing",
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
        let changed = [true, true, false, false].map(|drained| record.set_drained(drained));
        assert_eq!(changed, [true, false, true, false]);
        assert_eq!(counts.changes(), 4);
        let ejections = Ejection::ALL.map(|why| counts.ejections(why));
        assert_eq!(ejections, [1, 0, 0]);
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
        let reasons = [Ejection::Unreachable, Ejection::Silent, Ejection::Failing];
        let words = reasons.map(|reason| reason.to_string());
        assert_eq!(words, ["unreachable", "silent", "failing"]);
    }
}
