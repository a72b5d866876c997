//! etcd ([API v3](https://etcd.io/docs/v3.5/learning/api/)): a node is a key under a lease.
//!
//! `lease.rs` keeps a key, `watch.rs` streams snapshots, `connection.rs` fails over between endpoints.
//! The invariant: a registration deletes nothing but its own leases, and a watch starts at the revision of
//! its snapshot. Backoff is left to `registration.rs` and `service.rs`.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use futures_util::{StreamExt, stream};

use super::{NodeRegistry, RegistryUrl, SnapshotStream};
use crate::{Error, Registration, ServiceName, ServiceNode};

mod connection;
mod lease;
mod options;
mod watch;

use connection::Connection;
use lease::LeaseRegistrar;
use watch::Watcher;

/// Maximum size of a response. gRPC's default, 4 MiB, is less than 10 000 nodes need.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The article's registry: keys `{prefix}{service}/{ip:port}`, the values are the nodes' JSON.
#[derive(Clone)]
pub struct EtcdRegistry {
    connection: Arc<Connection>,
    prefix: Arc<str>,
}

impl EtcdRegistry {
    /// Creates the registry of this URL. It connects at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            connection: Arc::new(Connection::new(url.clone())),
            prefix: url.prefix().into(),
        }
    }

    /// Returns the prefix of the keys of a service.
    fn service_prefix(&self, service: &ServiceName) -> String {
        format!("{}{service}/", self.prefix)
    }

    /// Sends a request, to one endpoint after another until one responds.
    async fn call<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.connection.call(what, request).await
    }
}

impl NodeRegistry for EtcdRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        Registration::start(node.clone(), LeaseRegistrar::new(self.clone(), &node, ttl))
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        let watcher = Watcher::new(self.clone(), service.clone());
        stream::unfold(watcher, |mut watcher| async {
            let snapshot = watcher.next().await;
            Some((snapshot, watcher))
        })
        .boxed()
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry")
            .field("url", &self.connection.url())
            .finish()
    }
}

fn failed(what: &str, error: etcd_client::Error) -> Error {
    Error::Registry {
        message: format!("{what}: {}", cause(&error)),
        source: Some(Box::new(error)),
    }
}

/// Returns the root cause, such as "Connection refused". The whole chain takes three lines.
fn cause(error: &etcd_client::Error) -> String {
    let (source, message) = match error {
        etcd_client::Error::GRpcStatus(status) => (status.source(), status.message().to_owned()),
        etcd_client::Error::TransportError(error) => (error.source(), error.to_string()),
        _ => (None, error.to_string()),
    };
    let causes = std::iter::successors(source, |cause| (**cause).source());
    causes.last().map_or(message, ToString::to_string)
}
