use std::time::Duration;

/// How long to wait before the next try: exponential, with full jitter, so that a thousand clients whose registry
/// came back do not all call at once ([AWS: Exponential Backoff And Jitter][1]).
///
/// [1]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits up to `base`, then up to twice that and so on, never longer than `cap`.
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            tries: 0,
        }
    }

    /// Begins anew: the last try succeeded.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The time to wait before the next try.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let longest = self
            .base
            .saturating_mul(1 << self.tries.min(16))
            .min(self.cap);
        self.tries += 1;
        longest.mul_f64(fastrand::f64())
    }
}

impl Default for Backoff {
    /// Up to 1 s at first, never longer than 2 s: what the registry's return may cost a latecomer.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_are_spread_below_it() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_millis(1000));
        let mut longest = [Duration::ZERO; 8];
        for _ in 0..1000 {
            let mut backoff = Backoff::new(base, cap);
            for slot in &mut longest {
                *slot = (*slot).max(backoff.next_delay());
            }
        }
        for (tries, longest) in longest.iter().enumerate() {
            let limit = (base * (1 << tries)).min(cap);
            assert!(
                *longest <= limit && *longest > limit / 2,
                "{tries}: {longest:?} of {limit:?}"
            );
        }
    }

    #[test]
    fn a_reset_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(60));
        for _ in 0..1_000 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1));
    }
}
