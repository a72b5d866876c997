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

/// Why an endpoint is set aside.
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
    /// Whether it ever answered.
    proven: AtomicBool,
    /// A std mutex: looked at when something changes, never across an await.
    standing: Mutex<Standing>,
    /// Counted up at every change, for all endpoints of a service together.
    changes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Standing {
    ejected: Option<Ejection>,
    /// Until when, or since when not any more.
    until: Option<Instant>,
    times: u32,
}

impl Record {
    pub(crate) fn new(changes: Arc<AtomicU64>) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    pub(crate) fn ejected(&self) -> Option<Ejection> {
        self.standing().ejected
    }

    /// Whether it is ejected and may be tried again.
    pub(crate) fn trial_is_due(&self) -> bool {
        let standing = self.standing();
        standing.ejected.is_some() && standing.until.is_none_or(|until| until <= Instant::now())
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    fn prove(&self) {
        if !self.is_proven() {
            self.proven.store(true, Ordering::Relaxed);
        }
    }

    /// An answer came. Returns whether it was one bad answer too many.
    pub(crate) fn answered(&self, good: bool) -> bool {
        if !good {
            return self.bad_answers.fetch_add(1, Ordering::Relaxed) + 1 >= BAD_ANSWERS;
        }
        self.prove();
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
        standing.ejected = Some(why);
        self.changes.fetch_add(1, Ordering::Release);
        Some(time)
    }

    /// Returns whether it was ejected until now.
    pub(crate) fn restore(&self) -> bool {
        self.prove();
        self.bad_answers.store(0, Ordering::Relaxed);
        let mut standing = self.standing();
        let was_ejected = standing.ejected.take().is_some();
        if was_ejected {
            standing.until = Some(Instant::now());
            self.changes.fetch_add(1, Ordering::Release);
        }
        was_ejected
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        // Nothing panics while holding it.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ejection {
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
            assert!(!record.trial_is_due() && record.ejected() == Some(Ejection::Failing));
            assert!(record.restore() && !record.restore());
        }
    }

    #[test]
    fn every_change_is_counted() {
        let changes = Arc::<AtomicU64>::default();
        let record = Record::new(changes.clone());
        record.eject(Ejection::Unreachable);
        record.eject(Ejection::Unreachable);
        record.restore();
        record.restore();
        assert_eq!(changes.load(Ordering::Relaxed), 2);
    }
}
