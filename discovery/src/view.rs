use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ejection::{Counts, Record};
use crate::{Ejection, Endpoint, Snapshot};

/// What a client knows of one service: the last list it got, and whether the registry stands by it.
///
/// [Chapter 6 of the guide](crate::guide#6-when-the-registry-is-away) has one without a registry.
#[derive(Clone, Debug, Default)]
pub struct View {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// Counts the lists that were not the same as the one before.
    generation: u64,
    /// Counts all lists.
    lists: u64,
    revision: u64,
    skipped: usize,
    /// When the registry told this list. `None` before the first.
    listed_at: Option<Instant>,
    away_since: Option<Instant>,
    /// Of ejections since the service is followed, and what is drained.
    counts: Arc<Counts>,
}

/// The difference between two lists.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) joined: Vec<Arc<Endpoint>>,
    pub(crate) left: Vec<Arc<Endpoint>>,
}

impl View {
    /// The endpoints, sorted by address.
    pub fn endpoints(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// The registry's revision of this list.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many lists came from the registry since the service is followed.
    pub fn lists(&self) -> u64 {
        self.lists
    }

    /// How many of the registry's entries could not be read.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// How long ago the registry told this list: at its last change, or when it was asked again.
    pub fn age(&self) -> Duration {
        self.listed_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// For how long the registry has not stood by this list: all of it is stale. `None` while the
    /// registry can be followed.
    pub fn stale_for(&self) -> Option<Duration> {
        self.away_since.map(|since| since.elapsed())
    }

    /// Changes whenever the list does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// How often endpoints were ejected for this reason since the service is followed, those included
    /// that have left.
    pub fn ejections(&self, why: Ejection) -> u64 {
        self.counts.ejections(why)
    }

    /// Drained addresses that this list does not contain. A node that registers there is drained from
    /// the beginning. A day after its node was listed the last time an address is forgotten.
    pub fn drained_unlisted(&self) -> Vec<SocketAddr> {
        self.counts.drained_unlisted()
    }

    /// Undrains an address, whether this list contains it or not. Returns whether it was drained.
    pub fn release(&self, address: SocketAddr) -> bool {
        self.counts.set_drained(address, false)
    }

    /// Changes whenever an endpoint is ejected or restored, doubted or confirmed.
    pub(crate) fn standing_changes(&self) -> u64 {
        self.counts.changes()
    }

    /// The same list, without a registry to stand by it.
    pub(crate) fn away(&self) -> Self {
        Self {
            away_since: self.away_since.or_else(|| Some(Instant::now())),
            ..self.clone()
        }
    }

    /// The view after this one: an endpoint whose entry stayed the same stays the same endpoint.
    pub(crate) fn next(&self, snapshot: &Snapshot) -> (Self, Changes) {
        let mut changes = Changes::default();
        let mut old = self.endpoints.iter().peekable();
        let mut endpoints = Vec::with_capacity(snapshot.nodes().len());
        for node in snapshot.nodes() {
            // Most stayed the same, and to see that takes no look at their addresses.
            let mut same = old
                .next_if(|endpoint| Arc::ptr_eq(endpoint.entry(), node))
                .cloned();
            while same.is_none()
                && let Some(endpoint) = old.next_if(|endpoint| endpoint.address <= node.address)
            {
                match endpoint.entry() == node {
                    true => same = Some(endpoint.clone()),
                    false => changes.left.push(endpoint.clone()),
                }
            }
            endpoints.push(same.unwrap_or_else(|| {
                let record = Record::new(self.counts.clone());
                let endpoint = Arc::new(Endpoint::with_record(node.clone(), record));
                changes.joined.push(endpoint.clone());
                endpoint
            }));
        }
        changes.left.extend(old.cloned());
        debug_assert!(endpoints.is_sorted_by(|a, b| a.address.cmp(&b.address) == Ordering::Less));
        let (endpoints, generation) = match changes.is_empty() {
            true => (self.endpoints.clone(), self.generation),
            false => (endpoints.into(), self.generation + 1),
        };
        let is_listed = |address| {
            let found = endpoints.binary_search_by_key(&address, |endpoint| endpoint.address);
            found.is_ok()
        };
        self.counts.see_listed(Instant::now(), is_listed);
        let view = Self {
            endpoints,
            generation,
            lists: self.lists + 1,
            revision: snapshot.revision(),
            skipped: snapshot.skipped(),
            listed_at: Some(Instant::now()),
            away_since: None,
            counts: self.counts.clone(),
        };
        (view, changes)
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ServiceNode;

    fn snapshot(nodes: &[(u16, &str)]) -> Snapshot {
        let node = |(port, version): &(u16, &str)| {
            let node = ServiceNode::new("a".parse().unwrap(), ([10, 0, 0, 1], *port).into());
            Arc::new(node.with_tags(format!("version={version}").parse().unwrap()))
        };
        Snapshot::new(nodes.iter().map(node), 1)
    }

    fn ports(endpoints: &[Arc<Endpoint>]) -> Vec<u16> {
        endpoints
            .iter()
            .map(|endpoint| endpoint.address.port())
            .collect()
    }

    #[test]
    fn endpoints_stay_the_same_as_long_as_their_entry_does() {
        let (one, joined) = View::default().next(&snapshot(&[(1, "v1"), (2, "v1"), (4, "v1")]));
        assert_eq!(
            (ports(&joined.joined), ports(&joined.left)),
            (vec![1, 2, 4], vec![])
        );
        let (two, changes) = one.next(&snapshot(&[(2, "v1"), (3, "v1"), (4, "v2")]));
        assert_eq!(
            (ports(&changes.joined), ports(&changes.left)),
            (vec![3, 4], vec![1, 4])
        );
        assert!(Arc::ptr_eq(&one.endpoints[1], &two.endpoints[0]));
        assert!(
            !Arc::ptr_eq(&one.endpoints[2], &two.endpoints[2]),
            "its entry changed"
        );
        let (none, changes) = two.next(&snapshot(&[]));
        assert_eq!(
            (none.endpoints.len(), ports(&changes.left)),
            (0, vec![2, 3, 4])
        );
    }

    #[test]
    fn a_drained_address_stays_drained_through_every_entry_it_has() {
        let (mut view, _) = View::default().next(&snapshot(&[(1, "v1"), (2, "v1")]));
        view.endpoints[0].drain();
        for nodes in [
            &[(1, "v2"), (2, "v1")][..],
            &[(2, "v1")],
            &[(1, "v2"), (2, "v1")],
            &[(1, "v1")],
            &[],
            &[(1, "v1"), (2, "v2")],
        ] {
            view = view.away().next(&snapshot(nodes)).0;
            let drained = view.endpoints.iter().filter(|e| e.is_drained()).cloned();
            let is_listed = nodes.iter().any(|(port, _)| *port == 1);
            assert_eq!(
                ports(&drained.collect::<Vec<_>>()),
                [1; 1][..usize::from(is_listed)]
            );
            assert_eq!(view.drained_unlisted().is_empty(), is_listed);
        }
        let [address, other] = [0, 1].map(|index: usize| view.endpoints[index].address);
        assert_eq!(
            [address, other].map(|address| view.release(address)),
            [true, false]
        );
        assert!(!view.endpoints[0].is_drained());
    }

    #[test]
    fn a_view_tells_its_lists_revision_and_what_was_skipped() {
        let list = Snapshot::new([], 7).with_skipped(3);
        let (view, _) = View::default().next(&list);
        assert_eq!((view.revision(), view.skipped()), (7, 3));
    }

    #[test]
    fn a_list_without_changes_is_the_same_list() {
        let (one, _) = View::default().next(&snapshot(&[(1, "v1"), (2, "v1")]));
        let (two, changes) = one.away().next(&snapshot(&[(1, "v1"), (2, "v1")]));
        assert!(changes.is_empty() && Arc::ptr_eq(&one.endpoints, &two.endpoints));
    }

    #[test]
    fn a_view_is_stale_from_the_first_failure_until_the_next_list() {
        let (view, _) = View::default().next(&snapshot(&[(1, "v1")]));
        assert_eq!(view.stale_for(), None);
        let away = view.away();
        assert_eq!(away.away().away_since, away.away_since);
        assert!(away.stale_for().is_some() && away.endpoints.len() == 1);
        assert_eq!(away.next(&snapshot(&[(1, "v1")])).0.stale_for(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_view_is_its_list_and_changes_are_the_difference(
            lists in prop::collection::vec(prop::collection::btree_map(1..9_u16, "v[12]", 0..9), 1..9),
        ) {
            let mut view = View::default();
            let mut known: BTreeMap<u16, String> = BTreeMap::new();
            for list in lists {
                let nodes: Vec<_> = list.iter().map(|(port, tag)| (*port, tag.as_str())).collect();
                let (next, changes) = view.next(&snapshot(&nodes));
                prop_assert_eq!(ports(&next.endpoints), list.keys().copied().collect::<Vec<_>>());
                let only_in = |one: &BTreeMap<u16, String>, other: &BTreeMap<u16, String>| {
                    let only = one.iter().filter(|(port, tag)| other.get(port) != Some(tag));
                    only.map(|(port, _)| *port).collect::<Vec<_>>()
                };
                prop_assert_eq!(ports(&changes.joined), only_in(&list, &known));
                prop_assert_eq!(ports(&changes.left), only_in(&known, &list));
                let stays = |new: &Arc<Endpoint>| view.endpoints.iter().any(|old| Arc::ptr_eq(old, new));
                let stayed = next.endpoints.iter().filter(|new| stays(new)).count();
                prop_assert_eq!(stayed + changes.joined.len(), list.len());
                (view, known) = (next, list);
            }
        }
    }
}
