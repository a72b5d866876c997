use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::{Error, Registration, ServiceName, ServiceNode, Snapshot};

mod access;
#[cfg(feature = "etcd")]
mod etcd;
mod memory;
mod url;

#[cfg(feature = "etcd")]
pub use etcd::EtcdRegistry;
pub use memory::MemoryRegistry;
pub use url::RegistryUrl;

/// The lists of one service, for ever: see [`NodeRegistry::watch`].
pub type SnapshotStream = BoxStream<'static, Result<Snapshot, Error>>;

/// A registry of nodes. It does two things: it keeps a node listed, and it tells who is listed.
///
/// An implementation holds mechanism only. Waiting before the next try, serving the last known
/// list and the like are the callers' business, written once for all registries.
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
/// # Errors
/// [`Error::Invalid`] if this build has no such registry.
pub fn connect(url: &RegistryUrl) -> Result<Arc<dyn NodeRegistry>, Error> {
    match url.scheme() {
        "memory" => Ok(Arc::new(MemoryRegistry::default())),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Arc::new(EtcdRegistry::new(url))),
        #[cfg(feature = "tls")]
        "etcd+tls" => Ok(Arc::new(EtcdRegistry::new(url))),
        _ => Err(Error::invalid(
            "registry URL",
            &url.to_string(),
            "this program was built without what that needs",
        )),
    }
}
