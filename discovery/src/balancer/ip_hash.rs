//! Consistent hashing: rendezvous hashing ([Thaler and Ravishankar, 1998][1]).
//!
//! The invariant: a key's endpoint depends only on the key and the candidates, so that all processes
//! agree, and a removed endpoint moves its own keys and no others. A choice computes one hash for each
//! candidate.
//!
//! [1]: https://www.microsoft.com/en-us/research/publication/a-name-based-mapping-scheme-for-rendezvous/

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{LoadBalancer, RoundRobin};
use crate::Endpoint;

/// Keeps a key with one endpoint by rendezvous hashing. A removed endpoint moves its own keys and no
/// others; an added one takes its share from all alike. Without a key it is round robin.
///
/// A choice takes time linear in the number of candidates. All processes agree on it, whatever their
/// history.
#[derive(Debug, Default)]
pub struct IpHash {
    keyless: RoundRobin,
}

impl LoadBalancer for IpHash {
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>> {
        let Some(key) = key else {
            return self.keyless.select(candidates, None);
        };
        let key = fnv1a(FNV_BASIS, key);
        candidates
            .iter()
            .max_by_key(|candidate| rank(key, candidate.address))
    }
}

/// Returns the rank of an endpoint for a key: pseudo-random, and the same in every process.
fn rank(key: u64, address: SocketAddr) -> u64 {
    let hash = match address.ip() {
        IpAddr::V4(ip) => fnv1a(key, &ip.octets()),
        IpAddr::V6(ip) => fnv1a(key, &ip.octets()),
    };
    mix(fnv1a(hash, &address.port().to_be_bytes()))
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Continues `hash` with more bytes, by [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/).
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Applies the finalizer of [SplitMix64](https://prng.di.unimi.it/splitmix64.c): with FNV alone,
/// neighbouring addresses have neighbouring ranks.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::testing::endpoints;
    use super::*;

    fn owners(candidates: &[Arc<Endpoint>], keys: u32) -> Vec<SocketAddr> {
        let balancer = IpHash::default();
        let owner = |key: u32| {
            balancer
                .select(candidates, Some(&key.to_be_bytes()))
                .unwrap()
                .address
        };
        (0..keys).map(owner).collect()
    }

    #[test]
    fn keys_are_spread_evenly_and_stay() {
        let candidates = endpoints(5);
        let owners_of_keys = owners(&candidates, 10_000);
        assert_eq!(owners_of_keys, owners(&candidates, 10_000));
        for candidate in &candidates {
            let share = owners_of_keys
                .iter()
                .filter(|owner| **owner == candidate.address)
                .count();
            assert!(share.abs_diff(2_000) < 200, "{share}");
        }
    }

    #[test]
    fn a_removed_endpoint_moves_only_its_own_keys() {
        let mut candidates = endpoints(10);
        let before = owners(&candidates, 10_000);
        let removed = candidates.remove(4).address;
        let after = owners(&candidates, 10_000);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == removed);
        }
        for candidate in &candidates {
            let gained = before
                .iter()
                .zip(&after)
                .filter(|(b, a)| b != a && **a == candidate.address);
            assert!(
                gained.count() > 50,
                "the orphaned keys go to all the others"
            );
        }
    }

    #[test]
    fn ranks_are_stable() {
        // The first number of SplitMix64 from the seed 0, and its finalizer of 1.
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1), 0x5692161d100b05e5);
    }

    #[test]
    fn without_a_key_it_is_round_robin() {
        let shares = super::super::testing::shares(&IpHash::default(), &endpoints(4), 40);
        assert_eq!(shares, [10; 4]);
    }
}
