//! Balancers: the choice of one endpoint among the eligible ones.
//!
//! One file per algorithm, each with its paper or source. The invariant, which is the contract of
//! [`LoadBalancer`]: a choice is one of the candidates, and `None` only if there are none; a changed list
//! favours no endpoint. Which endpoints are candidates is decided in `resolver.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Endpoint, ParseError};

mod ip_hash;
mod least_request;
mod random;
mod round_robin;
mod weighted;

pub use ip_hash::IpHash;
pub use least_request::LeastRequest;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use weighted::Weighted;

/// Chooses one of several endpoints.
///
/// [Chapter 4 of the guide](crate::guide#4-choosing) compares the implementations.
///
/// One balancer serves one list of candidates: a counter shared by two services skews both. The
/// list may change between two calls; the balancer outlives it.
pub trait LoadBalancer: Send + Sync {
    /// Chooses a candidate. Returns `None` exactly when there are none.
    ///
    /// The candidates are sorted by address. `key` identifies what should stay with one endpoint, such as a
    /// client's address; most balancers ignore it.
    fn select<'a>(
        &self,
        candidates: &'a [Arc<Endpoint>],
        key: Option<&[u8]>,
    ) -> Option<&'a Arc<Endpoint>>;
}

/// The kinds of balancer, by their names on a command line.
///
/// ```
/// # fn main() -> Result<(), discovery::Error> {
/// let balancer: discovery::Balancer = "least-request".parse()?;
/// let error = "fastest".parse::<discovery::Balancer>().unwrap_err();
/// assert!(error.to_string().ends_with("expected one of round-robin, random, weighted, ip-hash, least-request"));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// [`RoundRobin`]
    #[default]
    RoundRobin,
    /// [`Random`]
    Random,
    /// [`Weighted`]
    Weighted,
    /// [`IpHash`]
    IpHash,
    /// [`LeastRequest`]
    LeastRequest,
}

impl Balancer {
    const ALL: [(&'static str, Self); 5] = [
        ("round-robin", Self::RoundRobin),
        ("random", Self::Random),
        ("weighted", Self::Weighted),
        ("ip-hash", Self::IpHash),
        ("least-request", Self::LeastRequest),
    ];

    /// Creates a balancer of this kind.
    pub fn build(self) -> Box<dyn LoadBalancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::Random => Box::new(Random),
            Self::Weighted => Box::new(Weighted::default()),
            Self::IpHash => Box::new(IpHash::default()),
            Self::LeastRequest => Box::new(LeastRequest),
        }
    }
}

impl FromStr for Balancer {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, balancer)| *balancer).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            ParseError::new("balancer", text, format!("expected one of {names}"))
        })
    }
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, balancer)| balancer == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod testing {
    //! Endpoints and counts for the tests of the balancers.

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::LoadBalancer;
    use crate::{Endpoint, ServiceNode};

    /// Returns endpoints 10.0.0.1 and so on, with these weights.
    pub(super) fn weighted(weights: &[u16]) -> Vec<Arc<Endpoint>> {
        let endpoint = |(index, weight): (usize, &u16)| {
            let address = format!("10.0.{}.{}:80", index / 250, index % 250 + 1);
            let node = ServiceNode::new("greeter".parse().unwrap(), address.parse().unwrap());
            let tags = format!("weight={weight}").parse().unwrap();
            Arc::new(Endpoint::new(Arc::new(node.with_tags(tags))))
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    pub(super) fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
        weighted(&vec![1; count])
    }

    /// Returns how often each candidate is chosen in `rounds` choices, in the candidates' order.
    pub(super) fn shares(
        balancer: &dyn LoadBalancer,
        candidates: &[Arc<Endpoint>],
        rounds: usize,
    ) -> Vec<usize> {
        let mut counts: BTreeMap<_, usize> = candidates.iter().map(|c| (c.address, 0)).collect();
        for _ in 0..rounds {
            let chosen = balancer
                .select(candidates, None)
                .expect("there are candidates");
            *counts
                .get_mut(&chosen.address)
                .expect("a candidate was chosen") += 1;
        }
        counts.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_none_without_candidates() {
        for (name, balancer) in Balancer::ALL {
            let balancer = balancer.build();
            for count in [0, 1, 2, 3, 0, 100, 1] {
                let candidates = testing::endpoints(count);
                for key in [None, Some(b"10.1.1.1".as_slice())] {
                    let chosen = balancer.select(&candidates, key);
                    assert_eq!(chosen.is_some(), count > 0, "{name} of {count}");
                }
            }
        }
    }

    #[test]
    fn names_round_trip_and_others_are_rejected() {
        for (name, balancer) in Balancer::ALL {
            assert_eq!(name.parse::<Balancer>().unwrap(), balancer);
            assert_eq!(balancer.to_string(), name);
        }
        let error = "fastest".parse::<Balancer>().unwrap_err().to_string();
        assert!(error.contains("least-request"), "{error}");
    }
}
