//! The interface of a registry, and the registries themselves.
//!
//! [`NodeRegistry`] has two verbs, register and watch, as [kratos][1] has. Its invariant: state, not deltas:
//! every item of a watch is the whole snapshot, so the next one repairs whatever was missed. Each back end
//! is a folder with the protocol of one server; retries and memory are in `registration.rs` and
//! `service.rs`. `entries.rs` folds keys and values into nodes, `url.rs` and `access.rs` parse where and
//! how to connect.
//!
//! [1]: https://github.com/go-kratos/kratos/blob/main/registry/registry.go

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::{Error, ParseError, Registration, ServiceName, ServiceNode, Snapshot};

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

/// An endless stream of snapshots of one service: see [`NodeRegistry::watch`].
pub type SnapshotStream = BoxStream<'static, Result<Snapshot, Error>>;

/// A registry of nodes. It does two things: it [keeps a node registered](crate::guide#2-registering), and
/// it [streams snapshots](crate::guide#3-watching-state-not-deltas) of the registered nodes.
///
/// An implementation contains mechanism only. Backoff, the last known view and the like are written once
/// for all registries, by the callers.
///
/// # A registry of your own
///
/// It takes a [`Registrar`](crate::Registrar), which registers and deregisters a node, and a stream of
/// snapshots. This one is complete: a directory that the processes of one machine share.
/// `discovery/examples/file_registry` runs it.
///
/// ```no_run
#[doc = include_str!("../examples/file_registry/src/registry.rs")]
/// ```
///
/// The contract in detail is a test suite, `discovery/tests/registry.rs`: add one function and one line
/// there, and every scenario runs with your registry. Apart from the obvious it requires:
///
/// * Snapshots are complete. Two nodes with one address, a malformed entry, a lost event: none of these
///   may fail a snapshot, or last beyond the next one.
/// * A snapshot that equals the one before is not yielded again, unless an error came between.
/// * A node whose process dies is removed after its TTL, without a request.
/// * Deregistering late does not remove the entry of a new owner.
/// * Tasks belong to the runtime that polls: a registry outlives the one that used it first.
pub trait NodeRegistry: fmt::Debug + Send + Sync {
    /// Registers `node` and keeps it registered until the [`Registration`] is deregistered or dropped,
    /// however often the registry disconnects or loses the entry. Returns at once, also when the registry
    /// cannot be reached yet. If the process dies, the registry removes the node within about `ttl`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: it spawns a task.
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration;

    /// Watches a service. The first item is the initial snapshot, each later one a complete snapshot after
    /// one or more changes. An item is the latest state when it is polled: a slow consumer gets fewer
    /// snapshots and misses nothing. The stream does not end.
    ///
    /// An error means that the registry is disconnected: the last snapshot, even the initial one, may be
    /// stale. Polling again starts with a new snapshot, so wait a moment before that.
    fn watch(&self, service: &ServiceName) -> SnapshotStream;
}

/// Creates the registry of a URL. It connects at the first use, so this needs no server.
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
    ParseError::new("registry URL", &url.to_string(), reason).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_named() {
        for (url, feature) in [
            ("consul://a", "consul"),
            ("zookeeper://a", "zookeeper"),
            ("etcd+tls://a", "tls"),
        ] {
            let url: RegistryUrl = url.parse().unwrap();
            let error = not_built(&url, url.scheme()).to_string();
            let remedy = format!("built without {feature}: cargo build --features {feature}");
            assert!(error.ends_with(&remedy), "{error}");
        }
    }
}
