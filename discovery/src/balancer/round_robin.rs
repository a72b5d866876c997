//! Round robin. The invariant: within one list, the shares of two endpoints differ by at most one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::LoadBalancer;
use crate::Endpoint;

/// Chooses each endpoint in turn. The counter continues when the list changes, so that a change favours no
/// endpoint.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl LoadBalancer for RoundRobin {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        _key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        candidates.get(turn.checked_rem(candidates.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoints, shares};
    use super::*;

    #[test]
    fn shares_are_even_within_one() {
        let balancer = RoundRobin::default();
        assert_eq!(shares(&balancer, &endpoints(3), 300), [100; 3]);
        let uneven = shares(&balancer, &endpoints(7), 100);
        assert!(uneven.iter().all(|n| [14, 15].contains(n)), "{uneven:?}");
    }

    #[test]
    fn shares_stay_even_while_the_list_grows_and_shrinks() {
        let balancer = RoundRobin::default();
        for count in [3, 4, 10, 9, 2, 1, 5] {
            let each = shares(&balancer, &endpoints(count), 20 * count);
            assert_eq!(each, vec![20; count]);
        }
    }

    #[test]
    fn two_threads_share_one_round() {
        let (balancer, candidates) = (RoundRobin::default(), endpoints(4));
        let [one, two] = std::thread::scope(|scope| {
            let round = || shares(&balancer, &candidates, 1000);
            [scope.spawn(round), scope.spawn(round)].map(|thread| thread.join().unwrap())
        });
        let both: Vec<_> = one.iter().zip(two).map(|(a, b)| a + b).collect();
        assert_eq!(both, [500; 4]);
    }

    #[test]
    fn the_counter_may_wrap() {
        let balancer = RoundRobin {
            next: AtomicUsize::new(usize::MAX - 1),
        };
        shares(&balancer, &endpoints(3), 5);
    }
}
