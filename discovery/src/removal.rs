//! Mass-removal protection: a registry that loses most of a service's nodes at once is not trusted.
//!
//! Known as self-preservation in [Eureka][1] and as push-empty protection in Nacos. A mass removal
//! seldom means that the nodes are gone: the keys were deleted, the leases were lost, or an empty
//! registry took over, and the nodes are about to register again. So the removed nodes are retained for
//! a while, unconfirmed. The invariant: the result contains every node of the snapshot. The module
//! decides which nodes to retain; a client finds out itself which of them still respond.
//!
//! [1]: https://github.com/Netflix/eureka/wiki/Understanding-Eureka-Peer-to-Peer-Communication

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{ServiceNode, Snapshot};

/// Window within which several snapshots count as one change.
const MASS_REMOVAL_WINDOW: Duration = Duration::from_secs(1);

/// Retains nodes that a snapshot lost, if it lost more than half of them within
/// [`MASS_REMOVAL_WINDOW`].
#[derive(Debug)]
pub(crate) struct RemovalProtection {
    retention: Duration,
    last: Snapshot,
    /// The snapshot at the start of the window.
    baseline: Snapshot,
    window_start: Instant,
    retained: Vec<Arc<ServiceNode>>,
    until: Option<Instant>,
}

impl RemovalProtection {
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            retention,
            last: Snapshot::default(),
            baseline: Snapshot::default(),
            window_start: Instant::now(),
            retained: Vec::new(),
            until: None,
        }
    }

    /// Returns the snapshot with the retained nodes added.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot, now: Instant) -> Snapshot {
        if now >= self.window_start + MASS_REMOVAL_WINDOW {
            (self.baseline, self.window_start) = (self.last.clone(), now);
        }
        if snapshot.nodes().len() >= self.baseline.nodes().len() {
            (self.baseline, self.window_start) = (snapshot.clone(), now);
        }
        if snapshot.nodes().len() * 2 < self.baseline.nodes().len() {
            // The last snapshot may have nodes that the baseline lacks: some were added meanwhile.
            let removed = self.last.nodes().iter().chain(self.baseline.nodes());
            self.retained.extend(removed.cloned());
            self.retained.sort_by_key(|node| node.address);
            self.retained.dedup_by_key(|node| node.address);
            self.until = Some(now + self.retention);
            (self.baseline, self.window_start) = (snapshot.clone(), now);
        }
        self.last = snapshot.clone();
        if self.retained.is_empty() {
            return snapshot.clone();
        }
        self.retained.retain(|node| !snapshot.has(node));
        self.until = self.until.filter(|_| !self.retained.is_empty());
        let nodes = self.retained.iter().chain(snapshot.nodes()).cloned();
        Snapshot::new(nodes, snapshot.revision()).with_skipped(snapshot.skipped())
    }

    /// The retained nodes, sorted by address. None of them is in the last snapshot.
    pub(crate) fn retained(&self) -> &[Arc<ServiceNode>] {
        &self.retained
    }

    /// Waits until the retention is over and drops the retained nodes. Never completes if there are none.
    pub(crate) async fn expired(&mut self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
        self.retained.clear();
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(ports: &[u16]) -> Snapshot {
        let node = |port: &u16| {
            let address = ([10, 0, 0, 1], *port).into();
            Arc::new(ServiceNode::new("a".parse().unwrap(), address))
        };
        Snapshot::new(ports.iter().map(node), 1)
    }

    /// Returns what becomes of snapshots that come one after another, `interval` apart.
    fn protected(snapshots: &[&[u16]], interval: Duration) -> Vec<Vec<u16>> {
        let mut protection = RemovalProtection::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let mut apply = |ports: &&[u16]| {
            now += interval;
            let protected = protection.apply(&snapshot(ports), now);
            let nodes = protected.nodes().iter();
            nodes.map(|node| node.address.port()).collect()
        };
        snapshots.iter().map(&mut apply).collect()
    }

    #[test]
    fn a_mass_removal_retains_all_nodes() {
        let interval = Duration::from_secs(5);
        assert_eq!(
            protected(&[&[1, 2, 3], &[]], interval),
            [[1, 2, 3], [1, 2, 3]]
        );
        assert_eq!(
            protected(&[&[1, 2, 3], &[2]], interval),
            [[1, 2, 3], [1, 2, 3]]
        );
        assert_eq!(protected(&[&[1, 2], &[2]], interval), [vec![1, 2], vec![2]]);
    }

    #[test]
    fn slow_removals_retain_no_node() {
        let snapshots: [&[u16]; 4] = [&[1, 2, 3], &[2, 3], &[3], &[3]];
        let slowly = protected(&snapshots, Duration::from_secs(2));
        assert_eq!(slowly, [vec![1, 2, 3], vec![2, 3], vec![3], vec![3]]);
        let quickly = protected(&snapshots, Duration::from_millis(10));
        assert_eq!(
            quickly,
            [vec![1, 2, 3], vec![2, 3], vec![1, 2, 3], vec![1, 2, 3]]
        );
    }

    #[test]
    fn a_node_that_registers_again_is_confirmed() {
        let mut protection = RemovalProtection::new(Duration::from_secs(10));
        let now = Instant::now();
        for ports in [&[1, 2, 3][..], &[], &[2]] {
            protection.apply(&snapshot(ports), now);
        }
        let retained: Vec<_> = protection
            .retained()
            .iter()
            .map(|node| node.address.port())
            .collect();
        assert_eq!(retained, [1, 3]);
        protection.apply(&snapshot(&[1, 2, 3]), now);
        assert!(protection.retained().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn retained_nodes_expire() {
        let mut protection = RemovalProtection::new(Duration::from_secs(10));
        let now = tokio::time::Instant::now();
        protection.apply(&snapshot(&[1, 2]), now.into());
        protection.apply(&snapshot(&[]), now.into());
        assert_eq!(protection.retained().len(), 2);
        protection.expired().await;
        assert!(now.elapsed() >= Duration::from_secs(10) && protection.retained().is_empty());
        let snapshot = protection.apply(&snapshot(&[]), tokio::time::Instant::now().into());
        assert!(snapshot.nodes().is_empty());
    }

    fn ports<'a>(nodes: impl IntoIterator<Item = &'a Arc<ServiceNode>>) -> Vec<u16> {
        nodes.into_iter().map(|node| node.address.port()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_node_is_lost_or_invented(
            snapshots in prop::collection::vec(prop::collection::btree_set(1..9_u16, 0..9), 1..9),
            pauses in prop::collection::vec(0..1500_u64, 9),
        ) {
            let mut protection = RemovalProtection::new(Duration::from_secs(10));
            let (mut now, mut last, mut is_protected) = (Instant::now(), Vec::new(), false);
            let mut most = 0;
            for (registered, pause) in snapshots.into_iter().zip(pauses) {
                let registered = Vec::from_iter(registered);
                now += Duration::from_millis(pause);
                let protected = ports(protection.apply(&snapshot(&registered), now).nodes());
                prop_assert!(registered.iter().all(|port| protected.contains(port)));
                let retained = ports(protection.retained());
                prop_assert_eq!(protected.len(), registered.len() + retained.len(), "either or");
                if registered.len() * 2 < last.len() {
                    prop_assert!(last.iter().all(|port| protected.contains(port)), "{last:?}");
                }
                is_protected |= registered.len() * 2 < most;
                prop_assert!(is_protected || retained.is_empty());
                most = most.max(registered.len());
                last = registered;
            }
        }
    }
}
