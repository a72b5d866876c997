//! All nodes of one service at one moment: the item of a registry's watch.
//!
//! State, not deltas: a snapshot replaces the one before, so that it repairs whatever was missed. The
//! invariant: nodes are sorted by address, and no address occurs twice.

use std::sync::Arc;

use crate::ServiceNode;

/// All nodes of one service at one moment, sorted by address. Cheap to clone.
///
/// A registry yields complete snapshots, never differences: the next one repairs whatever was missed while
/// a connection was broken. [Chapter 3 of the guide](crate::guide#3-watching-state-not-deltas) explains it.
///
/// ```
/// use std::sync::Arc;
/// use discovery::{ServiceNode, Snapshot};
///
/// # fn main() -> Result<(), discovery::Error> {
/// let node = |port, tags: &str| {
///     let node = ServiceNode::new("greeter".parse()?, ([10, 0, 0, 1], port).into());
///     Ok::<_, discovery::Error>(Arc::new(node.with_tags(tags.parse()?)))
/// };
/// let snapshot = Snapshot::new([node(2, "version=v1")?, node(1, "")?, node(2, "version=v2")?], 7);
/// let nodes: Vec<_> = snapshot.nodes().iter().map(|n| (n.address.port(), n.version())).collect();
/// assert_eq!(nodes, [(1, None), (2, Some("v2"))]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    nodes: Arc<[Arc<ServiceNode>]>,
    revision: u64,
    skipped: usize,
}

impl Snapshot {
    /// Creates a snapshot of these nodes at this revision of the registry. Of two nodes with one address the
    /// later one counts.
    pub fn new(nodes: impl IntoIterator<Item = Arc<ServiceNode>>, revision: u64) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        if !nodes.is_sorted_by(|a, b| a.address < b.address) {
            nodes.sort_by_key(|node| node.address);
            nodes.reverse();
            nodes.dedup_by_key(|node| node.address);
            nodes.reverse();
        }
        Self {
            nodes: nodes.into(),
            revision,
            skipped: 0,
        }
    }

    /// Sets the number of skipped entries.
    pub fn with_skipped(self, skipped: usize) -> Self {
        Self { skipped, ..self }
    }

    /// Returns the nodes, sorted by address, no address twice.
    pub fn nodes(&self) -> &[Arc<ServiceNode>] {
        &self.nodes
    }

    /// Returns true if it contains a node with the address of this one.
    pub(crate) fn has(&self, node: &ServiceNode) -> bool {
        self.nodes
            .binary_search_by_key(&node.address, |node| node.address)
            .is_ok()
    }

    /// Returns true if another snapshot has the same contents, at any revision.
    pub(crate) fn same_as(&self, other: &Snapshot) -> bool {
        self.nodes == other.nodes && self.skipped == other.skipped
    }

    /// Returns the registry's revision. Larger is later, until an empty registry takes over.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the number of entries that were malformed or not allowed, and are not among the nodes.
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_sorted_and_the_later_one_wins() {
        let node = |port: u16, version: &str| {
            let node = ServiceNode::new("a".parse().unwrap(), ([10, 0, 0, 1], port).into());
            Arc::new(node.with_tags(format!("version={version}").parse().unwrap()))
        };
        let snapshot = Snapshot::new([node(9, "v1"), node(1, "v1"), node(9, "v2")], 7);
        let seen: Vec<_> = snapshot
            .nodes()
            .iter()
            .map(|n| (n.address.port(), n.version()))
            .collect();
        assert_eq!(seen, [(1, Some("v1")), (9, Some("v2"))]);
        let snapshot = snapshot.with_skipped(3);
        assert_eq!((snapshot.revision(), snapshot.skipped()), (7, 3));
        assert_eq!(snapshot.nodes().len(), 2);
    }
}
