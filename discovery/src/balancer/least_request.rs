//! Least request of two random choices ([Mitzenmacher, 2001][1]).
//!
//! The invariant: of the two endpoints drawn, the busier one is never chosen. It depends on callers that keep
//! their [`InFlight`](crate::InFlight) for as long as the request lasts.
//!
//! [1]: https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf

use std::sync::Arc;

use super::LoadBalancer;
use crate::Endpoint;

/// Chooses the less busy of two endpoints drawn at random (power of two choices). Nearly as even as the
/// least busy of all, in constant time, and clients do not all choose the one that was idle a moment ago.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequest;

impl LoadBalancer for LeastRequest {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        _key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        let first = fastrand::choice(0..candidates.len())?;
        let Some(other) = fastrand::choice(0..candidates.len() - 1) else {
            return candidates.first();
        };
        let second = other + usize::from(other >= first); // any but the first
        let less_busy = [first, second]
            .into_iter()
            .min_by_key(|index| candidates[*index].in_flight());
        less_busy.map(|index| &candidates[index])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoints, shares};
    use super::*;
    use crate::InFlight;

    #[test]
    fn idle_endpoints_are_equally_likely() {
        let shares = shares(&LeastRequest, &endpoints(4), 40_000);
        assert!(
            shares.iter().all(|n| n.abs_diff(10_000) < 600),
            "{shares:?}"
        );
    }

    #[test]
    fn the_busiest_endpoint_is_never_chosen() {
        let candidates = endpoints(3);
        let busy: Vec<_> = (0..9)
            .map(|n| InFlight::new(candidates[n % 2].clone()))
            .collect();
        let shares = shares(&LeastRequest, &candidates, 3_000);
        assert_eq!(
            shares[0], 0,
            "it is the busiest of all, so it loses every draw"
        );
        assert!(
            shares[2] > 1_800,
            "the idle one wins each of its two draws in three: {shares:?}"
        );
        drop(busy);
        assert!(
            candidates
                .iter()
                .all(|candidate| candidate.in_flight() == 0)
        );
    }

    #[test]
    fn load_stays_level_when_requests_last() {
        let candidates = endpoints(10);
        let held: Vec<_> = (0..1_000)
            .map(|_| InFlight::new(LeastRequest.select(&candidates, None).unwrap().clone()))
            .collect();
        let loads: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.in_flight())
            .collect();
        assert!(
            loads.iter().all(|load| load.abs_diff(100) <= 8),
            "{loads:?}"
        );
        drop(held);
    }
}
