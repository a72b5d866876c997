//! etcd ([API v3](https://etcd.io/docs/v3.5/learning/api/)): a node is a key under a lease.

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
use lease::LeaseKeeper;
use watch::Watcher;

/// The largest answer read. gRPC's own limit, 4 MiB, is less than 10 000 nodes need.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The registry of the article: keys `{prefix}{service}/{ip:port}`, values the node's JSON.
#[derive(Clone)]
pub struct EtcdRegistry {
    connection: Arc<Connection>,
    prefix: Arc<str>,
}

impl EtcdRegistry {
    /// The registry at this URL. Connecting happens at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            connection: Arc::new(Connection::new(url.clone())),
            prefix: url.prefix().into(),
        }
    }

    /// Where the keys of a service begin.
    fn service_prefix(&self, service: &ServiceName) -> String {
        format!("{}{service}/", self.prefix)
    }

    /// Makes a request, if need be to each endpoint.
    async fn call<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.connection.call(what, request).await
    }
}

impl NodeRegistry for EtcdRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        Registration::keep(node.clone(), LeaseKeeper::new(self.clone(), &node, ttl))
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

/// The first cause, such as "Connection refused": gRPC's account of it takes three lines.
fn cause(error: &etcd_client::Error) -> String {
    let (source, message) = match error {
        etcd_client::Error::GRpcStatus(status) => (status.source(), status.message().to_owned()),
        etcd_client::Error::TransportError(error) => (error.source(), error.to_string()),
        _ => (None, error.to_string()),
    };
    let causes = std::iter::successors(source, |cause| (**cause).source());
    causes.last().map_or(message, ToString::to_string)
}
