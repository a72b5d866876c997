//! The retry budget.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The deposit of a request, in thousandths of an attempt: five requests pay for one retry.
const DEPOSIT: u64 = 200;

/// The retries that each second allows without deposits, in thousandths.
const RESERVE_PER_SECOND: u64 = 10_000;

/// The maximum balance, in thousandths of an attempt.
const MAX_BALANCE: u64 = 1_000_000;

/// The retry budget that all requests to one service share. If all nodes are overloaded, retries without a
/// limit would multiply the load ([Google SRE, chapter 22][1]).
///
/// [1]: https://sre.google/sre-book/addressing-cascading-failures/
pub(crate) struct Budget {
    balance: AtomicU64,
    /// The time up to which the reserve was added. A std mutex: locked only for a retry.
    reserved_until: Mutex<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            balance: AtomicU64::new(RESERVE_PER_SECOND),
            reserved_until: Mutex::new(Instant::now()),
        }
    }
}

impl Budget {
    /// Adds the deposit of a request.
    pub(crate) fn deposit(&self) {
        if self.balance.load(Ordering::Relaxed) < MAX_BALANCE {
            self.balance.fetch_add(DEPOSIT, Ordering::Relaxed);
        }
    }

    /// Withdraws one retry. Returns whether the balance allowed it.
    pub(crate) fn withdraw(&self) -> bool {
        self.add_reserve(Instant::now());
        let withdrawn = |balance: u64| balance.checked_sub(1000);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, withdrawn)
            .is_ok()
    }

    fn add_reserve(&self, now: Instant) {
        let mut until = self
            .reserved_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let millis = u64::try_from(now.duration_since(*until).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            *until = now;
            let due = millis
                .saturating_mul(RESERVE_PER_SECOND / 1000)
                .min(MAX_BALANCE);
            self.balance.fetch_add(due, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn withdraw_all(budget: &Budget) -> usize {
        let withdrawn = |balance: u64| balance.checked_sub(1000);
        let withdraw = || {
            budget
                .balance
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, withdrawn)
        };
        std::iter::from_fn(|| withdraw().ok()).count()
    }

    #[test]
    fn five_requests_pay_for_one_retry() {
        let budget = Budget::default();
        assert_eq!(withdraw_all(&budget), 10, "the reserve of the first second");
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(withdraw_all(&budget), 10);
    }

    #[test]
    fn each_second_allows_ten_retries() {
        let budget = Budget::default();
        withdraw_all(&budget);
        let until = *budget.reserved_until.lock().unwrap();
        budget.add_reserve(until + Duration::from_millis(2500));
        assert_eq!(withdraw_all(&budget), 25);
        assert!(!budget.withdraw() || until.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn short_intervals_add_up() {
        let budget = Budget::default();
        withdraw_all(&budget);
        let until = *budget.reserved_until.lock().unwrap();
        for interval in 1..=10_000 {
            budget.add_reserve(until + Duration::from_micros(100) * interval);
        }
        assert_eq!(withdraw_all(&budget), 10);
    }

    #[test]
    fn the_balance_is_limited() {
        let budget = Budget::default();
        (0..1_000_000).for_each(|_| budget.deposit());
        assert!(withdraw_all(&budget) <= 1001);
    }
}
