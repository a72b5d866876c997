use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::LoadBalancer;
use crate::Endpoint;

/// Smooth weighted round robin by the tag `weight`: shares follow the weights, and a heavy endpoint's
/// turns are spread over the round instead of coming in a row ([nginx's algorithm][1]).
///
/// A choice looks at every candidate.
///
/// [1]: https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1
#[derive(Debug, Default)]
pub struct Weighted {
    /// What each endpoint has gained over the others so far, sorted by address. A std mutex: held
    /// for one pass over the list, never across an await.
    gains: Mutex<Vec<(SocketAddr, i64)>>,
}

impl LoadBalancer for Weighted {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        _key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        // A panic elsewhere leaves numbers that are no worse than any others.
        let mut gains = self.gains.lock().unwrap_or_else(PoisonError::into_inner);
        align(&mut gains, candidates);
        let mut total = 0;
        for ((_, gain), candidate) in gains.iter_mut().zip(candidates) {
            *gain += i64::from(candidate.weight());
            total += i64::from(candidate.weight());
        }
        // Of equals the first, as nginx does: max_by_key would take the last.
        let (chosen, candidate) = candidates
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(i, _)| gains[*i].1)?;
        gains[chosen].1 -= total;
        Some(candidate)
    }
}

/// Makes `gains` stand beside `candidates`, address by address: newcomers begin with nothing, those
/// who left are forgotten.
fn align(gains: &mut Vec<(SocketAddr, i64)>, candidates: &[Arc<Endpoint>]) {
    let aligned = gains.iter().map(|(address, _)| address);
    if aligned.eq(candidates.iter().map(|candidate| &candidate.address)) {
        return;
    }
    let gain_of = |address: SocketAddr| {
        let found = gains.binary_search_by_key(&address, |(known, _)| *known);
        found.map_or(0, |index| gains[index].1)
    };
    *gains = candidates
        .iter()
        .map(|c| (c.address, gain_of(c.address)))
        .collect();
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
    fn a_heavy_endpoint_does_not_get_its_turns_in_a_row() {
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
    fn shares_are_right_again_after_the_list_changed() {
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
}
