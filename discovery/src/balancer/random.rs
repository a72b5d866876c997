//! Uniform random choice. The invariant: choices are independent of each other and of all other clients.

use std::sync::Arc;

use super::LoadBalancer;
use crate::Endpoint;

/// Chooses any endpoint, all equally likely. Many clients together are even without any coordination.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl LoadBalancer for Random {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        _key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        fastrand::choice(candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoints, shares};
    use super::*;

    #[test]
    fn all_are_equally_likely() {
        for count in [4, 5] {
            // 10 000 draws each: the standard deviation is below 100.
            let shares = shares(&Random, &endpoints(count), 10_000 * count);
            assert!(
                shares.iter().all(|n| n.abs_diff(10_000) < 600),
                "{shares:?}"
            );
        }
    }
}
