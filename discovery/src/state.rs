//! The state of a node in one client, under one name in code, APIs, metrics and user interfaces.
//!
//! The terms are those of [Envoy][1]'s host health and of Kubernetes. The invariant: a node has one state,
//! the one with the largest effect on its requests. What leads to a state is in `ejection.rs`,
//! `removal.rs` and [`Endpoint::drain`](crate::Endpoint::drain).
//!
//! [1]: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier

use std::fmt;

/// State of a node in one client. If several apply, the first in this order counts: draining, ejected,
/// unconfirmed, up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It gets requests.
    Up,
    /// It gets no requests unless too few other nodes are left: see [`Ejection`](crate::Ejection).
    Ejected,
    /// An operator has [drained](crate::Endpoint::drain) it. It gets no new requests.
    Draining,
    /// It gets requests, although the registry has removed it together with most of the others: see
    /// [`Endpoint::is_unconfirmed`](crate::Endpoint::is_unconfirmed).
    Unconfirmed,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Up, Self::Ejected, Self::Draining, Self::Unconfirmed];

    /// Returns the state in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Ejection, Endpoint, ServiceNode};

    #[test]
    fn the_state_with_the_largest_effect_counts() {
        let node = ServiceNode::new("a".parse().unwrap(), ([10, 0, 0, 1], 80).into());
        let endpoint = Endpoint::new(Arc::new(node));
        assert_eq!(endpoint.state(), NodeState::Up);
        endpoint.set_unconfirmed(true);
        assert_eq!(endpoint.state(), NodeState::Unconfirmed);
        endpoint.eject(Ejection::Silent);
        assert_eq!(endpoint.state(), NodeState::Ejected);
        endpoint.drain();
        assert_eq!(endpoint.state(), NodeState::Draining);
    }

    #[test]
    fn a_state_is_one_word() {
        let words = NodeState::ALL.map(|state| state.to_string());
        assert_eq!(words, ["up", "ejected", "draining", "unconfirmed"]);
    }
}
