//! Delays between reattempts: exponential backoff with full jitter ([AWS architecture blog][1]).
//!
//! The invariant: a delay is uniform between 0 and a limit that doubles up to a cap. With it, a thousand
//! clients do not all reconnect at once when their registry returns. What is retried, and how often, is
//! the caller's decision.
//!
//! [1]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

use std::time::Duration;

/// The delay before the next attempt, by the number of attempts that failed.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Creates a backoff of up to `base`, then up to twice that and so on, never more than `cap`.
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempts: 0,
        }
    }

    /// Starts over, after an attempt that succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Returns the delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let limit = self
            .base
            .saturating_mul(1 << self.attempts.min(16))
            .min(self.cap);
        self.attempts += 1;
        limit.mul_f64(fastrand::f64())
    }
}

impl Default for Backoff {
    /// Up to 1 s at first, never more than 2 s: the delay of a client after the registry's return.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_uniform_up_to_a_growing_limit() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_millis(1000));
        let mut longest = [Duration::ZERO; 8];
        for _ in 0..1000 {
            let mut backoff = Backoff::new(base, cap);
            for slot in &mut longest {
                *slot = (*slot).max(backoff.next_delay());
            }
        }
        for (attempts, longest) in longest.iter().enumerate() {
            let limit = (base * (1 << attempts)).min(cap);
            assert!(
                *longest <= limit && *longest > limit / 2,
                "{attempts}: {longest:?} of {limit:?}"
            );
        }
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(60));
        for _ in 0..1_000 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1));
    }
}
