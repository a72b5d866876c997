use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{LoadBalancer, RoundRobin};
use crate::Endpoint;

/// Keeps a key with one endpoint: rendezvous hashing ([Thaler and Ravishankar][1]). An endpoint that
/// leaves moves its own keys and no others; one that joins takes its share from all alike. Without
/// a key it is round robin.
///
/// A choice looks at every candidate. All processes agree on it, whatever they saw before.
///
/// [1]: https://www.microsoft.com/en-us/research/publication/a-name-based-mapping-scheme-for-rendezvous/
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

/// How well a key and an endpoint fit: as good as random, and the same in every process.
fn rank(key: u64, address: SocketAddr) -> u64 {
    let hash = match address.ip() {
        IpAddr::V4(ip) => fnv1a(key, &ip.octets()),
        IpAddr::V6(ip) => fnv1a(key, &ip.octets()),
    };
    mix(fnv1a(hash, &address.port().to_be_bytes()))
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// [FNV-1a](http://www.isthe.com/chongo/tech/comp/fnv/), going on from `hash`.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c)'s finish: FNV alone leaves neighbouring
/// addresses with neighbouring ranks.
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
    fn a_leaving_endpoint_moves_only_its_own_keys() {
        let mut candidates = endpoints(10);
        let before = owners(&candidates, 10_000);
        let gone = candidates.remove(4).address;
        let after = owners(&candidates, 10_000);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == gone);
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
    fn ranks_are_those_of_every_process() {
        // SplitMix64's first number from the seed 0, and its finish of 1.
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1), 0x5692161d100b05e5);
    }

    #[test]
    fn without_a_key_each_has_its_turn() {
        let shares = super::super::testing::shares(&IpHash::default(), &endpoints(4), 40);
        assert_eq!(shares, [10; 4]);
    }
}
