//! Properties of balancers for any list, and any change of it between two choices.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::testing::{endpoints, shares, weighted};
use super::*;
use crate::InFlight;

/// Number of endpoints that tests draw from.
const MAX_ENDPOINTS: usize = 12;

/// Lists that follow each other, each a subset of [`MAX_ENDPOINTS`] endpoints, and the number of choices
/// from each.
fn changing_lists() -> impl Strategy<Value = Vec<(Vec<usize>, usize)>> {
    let list = subsequence((0..MAX_ENDPOINTS).collect::<Vec<_>>(), 0..=MAX_ENDPOINTS);
    vec((list, 0..60_usize), 1..12)
}

fn pick(all: &[Arc<Endpoint>], list: &[usize]) -> Vec<Arc<Endpoint>> {
    list.iter().map(|index| all[*index].clone()).collect()
}

fn key_owners(candidates: &[Arc<Endpoint>], keys: &[Vec<u8>]) -> Vec<Arc<Endpoint>> {
    let balancer = IpHash::default();
    let owner = |key: &Vec<u8>| balancer.select(candidates, Some(key)).cloned();
    keys.iter().filter_map(owner).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_choice_is_one_of_the_candidates(
        lists in changing_lists(),
        weights in vec(0..2000_u16, MAX_ENDPOINTS),
        key in any::<Option<Vec<u8>>>(),
    ) {
        let all = weighted(&weights);
        for (_, balancer) in Balancer::ALL {
            let balancer = balancer.build();
            for (list, choices) in &lists {
                let candidates = pick(&all, list);
                for _ in 0..*choices {
                    let chosen = balancer.select(&candidates, key.as_deref());
                    prop_assert_eq!(chosen.is_some(), !candidates.is_empty());
                    let among = |chosen: &Arc<Endpoint>| {
                        candidates.iter().any(|candidate| std::ptr::eq(candidate, chosen))
                    };
                    prop_assert!(chosen.is_none_or(among));
                }
            }
        }
    }

    #[test]
    fn round_robin_is_even_after_any_change(lists in changing_lists()) {
        let (balancer, all) = (RoundRobin::default(), endpoints(MAX_ENDPOINTS));
        for (list, choices) in lists {
            let shares = shares(&balancer, &pick(&all, &list), choices * list.len().min(1));
            let uneven = shares.iter().max().map(|most| most - shares.iter().min().unwrap_or(most));
            prop_assert!(uneven.unwrap_or(0) <= 1, "{shares:?}");
        }
    }

    #[test]
    fn weighted_is_exact_over_a_round(weights in vec(1..=40_u16, 1..MAX_ENDPOINTS)) {
        let (balancer, candidates) = (Weighted::default(), weighted(&weights));
        let round: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let mut counts = vec![0; weights.len()];
        for choices in 1..=2 * round {
            for (count, share) in counts.iter_mut().zip(shares(&balancer, &candidates, 1)) {
                *count += share;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let due = (choices * usize::from(*weight)) as f64 / round as f64;
                let ahead = *count as f64 - due;
                // No endpoint is a whole turn ahead, and none is behind more than ln n turns (cup game).
                let behind = 1.0 + (weights.len() as f64).ln();
                prop_assert!(ahead < 1.0 && -ahead < behind, "{counts:?} of {weights:?}");
                prop_assert!(choices % round != 0 || ahead == 0.0, "{counts:?} of {weights:?}");
            }
        }
    }

    #[test]
    fn weighted_stays_close_after_any_change(
        mut weights in vec(prop_oneof![1..=3_u16, 900..=1000_u16], MAX_ENDPOINTS),
        lists in changing_lists(),
    ) {
        let balancer = Weighted::default();
        for (list, choices) in lists.into_iter().filter(|(list, _)| !list.is_empty()) {
            weights.rotate_left(1);
            let candidates = pick(&weighted(&weights), &list);
            let total: f64 = candidates.iter().map(|c| f64::from(c.weight())).sum();
            let shares = shares(&balancer, &candidates, choices);
            for (share, candidate) in shares.iter().zip(&candidates) {
                let due = choices as f64 * f64::from(candidate.weight()) / total;
                let off = (*share as f64 - due).abs();
                prop_assert!(off < 5.0, "{share} instead of {due} of {choices}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_key_moves_only_with_its_endpoint(
        lists in subsequence((0..MAX_ENDPOINTS).collect::<Vec<_>>(), 2..=MAX_ENDPOINTS),
        gone in any::<prop::sample::Index>(),
        keys in vec(any::<Vec<u8>>(), 1..50),
    ) {
        let before = pick(&endpoints(MAX_ENDPOINTS), &lists);
        let mut after = before.clone();
        let gone = after.remove(gone.index(before.len()));
        let (owners, new_owners) = (key_owners(&before, &keys), key_owners(&after, &keys));
        prop_assert_eq!(owners.len(), keys.len());
        for (owner, new_owner) in owners.iter().zip(&new_owners) {
            prop_assert!(Arc::ptr_eq(owner, new_owner) || Arc::ptr_eq(owner, &gone));
            prop_assert!(!Arc::ptr_eq(new_owner, &gone));
        }
    }

    #[test]
    fn least_request_never_takes_the_busier_of_two(loads in vec(0..8_usize, 1..MAX_ENDPOINTS)) {
        let candidates = endpoints(loads.len());
        let busy = |(candidate, load): (&Arc<Endpoint>, &usize)| {
            (0..*load).map(|_| InFlight::new(candidate.clone())).collect::<Vec<_>>()
        };
        let _requests: Vec<_> = candidates.iter().zip(&loads).map(busy).collect();
        let by_address: BTreeMap<_, _> = candidates.iter().map(|c| c.address).zip(&loads).collect();
        for _ in 0..20 {
            let chosen = LeastRequest.select(&candidates, None).expect("there is one");
            let load = by_address[&chosen.address];
            prop_assert_eq!(chosen.in_flight(), *load);
            let mut others = candidates.iter().filter(|c| c.address != chosen.address);
            // It was drawn together with an endpoint that is not less busy.
            prop_assert!(loads.len() == 1 || others.any(|c| c.in_flight() >= *load), "{loads:?}");
        }
    }
}
