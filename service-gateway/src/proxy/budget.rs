use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Extra attempts that every request earns for all, in thousandths: one for five requests.
const EARNED: u64 = 200;

/// Extra attempts allowed in every second in any case, in thousandths.
const PER_SECOND: u64 = 10_000;

/// The most that is saved up for bad times, in thousandths.
const SAVED: u64 = 1_000_000;

/// What all requests to one service together may spend on second attempts. When everything fails, trying
/// everything again would only add to what made it fail ([Google SRE, chapter 22][1]).
///
/// [1]: https://sre.google/sre-book/addressing-cascading-failures/
pub(crate) struct Budget {
    left: AtomicU64,
    /// When the last allowance was paid. A std mutex: locked only for an extra attempt.
    paid: Mutex<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(PER_SECOND),
            paid: Mutex::new(Instant::now()),
        }
    }
}

impl Budget {
    /// A request came.
    pub(crate) fn earn(&self) {
        if self.left.load(Ordering::Relaxed) < SAVED {
            self.left.fetch_add(EARNED, Ordering::Relaxed);
        }
    }

    /// Takes one extra attempt, if there is one left.
    pub(crate) fn spend(&self) -> bool {
        self.pay_allowance(Instant::now());
        let spent = |left: u64| left.checked_sub(1000);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent)
            .is_ok()
    }

    fn pay_allowance(&self, now: Instant) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = u64::try_from(now.duration_since(*paid).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            *paid = now;
            let due = millis.saturating_mul(PER_SECOND / 1000).min(SAVED);
            self.left.fetch_add(due, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn spend_all(budget: &Budget) -> usize {
        let spent = |left: u64| left.checked_sub(1000);
        let spend = || {
            budget
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent)
        };
        std::iter::from_fn(|| spend().ok()).count()
    }

    #[test]
    fn five_requests_earn_one_extra_attempt() {
        let budget = Budget::default();
        assert_eq!(spend_all(&budget), 10, "the first second's allowance");
        (0..50).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget), 10);
    }

    #[test]
    fn every_second_allows_ten() {
        let budget = Budget::default();
        spend_all(&budget);
        let paid = *budget.paid.lock().unwrap();
        budget.pay_allowance(paid + Duration::from_millis(2500));
        assert_eq!(spend_all(&budget), 25);
        assert!(!budget.spend() || paid.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn moments_that_allow_nothing_add_up() {
        let budget = Budget::default();
        spend_all(&budget);
        let paid = *budget.paid.lock().unwrap();
        for moment in 1..=10_000 {
            budget.pay_allowance(paid + Duration::from_micros(100) * moment);
        }
        assert_eq!(spend_all(&budget), 10);
    }

    #[test]
    fn savings_have_an_end() {
        let budget = Budget::default();
        (0..1_000_000).for_each(|_| budget.earn());
        assert!(spend_all(&budget) <= 1001);
    }
}
