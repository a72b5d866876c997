//! Properties of [`Entries`] against a plain model of etcd: whatever happens, the folded nodes are those
//! of the model as soon as no event is missing.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const PREFIX: &str = "/services/greeter/";

/// Keys after the prefix: addresses in canonical form, and others.
const KEYS: [&str; 8] = [
    "10.0.0.1:1",
    "10.0.0.1:2",
    "10.0.0.2:1",
    "[::1]:1",
    "",
    "..",
    "10.0.0.1:01",
    "[0::1]:1",
];

/// Number of the keys that are addresses in canonical form.
const VALID_KEYS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Version(u8),
    OtherPort,
    OtherService,
    Junk,
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, Value),
    Delete(usize),
    /// The watch breaks: events are lost until the next list.
    Break,
    List,
}

/// Model of etcd: for each key its value and the revision at which it was written.
#[derive(Default)]
struct Etcd {
    revision: i64,
    keys: BTreeMap<usize, (Value, i64)>,
}

impl Etcd {
    fn list(&self) -> Vec<(String, String, i64)> {
        let entry = |(key, (value, revision)): (&usize, &(Value, i64))| {
            (full(*key), value.of(*key), *revision)
        };
        self.keys.iter().map(entry).collect()
    }

    /// Returns addresses and versions of the valid nodes, sorted, and the number of malformed entries.
    fn readable(&self) -> (Vec<(SocketAddr, String)>, usize) {
        let read = self
            .keys
            .iter()
            .filter_map(|(key, (value, _))| match value {
                Value::Version(version) if *key < VALID_KEYS => {
                    Some((KEYS[*key].parse().unwrap(), format!("v{version}")))
                }
                _ => None,
            });
        let mut read: Vec<_> = read.collect();
        read.sort();
        let skipped = self.keys.len() - read.len();
        (read, skipped)
    }
}

impl Value {
    /// Returns the value in etcd under a key.
    fn of(self, key: usize) -> String {
        let address = KEYS[key].parse().ok();
        let mut address = address.unwrap_or(SocketAddr::from(([10, 0, 0, 1], 9)));
        let (service, version) = match self {
            Self::Version(version) => ("greeter", version),
            Self::OtherPort => ("greeter", 1),
            Self::OtherService => ("greeter2", 1),
            Self::Junk => return "junk".into(),
        };
        if self == Self::OtherPort {
            address.set_port(99);
        }
        let node = ServiceNode::new(service.parse().unwrap(), address);
        let tags = format!("version=v{version}").parse().unwrap();
        node.with_tags(tags).to_json()
    }
}

fn full(key: usize) -> String {
    format!("{PREFIX}{}", KEYS[key])
}

fn folded(entries: &Entries, revision: i64) -> (Vec<(SocketAddr, String)>, usize) {
    let snapshot = entries.snapshot(revision);
    let node = |node: &Arc<ServiceNode>| (node.address, node.version().unwrap().to_owned());
    (
        snapshot.nodes().iter().map(node).collect(),
        snapshot.skipped(),
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        4 => (1..4_u8).prop_map(Value::Version),
        1 => select(&[Value::OtherPort, Value::OtherService, Value::Junk][..]),
    ];
    let step = prop_oneof![
        6 => (0..KEYS.len(), value).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0..KEYS.len()).prop_map(Step::Delete),
        1 => Just(Step::Break),
        2 => Just(Step::List),
    ];
    vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn folded_entries_equal_the_model(steps in steps()) {
        let mut etcd = Etcd::default();
        let mut entries = Entries::new("greeter".parse().unwrap(), PREFIX.into());
        let mut whole = true;
        for step in steps.into_iter().chain([Step::List]) {
            etcd.revision += 1;
            match step {
                Step::Put(key, value) => {
                    etcd.keys.insert(key, (value, etcd.revision));
                    if whole {
                        entries.put((full(key).as_bytes(), value.of(key).as_bytes(), etcd.revision));
                    }
                }
                Step::Delete(key) => {
                    etcd.keys.remove(&key);
                    if whole {
                        entries.delete(full(key).as_bytes());
                    }
                }
                Step::Break => whole = false,
                Step::List => {
                    let list = etcd.list();
                    let list = list.iter().map(|(k, v, at)| (k.as_bytes(), v.as_bytes(), *at));
                    entries.replace(list);
                    whole = true;
                }
            }
            if whole {
                prop_assert_eq!(folded(&entries, etcd.revision), etcd.readable());
            }
        }
    }

    #[test]
    fn a_key_is_a_canonical_address_or_counted(
        key in prop_oneof![
            any::<Vec<u8>>(),
            "[0-9a-f.:\\[\\]]{0,20}".prop_map(String::into_bytes),
            any::<(std::net::IpAddr, u16)>().prop_map(|parts| SocketAddr::from(parts).to_string().into_bytes()),
        ],
        value in any::<Vec<u8>>(),
    ) {
        let mut entries = Entries::new("greeter".parse().unwrap(), PREFIX.into());
        let key = [PREFIX.as_bytes(), &key].concat();
        entries.put((&key, &value, 1));
        prop_assert_eq!(folded(&entries, 1), (Vec::new(), 1));
        if let Ok(address) = entries.address(&key) {
            prop_assert_eq!(format!("{PREFIX}{address}").into_bytes(), &*key);
            let node = ServiceNode::new("greeter".parse().unwrap(), address).to_json();
            entries.put((&key, node.as_bytes(), 2));
            let readable = ServiceNode::from_json(node.as_bytes()).is_ok();
            prop_assert_eq!(entries.snapshot(2).skipped(), usize::from(!readable));
        }
        entries.delete(&key);
        prop_assert_eq!(folded(&entries, 3), (Vec::new(), 0));
    }
}
