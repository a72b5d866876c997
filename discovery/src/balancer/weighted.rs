//! Smooth weighted round robin ([nginx][1]).
//!
//! The invariant: over a round, which has as many choices as the sum of the weights, every share is exact,
//! and no endpoint is ever a whole turn ahead. A choice takes time linear in the number of candidates.
//!
//! [1]: https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::LoadBalancer;
use crate::Endpoint;

/// Smooth weighted round robin by the tag `weight`: shares follow the weights, and a heavy endpoint's
/// turns are spread over the round instead of coming in a row.
#[derive(Debug, Default)]
pub struct Weighted {
    /// Sorted by address. A std mutex: held for one pass over the list, never across an await.
    gains: Mutex<Vec<Gain>>,
}

/// Current weight of an endpoint, in the terms of nginx.
#[derive(Debug)]
struct Gain {
    address: SocketAddr,
    weight: i64,
    gain: i64,
}

impl LoadBalancer for Weighted {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        _key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        // A panic elsewhere leaves valid numbers.
        let mut gains = self.gains.lock().unwrap_or_else(PoisonError::into_inner);
        align(&mut gains, candidates);
        let mut total = 0;
        for one in gains.iter_mut() {
            one.gain += one.weight;
            total += one.weight;
        }
        // Of equals the first, as nginx does: max_by_key would take the last.
        let (chosen, candidate) = candidates
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(i, _)| gains[*i].gain)?;
        gains[chosen].gain -= total;
        Some(candidate)
    }
}

/// Makes `gains` parallel to `candidates`, address by address: added endpoints start with zero, removed
/// ones are dropped.
fn align(gains: &mut Vec<Gain>, candidates: &[Arc<Endpoint>]) {
    let weight_of = |candidate: &Endpoint| i64::from(candidate.weight());
    let known = gains.iter().map(|one| (one.address, one.weight));
    if known.eq(candidates.iter().map(|c| (c.address, weight_of(c)))) {
        return;
    }
    // A gain from a list with heavy endpoints may be worth hundreds of turns in this one: keep at most one.
    let total: i64 = candidates.iter().map(|c| weight_of(c)).sum();
    let gain_of = |address: SocketAddr| {
        let found = gains.binary_search_by_key(&address, |one| one.address);
        found.map_or(0, |index| gains[index].gain.clamp(-total, total))
    };
    let aligned = candidates.iter().map(|candidate| Gain {
        address: candidate.address,
        weight: weight_of(candidate),
        gain: gain_of(candidate.address),
    });
    *gains = aligned.collect();
}

#[cfg(test)]
mod tests {
    use super::super::testing::{endpoints, shares, weighted};
    use super::*;

    #[test]
    fn shares_follow_the_weights_exactly() {
        let weights = [5, 1, 1, 10, 3];
        assert_eq!(
            shares(&Weighted::default(), &weighted(&weights), 200),
            [50, 10, 10, 100, 30]
        );
        assert_eq!(shares(&Weighted::default(), &endpoints(4), 40), [10; 4]);
    }

    #[test]
    fn turns_of_a_heavy_endpoint_are_spread() {
        let (balancer, candidates) = (Weighted::default(), weighted(&[5, 1, 1]));
        let turns = (0..7).map(|_| {
            balancer
                .select(&candidates, None)
                .unwrap()
                .address
                .ip()
                .to_string()
        });
        let turns: Vec<_> = turns
            .map(|ip| ip.rsplit('.').next().unwrap().to_owned())
            .collect();
        assert_eq!(turns.concat(), "1121311");
    }

    #[test]
    fn shares_recover_after_a_change() {
        let (balancer, all) = (Weighted::default(), weighted(&[4, 2, 1]));
        shares(&balancer, &all, 5);
        let two = shares(&balancer, &all[..2], 60);
        assert!(two[0].abs_diff(40) <= 2, "{two:?}");
        let three = shares(&balancer, &all, 70);
        assert!(
            three[0].abs_diff(40) <= 2 && three[2].abs_diff(10) <= 2,
            "{three:?}"
        );
    }

    #[test]
    fn shares_are_even_after_a_heavy_endpoint() {
        for after in [&[1, 1][..], &[1, 1, 1]] {
            let balancer = Weighted::default();
            shares(&balancer, &weighted(&[1, 1, 1000]), 400);
            let shares = shares(&balancer, &weighted(after), 60);
            let each = 60 / after.len();
            assert!(shares.iter().all(|n| n.abs_diff(each) <= 2), "{shares:?}");
        }
    }

    #[test]
    fn a_changed_list_does_not_repeat_a_turn() {
        let (balancer, all) = (Weighted::default(), endpoints(3));
        let first = balancer.select(&all, None).unwrap().address;
        let second = balancer.select(&all[..2], None).unwrap().address;
        assert_eq!([first, second], [all[0].address, all[1].address]);
    }
}
