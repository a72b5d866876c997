//! The entries of one service, folded from snapshots and events into nodes.
//!
//! Shared by all registries that have the article's JSON under keys. The invariant: the result depends only
//! on the last value of each key, and a malformed entry affects no other one: it is logged once, counted
//! and ignored. Reading entries from a server is left to the watches.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use log::warn;

use crate::{ParseError, ServiceName, ServiceNode, Snapshot};

/// The valid nodes of one service, and the keys of malformed entries.
#[derive(Debug)]
pub(super) struct Entries {
    service: ServiceName,
    prefix: String,
    nodes: BTreeMap<SocketAddr, Arc<ServiceNode>>,
    /// Keys of malformed entries, with the revision at which they were written.
    skipped: HashMap<String, i64>,
}

/// A key, its value, and the revision at which it was last written.
pub(super) type Entry<'a> = (&'a [u8], &'a [u8], i64);

impl Entries {
    pub(super) fn new(service: ServiceName, prefix: String) -> Self {
        Self {
            service,
            prefix,
            nodes: BTreeMap::new(),
            skipped: HashMap::new(),
        }
    }

    /// Replaces all entries.
    pub(super) fn replace<'a>(&mut self, list: impl Iterator<Item = Entry<'a>>) {
        let known = std::mem::take(&mut self.nodes);
        let warned = std::mem::take(&mut self.skipped);
        for entry in list {
            self.put_unless_warned(entry, &warned);
        }
        // An unchanged node keeps its allocation, so that comparing snapshots is cheap.
        for (address, node) in &mut self.nodes {
            if let Some(old) = known.get(address).filter(|old| *old == node) {
                *node = old.clone();
            }
        }
    }

    /// Applies the write of a key.
    #[cfg_attr(
        not(any(test, feature = "etcd", feature = "zookeeper")),
        expect(dead_code, reason = "Consul sends complete lists only")
    )]
    pub(super) fn put(&mut self, entry: Entry<'_>) {
        self.put_unless_warned(entry, &HashMap::new());
    }

    /// Applies the deletion of a key, or the end of its lease.
    pub(super) fn delete(&mut self, key: &[u8]) {
        self.skipped.remove(&*String::from_utf8_lossy(key));
        if let Ok(address) = self.address(key) {
            self.nodes.remove(&address);
        }
    }

    pub(super) fn snapshot(&self, revision: i64) -> Snapshot {
        let revision = u64::try_from(revision).unwrap_or_default();
        Snapshot::new(self.nodes.values().cloned(), revision).with_skipped(self.skipped.len())
    }

    fn put_unless_warned(&mut self, entry: Entry<'_>, warned: &HashMap<String, i64>) {
        let (key, _, revision) = entry;
        self.delete(key); // the new value replaces the old one even if it is malformed
        match self.read(entry) {
            Ok(node) => drop(self.nodes.insert(node.address, Arc::new(node))),
            Err(error) => {
                let key = String::from_utf8_lossy(key).into_owned();
                if warned.get(&key) != Some(&revision) {
                    warn!(key:%, error:%; "ignoring malformed registry entry");
                }
                self.skipped.insert(key, revision);
            }
        }
    }

    fn read(&self, (key, value, _): Entry<'_>) -> Result<ServiceNode, ParseError> {
        let address = self.address(key)?;
        let node = ServiceNode::from_json(value)?;
        if node.address != address || node.service != self.service {
            let other = format!("{}/{}", node.service, node.address);
            return Err(ParseError::new("node", &other, "does not match its key"));
        }
        Ok(node)
    }

    /// Parses the address in a key. Only its canonical form is valid: one node, one key.
    fn address(&self, key: &[u8]) -> Result<SocketAddr, ParseError> {
        let key = std::str::from_utf8(key).unwrap_or_default();
        let text = key.strip_prefix(&self.prefix).unwrap_or_default();
        let address = text
            .parse()
            .ok()
            .filter(|a: &SocketAddr| a.to_string() == text);
        address.ok_or_else(|| {
            ParseError::new("key", key, "expected ip:port or [ipv6]:port at its end")
        })
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Entries {
        Entries::new("greeter".parse().unwrap(), "/services/greeter/".into())
    }

    fn json(service: &str, ip: &str, port: u16) -> String {
        format!(r#"{{"ServiceName":"{service}","IP":"{ip}","Port":{port}}}"#)
    }

    fn ports(entries: &Entries) -> Vec<u16> {
        entries
            .snapshot(1)
            .nodes()
            .iter()
            .map(|node| node.address.port())
            .collect()
    }

    #[test]
    fn events_fold_into_a_sorted_snapshot() {
        let mut entries = entries();
        for port in [9, 10, 8] {
            let key = format!("/services/greeter/10.0.0.1:{port}");
            entries.put((
                key.as_bytes(),
                json("greeter", "10.0.0.1", port).as_bytes(),
                1,
            ));
        }
        entries.delete(b"/services/greeter/10.0.0.1:9");
        entries.delete(b"/services/greeter/10.0.0.1:7");
        assert_eq!(ports(&entries), [8, 10]);
    }

    #[test]
    fn replacing_keeps_unchanged_allocations() {
        let mut entries = entries();
        let [old, same] = [7, 8].map(|port| json("greeter", "::1", port));
        entries.put((b"/services/greeter/[::1]:7", old.as_bytes(), 1));
        entries.put((b"/services/greeter/[::1]:8", same.as_bytes(), 2));
        let before = entries.snapshot(2).nodes()[1].clone();
        entries
            .replace([(b"/services/greeter/[::1]:8".as_slice(), same.as_bytes(), 2)].into_iter());
        assert_eq!(ports(&entries), [8]);
        assert!(Arc::ptr_eq(&before, &entries.snapshot(3).nodes()[0]));
    }

    #[test]
    fn malformed_entries_are_counted_and_ignored() {
        let mut entries = entries();
        let good = json("greeter", "10.0.0.1", 1);
        for (key, value) in [
            ("/services/greeter/", good.clone()),
            ("/services/greeter/..", good.clone()),
            ("/services/greeter/10.0.0.1:1/x", good.clone()),
            ("/services/greeter/10.0.0.1:01", good.clone()),
            ("/services/greeter/10.0.0.1:2", good.clone()),
            ("/services/greeter/10.0.0.1:3", json("other", "10.0.0.1", 3)),
            ("/services/greeter/10.0.0.1:4", "not json".into()),
            ("/services/greeter/10.0.0.1:5", "x".repeat(1 << 20)),
        ] {
            entries.put((key.as_bytes(), value.as_bytes(), 1));
        }
        entries.put((b"/services/greeter/10.0.0.1:1", good.as_bytes(), 1));
        entries.put((b"\xff\xfe", good.as_bytes(), 1));
        assert_eq!(ports(&entries), [1]);
        assert_eq!(entries.snapshot(1).skipped(), 9);
        entries.delete(b"/services/greeter/..");
        assert_eq!(entries.snapshot(1).skipped(), 8);
    }

    #[test]
    fn a_malformed_value_replaces_a_valid_one() {
        let mut entries = entries();
        let key = b"/services/greeter/10.0.0.1:1";
        entries.put((key, json("greeter", "10.0.0.1", 1).as_bytes(), 1));
        entries.put((key, b"{}", 2));
        assert_eq!(
            (ports(&entries), entries.snapshot(2).skipped()),
            (vec![], 1)
        );
        entries.put((key, json("greeter", "10.0.0.1", 1).as_bytes(), 3));
        assert_eq!(
            (ports(&entries), entries.snapshot(3).skipped()),
            (vec![1], 0)
        );
    }
}
