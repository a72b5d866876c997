//! The nodes of one service as a client has them: the last snapshot, and whether it is stale.
//!
//! A [`View`] is immutable, a new snapshot makes [the next one](View::next). Its invariant: an endpoint
//! whose entry did not change is the same allocation in both, with its history, and a stale view keeps
//! its endpoints. Watching the registry, and when a view becomes stale, is left to `service.rs`.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ejection::{Record, ServiceState};
use crate::{Ejection, Endpoint, Snapshot};

/// The endpoints of one service from the last snapshot, and whether they are stale.
///
/// [Chapter 6 of the guide](crate::guide#6-when-the-registry-is-away) has one without a registry.
#[derive(Clone, Debug, Default)]
pub struct View {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// Number of snapshots that differed from the one before.
    generation: u64,
    /// Number of all snapshots.
    snapshots: u64,
    revision: u64,
    skipped: usize,
    /// Time of the last snapshot. `None` before the initial one.
    received_at: Option<Instant>,
    disconnected_since: Option<Instant>,
    /// Shared by the endpoints of all views of the service.
    state: Arc<ServiceState>,
}

/// Difference of two views.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) added: Vec<Arc<Endpoint>>,
    pub(crate) removed: Vec<Arc<Endpoint>>,
}

impl View {
    /// Returns the endpoints, sorted by address.
    pub fn endpoints(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// Returns the registry's revision of the last snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the number of snapshots since the service is watched.
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// Returns the number of registry entries that are malformed or not allowed.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Returns the time since the last snapshot, which came with a change or with a periodic resync.
    pub fn age(&self) -> Duration {
        self.received_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Returns for how long the view has been stale, because the registry is disconnected. `None` while it
    /// is connected.
    pub fn stale_for(&self) -> Option<Duration> {
        self.disconnected_since.map(|since| since.elapsed())
    }

    /// Changes whenever the endpoints do.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the number of ejections for this reason since the service is watched, those of removed
    /// endpoints included.
    pub fn ejections(&self, why: Ejection) -> u64 {
        self.state.ejections(why)
    }

    /// Returns the drained addresses without a registered node. A node that registers there is drained
    /// from the beginning. An address stays drained for a day after the last snapshot that contained it.
    pub fn drained_unregistered(&self) -> Vec<SocketAddr> {
        self.state.drained_unregistered()
    }

    /// Undrains an address, whether a node is registered there or not. Returns true if it was drained.
    pub fn undrain(&self, address: SocketAddr) -> bool {
        self.state.set_drained(address, false)
    }

    /// Changes whenever the state of an endpoint does: ejected, drained, unconfirmed.
    pub(crate) fn state_version(&self) -> u64 {
        self.state.version()
    }

    /// Returns the same view, marked as stale.
    pub(crate) fn disconnected(&self) -> Self {
        Self {
            disconnected_since: self.disconnected_since.or_else(|| Some(Instant::now())),
            ..self.clone()
        }
    }

    /// Returns the view of the next snapshot. An endpoint whose entry stayed the same is kept.
    pub(crate) fn next(&self, snapshot: &Snapshot) -> (Self, Changes) {
        let mut changes = Changes::default();
        let mut old = self.endpoints.iter().peekable();
        let mut endpoints = Vec::with_capacity(snapshot.nodes().len());
        for node in snapshot.nodes() {
            // The common case, an unchanged entry, needs no comparison of addresses.
            let mut same = old
                .next_if(|endpoint| Arc::ptr_eq(endpoint.entry(), node))
                .cloned();
            while same.is_none()
                && let Some(endpoint) = old.next_if(|endpoint| endpoint.address <= node.address)
            {
                if endpoint.entry() == node {
                    same = Some(endpoint.clone());
                } else {
                    changes.removed.push(endpoint.clone());
                }
            }
            endpoints.push(same.unwrap_or_else(|| {
                let record = Record::new(self.state.clone());
                let endpoint = Arc::new(Endpoint::with_record(node.clone(), record));
                changes.added.push(endpoint.clone());
                endpoint
            }));
        }
        changes.removed.extend(old.cloned());
        debug_assert!(endpoints.is_sorted_by(|a, b| a.address.cmp(&b.address) == Ordering::Less));
        let (endpoints, generation) = if changes.is_empty() {
            (self.endpoints.clone(), self.generation)
        } else {
            (endpoints.into(), self.generation + 1)
        };
        let is_registered = |address| {
            let found = endpoints.binary_search_by_key(&address, |endpoint| endpoint.address);
            found.is_ok()
        };
        self.state.update_registered(Instant::now(), is_registered);
        let view = Self {
            endpoints,
            generation,
            snapshots: self.snapshots + 1,
            revision: snapshot.revision(),
            skipped: snapshot.skipped(),
            received_at: Some(Instant::now()),
            disconnected_since: None,
            state: self.state.clone(),
        };
        (view, changes)
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
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
    fn an_unchanged_entry_keeps_its_endpoint() {
        let (one, changes) = View::default().next(&snapshot(&[(1, "v1"), (2, "v1"), (4, "v1")]));
        assert_eq!(
            (ports(&changes.added), ports(&changes.removed)),
            (vec![1, 2, 4], vec![])
        );
        let (two, changes) = one.next(&snapshot(&[(2, "v1"), (3, "v1"), (4, "v2")]));
        assert_eq!(
            (ports(&changes.added), ports(&changes.removed)),
            (vec![3, 4], vec![1, 4])
        );
        assert!(Arc::ptr_eq(&one.endpoints[1], &two.endpoints[0]));
        assert!(
            !Arc::ptr_eq(&one.endpoints[2], &two.endpoints[2]),
            "its entry changed"
        );
        let (none, changes) = two.next(&snapshot(&[]));
        assert_eq!(
            (none.endpoints.len(), ports(&changes.removed)),
            (0, vec![2, 3, 4])
        );
    }

    #[test]
    fn an_address_stays_drained_across_its_entries() {
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
            view = view.disconnected().next(&snapshot(nodes)).0;
            let drained = view.endpoints.iter().filter(|e| e.is_drained()).cloned();
            let is_registered = nodes.iter().any(|(port, _)| *port == 1);
            assert_eq!(
                ports(&drained.collect::<Vec<_>>()),
                [1; 1][..usize::from(is_registered)]
            );
            assert_eq!(view.drained_unregistered().is_empty(), is_registered);
        }
        let [address, other] = [0, 1].map(|index: usize| view.endpoints[index].address);
        assert_eq!(
            [address, other].map(|address| view.undrain(address)),
            [true, false]
        );
        assert!(!view.endpoints[0].is_drained());
    }

    #[test]
    fn a_view_has_the_revision_and_skipped_count() {
        let snapshot = Snapshot::new([], 7).with_skipped(3);
        let (view, _) = View::default().next(&snapshot);
        assert_eq!((view.revision(), view.skipped()), (7, 3));
    }

    #[test]
    fn an_equal_snapshot_keeps_the_list() {
        let (one, _) = View::default().next(&snapshot(&[(1, "v1"), (2, "v1")]));
        let (two, changes) = one.disconnected().next(&snapshot(&[(1, "v1"), (2, "v1")]));
        assert!(changes.is_empty() && Arc::ptr_eq(&one.endpoints, &two.endpoints));
    }

    #[test]
    fn a_view_is_stale_until_the_next_snapshot() {
        let (view, _) = View::default().next(&snapshot(&[(1, "v1")]));
        assert_eq!(view.stale_for(), None);
        let stale = view.disconnected();
        assert_eq!(
            stale.disconnected().disconnected_since,
            stale.disconnected_since
        );
        assert!(stale.stale_for().is_some() && stale.endpoints.len() == 1);
        assert_eq!(stale.next(&snapshot(&[(1, "v1")])).0.stale_for(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_view_is_its_snapshot_plus_differences(
            snapshots in prop::collection::vec(prop::collection::btree_map(1..9_u16, "v[12]", 0..9), 1..9),
        ) {
            let mut view = View::default();
            let mut known: BTreeMap<u16, String> = BTreeMap::new();
            for list in snapshots {
                let nodes: Vec<_> = list.iter().map(|(port, tag)| (*port, tag.as_str())).collect();
                let (next, changes) = view.next(&snapshot(&nodes));
                prop_assert_eq!(ports(&next.endpoints), list.keys().copied().collect::<Vec<_>>());
                let only_in = |one: &BTreeMap<u16, String>, other: &BTreeMap<u16, String>| {
                    let only = one.iter().filter(|(port, tag)| other.get(port) != Some(tag));
                    only.map(|(port, _)| *port).collect::<Vec<_>>()
                };
                prop_assert_eq!(ports(&changes.added), only_in(&list, &known));
                prop_assert_eq!(ports(&changes.removed), only_in(&known, &list));
                let stays = |new: &Arc<Endpoint>| view.endpoints.iter().any(|old| Arc::ptr_eq(old, new));
                let stayed = next.endpoints.iter().filter(|new| stays(new)).count();
                prop_assert_eq!(stayed + changes.added.len(), list.len());
                (view, known) = (next, list);
            }
        }
    }
}
