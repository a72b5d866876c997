use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::{Error, Registration, ServiceName, ServiceNode, Snapshot};

mod access;
#[cfg(feature = "consul")]
mod consul;
#[cfg(any(feature = "etcd", feature = "consul", feature = "zookeeper"))]
mod entries;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "etcd", feature = "consul", feature = "zookeeper"))]
mod file;
#[cfg(any(feature = "etcd", feature = "consul"))]
mod limit;
mod memory;
mod url;
#[cfg(feature = "zookeeper")]
mod zookeeper;

#[cfg(feature = "consul")]
pub use consul::ConsulRegistry;
#[cfg(feature = "etcd")]
pub use etcd::EtcdRegistry;
pub use memory::MemoryRegistry;
pub use url::RegistryUrl;
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeperRegistry;

/// The lists of one service, for ever: see [`NodeRegistry::watch`].
pub type SnapshotStream = BoxStream<'static, Result<Snapshot, Error>>;

/// A registry of nodes. It does two things: it [keeps a node listed](crate::guide#2-registering), and it
/// [tells who is listed](crate::guide#3-watching-state-not-deltas).
///
/// An implementation holds mechanism only. Waiting before the next try, serving the last known
/// list and the like are the callers' business, written once for all registries.
///
/// # A registry of your own
///
/// It takes a [`Keeper`](crate::Keeper), which lists a node and takes it off the list again, and a
/// stream of lists. This one is whole: a directory that the processes of one machine share.
/// `discovery/examples/file_registry` runs it.
///
/// ```no_run
#[doc = include_str!("../examples/file_registry/registry.rs")]
/// ```
///
/// What it has to hold in detail is written as tests, `discovery/tests/registry.rs`: add one function
/// and one line there, and every scenario runs with your registry. What they ask for beside the
/// obvious:
///
/// * Lists are whole. Two nodes with one address, an entry that cannot be read, an event that was
///   lost: none of these may fail a list, or last beyond the next one.
/// * A list that says what the one before it said is not handed out again, unless an error came
///   between.
/// * Who dies is gone after its time to live, although nobody says goodbye for it.
/// * A late leaver does not take its successor off the list.
/// * Tasks belong to the runtime that polls: a registry outlives the one that used it first.
pub trait NodeRegistry: fmt::Debug + Send + Sync {
    /// Lists `node` and keeps it listed until the [`Registration`] leaves or is dropped, however
    /// often the registry goes away or loses it. Returns at once, also when the registry cannot be
    /// reached yet. If the process dies, the node vanishes from the list within about `ttl`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: the registration is kept by a task.
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration;

    /// Follows a service. The first item is its whole list, each later one its whole list after one
    /// change or several: it is the latest when it is polled for, so whoever polls seldom gets few
    /// lists and misses nothing. The stream does not end.
    ///
    /// An error says that the registry cannot be followed just now: the list before it, even if it
    /// was the first, may be stale. Polling again begins again with a new list, so wait a moment
    /// before that.
    fn watch(&self, service: &ServiceName) -> SnapshotStream;
}

/// The registry a URL names. Connecting happens when it is first used, so this needs no server.
///
/// ```
/// # fn main() -> Result<(), discovery::Error> {
/// let registry = discovery::connect(&"memory:".parse()?)?;
/// assert!("redis://127.0.0.1".parse::<discovery::RegistryUrl>().is_err());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Invalid`] if this build has no such registry.
pub fn connect(url: &RegistryUrl) -> Result<Arc<dyn NodeRegistry>, Error> {
    match url.scheme() {
        "memory" => Ok(Arc::new(MemoryRegistry::default())),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Arc::new(EtcdRegistry::new(url))),
        #[cfg(feature = "tls")]
        "etcd+tls" => Ok(Arc::new(EtcdRegistry::new(url))),
        #[cfg(feature = "consul")]
        "consul" => Ok(Arc::new(ConsulRegistry::new(url))),
        #[cfg(feature = "zookeeper")]
        "zookeeper" => Ok(Arc::new(ZooKeeperRegistry::new(url))),
        missing => Err(not_built(url, missing)),
    }
}

fn not_built(url: &RegistryUrl, scheme: &str) -> Error {
    let feature = if scheme == "etcd+tls" { "tls" } else { scheme };
    let reason = format!("built without {feature}: cargo build --features {feature}");
    Error::invalid("registry URL", &url.to_string(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_not_built_in_says_how_to_get_it() {
        for (url, feature) in [
            ("consul://a", "consul"),
            ("zookeeper://a", "zookeeper"),
            ("etcd+tls://a", "tls"),
        ] {
            let url: RegistryUrl = url.parse().unwrap();
            let told = not_built(&url, url.scheme()).to_string();
            let remedy = format!("built without {feature}: cargo build --features {feature}");
            assert!(told.ends_with(&remedy), "{told}");
        }
    }
}
