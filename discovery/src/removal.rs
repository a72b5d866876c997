use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{ServiceNode, Snapshot};

/// Lists this close to each other count as one change.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Doubts lists that lost more than half of their nodes at once. That is rarely so: somebody deleted
/// the keys, the leases got lost, or the registry was replaced by an empty one, and the nodes are
/// about to register again. So they stay usable for a while, unconfirmed.
#[derive(Debug)]
pub(crate) struct Vanished {
    keep_for: Duration,
    last: Snapshot,
    /// The list before the changes that count as one with the next, and when these began.
    before: Snapshot,
    since: Instant,
    kept: Vec<Arc<ServiceNode>>,
    until: Option<Instant>,
}

impl Vanished {
    pub(crate) fn new(keep_for: Duration) -> Self {
        Self {
            keep_for,
            last: Snapshot::default(),
            before: Snapshot::default(),
            since: Instant::now(),
            kept: Vec::new(),
            until: None,
        }
    }

    /// The list with those who vanished from it and are kept.
    pub(crate) fn correct(&mut self, list: &Snapshot, now: Instant) -> Snapshot {
        if now >= self.since + AT_ONCE {
            (self.before, self.since) = (self.last.clone(), now);
        }
        if list.nodes().len() >= self.before.nodes().len() {
            (self.before, self.since) = (list.clone(), now);
        }
        if list.nodes().len() * 2 < self.before.nodes().len() {
            // Some may have joined since, while as many left.
            let vanishing = self.last.nodes().iter().chain(self.before.nodes());
            self.kept.extend(vanishing.cloned());
            self.kept.sort_by_key(|node| node.address);
            self.kept.dedup_by_key(|node| node.address);
            self.until = Some(now + self.keep_for);
            (self.before, self.since) = (list.clone(), now);
        }
        self.last = list.clone();
        if self.kept.is_empty() {
            return list.clone();
        }
        self.kept.retain(|node| !list.has(node));
        self.until = self.until.filter(|_| !self.kept.is_empty());
        let nodes = self.kept.iter().chain(list.nodes()).cloned();
        Snapshot::new(nodes, list.revision()).with_skipped(list.skipped())
    }

    /// The nodes that are kept although the list does not have them, sorted by address.
    pub(crate) fn kept(&self) -> &[Arc<ServiceNode>] {
        &self.kept
    }

    /// Waits until the time of those who are kept is over, and forgets them. Waits for ever if there
    /// are none.
    pub(crate) async fn expired(&mut self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
        self.kept.clear();
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(ports: &[u16]) -> Snapshot {
        let node = |port: &u16| {
            let address = ([10, 0, 0, 1], *port).into();
            Arc::new(ServiceNode::new("a".parse().unwrap(), address))
        };
        Snapshot::new(ports.iter().map(node), 1)
    }

    /// What is left of lists that come one after another, each so much later than the one before.
    fn corrected(lists: &[&[u16]], apart: Duration) -> Vec<Vec<u16>> {
        let mut vanished = Vanished::new(Duration::from_secs(10));
        let mut now = Instant::now();
        let mut correct = |ports: &&[u16]| {
            now += apart;
            let list = vanished.correct(&list(ports), now);
            list.nodes()
                .iter()
                .map(|node| node.address.port())
                .collect()
        };
        lists.iter().map(&mut correct).collect()
    }

    #[test]
    fn more_than_half_at_once_is_not_believed() {
        let apart = Duration::from_secs(5);
        assert_eq!(corrected(&[&[1, 2, 3], &[]], apart), [[1, 2, 3], [1, 2, 3]]);
        assert_eq!(
            corrected(&[&[1, 2, 3], &[2]], apart),
            [[1, 2, 3], [1, 2, 3]]
        );
        assert_eq!(corrected(&[&[1, 2], &[2]], apart), [vec![1, 2], vec![2]]);
    }

    #[test]
    fn one_by_one_is_believed_if_it_takes_its_time() {
        let lists: [&[u16]; 4] = [&[1, 2, 3], &[2, 3], &[3], &[3]];
        let slowly = corrected(&lists, Duration::from_secs(2));
        assert_eq!(slowly, [vec![1, 2, 3], vec![2, 3], vec![3], vec![3]]);
        let quickly = corrected(&lists, Duration::from_millis(10));
        assert_eq!(
            quickly,
            [vec![1, 2, 3], vec![2, 3], vec![1, 2, 3], vec![1, 2, 3]]
        );
    }

    #[test]
    fn who_comes_back_is_confirmed() {
        let mut vanished = Vanished::new(Duration::from_secs(10));
        let now = Instant::now();
        for ports in [&[1, 2, 3][..], &[], &[2]] {
            vanished.correct(&list(ports), now);
        }
        let kept: Vec<_> = vanished
            .kept()
            .iter()
            .map(|node| node.address.port())
            .collect();
        assert_eq!(kept, [1, 3]);
        vanished.correct(&list(&[1, 2, 3]), now);
        assert!(vanished.kept().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_while_they_are_gone() {
        let mut vanished = Vanished::new(Duration::from_secs(10));
        let now = tokio::time::Instant::now();
        vanished.correct(&list(&[1, 2]), now.into());
        vanished.correct(&list(&[]), now.into());
        assert_eq!(vanished.kept().len(), 2);
        vanished.expired().await;
        assert!(now.elapsed() >= Duration::from_secs(10) && vanished.kept().is_empty());
        let list = vanished.correct(&list(&[]), tokio::time::Instant::now().into());
        assert!(list.nodes().is_empty());
    }

    fn ports<'a>(nodes: impl IntoIterator<Item = &'a Arc<ServiceNode>>) -> Vec<u16> {
        nodes.into_iter().map(|node| node.address.port()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn nobody_is_lost_or_invented(
            lists in prop::collection::vec(prop::collection::btree_set(1..9_u16, 0..9), 1..9),
            pauses in prop::collection::vec(0..1500_u64, 9),
        ) {
            let mut vanished = Vanished::new(Duration::from_secs(10));
            let (mut now, mut last, mut doubtful) = (Instant::now(), Vec::new(), false);
            let mut most = 0;
            for (listed, pause) in lists.into_iter().zip(pauses) {
                let listed = Vec::from_iter(listed);
                now += Duration::from_millis(pause);
                let corrected = ports(vanished.correct(&list(&listed), now).nodes());
                prop_assert!(listed.iter().all(|port| corrected.contains(port)));
                let kept = ports(vanished.kept());
                prop_assert_eq!(corrected.len(), listed.len() + kept.len(), "either or");
                if listed.len() * 2 < last.len() {
                    prop_assert!(last.iter().all(|port| corrected.contains(port)), "{last:?}");
                }
                doubtful |= listed.len() * 2 < most;
                prop_assert!(doubtful || kept.is_empty());
                most = most.max(listed.len());
                last = listed;
            }
        }
    }
}
