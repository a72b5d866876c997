//! etcd ([API v3](https://etcd.io/docs/v3.5/learning/api/)): a node is a key under a lease.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{NodeRegistry, RegistryUrl, SnapshotStream};
use crate::{Error, Registration, ServiceName, ServiceNode};

mod entries;
mod lease;
mod watch;

use lease::LeaseKeeper;
use watch::Watcher;

/// How long one request may take, with the time to connect.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// The largest answer read. gRPC's own limit, 4 MiB, is less than 10 000 nodes need.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The registry of the article: keys `{prefix}{service}/{ip:port}`, values the node's JSON.
#[derive(Clone)]
pub struct EtcdRegistry {
    endpoints: Arc<[String]>,
    prefix: Arc<str>,
    client: Arc<OnceCell<Client>>,
}

impl EtcdRegistry {
    /// The registry at this URL. Connecting happens at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        let endpoints = url
            .endpoints()
            .iter()
            .map(|endpoint| format!("http://{endpoint}"));
        let client = Arc::default();
        Self {
            endpoints: endpoints.collect(),
            prefix: url.prefix().into(),
            client,
        }
    }

    /// Where the keys of a service begin.
    fn service_prefix(&self, service: &ServiceName) -> String {
        format!("{}{service}/", self.prefix)
    }

    /// The one connection to each endpoint, shared by all that this registry does.
    async fn client(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            .with_timeout(Duration::from_secs(3))
            // Pings less than 5 s apart make etcd close the connection.
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
            .with_keep_alive_while_idle(true)
            // Without it, a member cut off from its cluster keeps a watch open and silent.
            .with_require_leader(true);
        let connect = || Client::connect(&self.endpoints[..], Some(options));
        self.client.get_or_try_init(connect).await.cloned()
    }

    /// Makes a request: at most twice for every endpoint, since the client spreads requests over
    /// all of them, the dead ones included, and repeats none.
    async fn call<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let attempts = async {
            let mut tries = 2 * self.endpoints.len();
            loop {
                let answer = async { request(self.client().await?).await }.await;
                tries -= 1;
                match answer {
                    Err(error) if tries == 0 => return Err(failed(what, error)),
                    Err(_) => {}
                    Ok(answer) => return Ok(answer),
                }
            }
        };
        within(CALL_LIMIT, what, attempts).await?
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
        let Self {
            endpoints, prefix, ..
        } = self;
        f.debug_struct("EtcdRegistry")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .finish()
    }
}

/// What became of a future, if it ended in time.
async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let silent = |_| Error::registry(format!("{what}: no answer within {limit:?}"));
    timeout(limit, future).await.map_err(silent)
}

fn failed(what: &str, error: etcd_client::Error) -> Error {
    Error::Registry {
        message: format!("{what}: {error}"),
        source: Some(Box::new(error)),
    }
}
