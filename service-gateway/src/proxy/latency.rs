//! The usual time of responses, so that a hedged request is sent only if it can help.
//!
//! Each worker has an estimate for each route and each class of paths below it: the paths with the same
//! first segment, by a hash, so that a slow path does not delay the hedges of a fast one, and the
//! memory does not depend on the number of paths. An estimate rises fast and falls slowly, so that it is near
//! the longer ones of the usual times, and a single long one has no lasting effect.

use std::cell::Cell;
use std::time::Duration;

/// The classes of paths of a route.
const CLASSES: usize = 64;

/// The share by which an estimate approaches a longer time, and a shorter one.
const RISE: f32 = 0.25;
const FALL: f32 = 1.0 / 16.0;

/// The hedging delay, as a multiple of the usual time.
const DELAY_FACTOR: f32 = 1.25;

/// The estimates of a route.
pub(super) struct Latencies([Latency; CLASSES]);

/// The estimate of a class of paths, in seconds, 0 before the first response.
pub(super) struct Latency(Cell<f32>);

impl Default for Latencies {
    fn default() -> Self {
        Self([const { Latency(Cell::new(0.0)) }; CLASSES])
    }
}

impl Latencies {
    /// Returns the estimate for a target.
    pub(super) fn of(&self, target: &str) -> &Latency {
        &self.0[class(target)]
    }
}

impl Latency {
    /// Records the time of a response.
    pub(super) fn record(&self, took: Duration) {
        let difference = took.as_secs_f32() - self.0.get();
        let share = if difference > 0.0 { RISE } else { FALL };
        self.0.set(self.0.get() + share * difference);
    }

    /// Returns the time after which a request without a response is hedged. `None` if the response to the hedged
    /// request could not be expected before `timeout`, either.
    pub(super) fn hedging_delay(
        &self,
        hedge_after: Duration,
        timeout: Duration,
    ) -> Option<Duration> {
        let usual = Duration::from_secs_f32(self.0.get());
        let delay = hedge_after.max(usual.mul_f32(DELAY_FACTOR));
        (usual <= hedge_after || delay + usual <= timeout).then_some(delay)
    }
}

/// Returns the class of a target, by its first segment (FNV-1a).
fn class(target: &str) -> usize {
    let path = target.strip_prefix('/').unwrap_or(target).bytes();
    let segment = path.take_while(|byte| !b"/?".contains(byte)).take(64);
    let hash = segment.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash ^ (hash >> 16)) as usize % CLASSES
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delay(latencies: &Latencies, target: &str) -> Option<Duration> {
        latencies.of(target).hedging_delay(SECOND, SECOND * 10)
    }

    #[test]
    fn a_longer_usual_time_extends_the_delay() {
        let latencies = Latencies::default();
        assert_eq!(delay(&latencies, "/a"), Some(SECOND));
        for _ in 0..20 {
            latencies.of("/a").record(SECOND * 4);
        }
        let moved = delay(&latencies, "/a").unwrap();
        assert!(moved > SECOND * 4 && moved <= SECOND * 5, "{moved:?}");
    }

    #[test]
    fn a_hedge_that_would_be_late_is_not_sent() {
        let latencies = Latencies::default();
        for _ in 0..20 {
            latencies.of("/a").record(SECOND * 6);
        }
        assert_eq!(delay(&latencies, "/a"), None);
        for _ in 0..60 {
            latencies.of("/a").record(SECOND / 10);
        }
        assert_eq!(delay(&latencies, "/a"), Some(SECOND), "it is fast again");
    }

    #[test]
    fn a_slow_path_does_not_delay_the_hedges_of_a_fast_one() {
        let latencies = Latencies::default();
        for _ in 0..20 {
            latencies.of("/slow?ms=5000").record(SECOND * 5);
            latencies.of("/slow/er").record(SECOND * 5);
            latencies.of("/greet/Ada").record(SECOND / 100);
        }
        assert!(delay(&latencies, "/slow") > Some(SECOND) || delay(&latencies, "/slow").is_none());
        assert_eq!(delay(&latencies, "/greet/Bob"), Some(SECOND));
    }

    #[test]
    fn a_few_slow_responses_have_no_lasting_effect() {
        let latencies = Latencies::default();
        for _ in 0..5 {
            latencies.of("/a").record(SECOND * 8);
            for _ in 0..20 {
                latencies.of("/a").record(SECOND / 100);
            }
            assert_eq!(delay(&latencies, "/a"), Some(SECOND));
        }
    }

    #[test]
    fn a_short_timeout_keeps_the_delay() {
        let delay = Latencies::default()
            .of("/")
            .hedging_delay(SECOND, SECOND / 10);
        assert_eq!(delay, Some(SECOND));
    }
}
