//! ZooKeeper ([programmer's guide](https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html)):
//! a node is an ephemeral znode, which goes with the session that made it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use zookeeper_client::{Acl, Acls, Permission};

use super::{NodeRegistry, RegistryUrl, SnapshotStream};
use crate::{Error, Registration, ServiceName, ServiceNode};

mod claims;
mod session;
mod sessions;
mod watch;

use claims::Claims;
use session::SessionKeeper;
use sessions::Sessions;
use watch::Watcher;

/// Everything for who has the creator's password, reading for everybody.
static OWN: [Acl; 2] = [
    Acl::new_const(Permission::ALL, "auth", ""),
    Acl::new_const(Permission::READ, "world", "anyone"),
];

/// A ZooKeeper: znodes `{prefix}{service}/{ip:port}`, with the node's JSON as data.
///
/// With a user in its URL, what it creates is that user's: others may read it, and neither change it nor
/// add to it. ZooKeeper keeps no list of users: one is known by its name and password together, so
/// the first to create a service owns it, and another password is another user. All nodes under a
/// prefix need the same.
///
/// However many services are watched and nodes registered, a registry has one session for all watches
/// and one for all registrations of the same TTL. Clones share them. A session ends with its last
/// watch or registration.
#[derive(Clone)]
pub struct ZooKeeperRegistry {
    url: RegistryUrl,
    sessions: Arc<Sessions>,
    claims: Arc<Claims>,
}

impl ZooKeeperRegistry {
    /// The registry at this URL. Connecting happens at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            url: url.clone(),
            sessions: Arc::new(Sessions::new(url.clone())),
            claims: Arc::default(),
        }
    }

    /// The znode of a service, whose children are its nodes.
    fn path(&self, service: &ServiceName) -> String {
        let prefix = self.url.prefix();
        format!("/{}{service}", prefix.trim_start_matches('/'))
    }

    /// Whose that is which we create.
    fn acls(&self) -> Acls<'static> {
        match self.url.access.user {
            Some(_) => Acls::new(&OWN),
            None => Acls::anyone_all(),
        }
    }
}

impl NodeRegistry for ZooKeeperRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        Registration::keep(node.clone(), SessionKeeper::new(self.clone(), &node, ttl))
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

impl fmt::Debug for ZooKeeperRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperRegistry")
            .field("url", &self.url)
            .finish()
    }
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Registry {
        message: format!("{what}: {error}"),
        source: Some(Box::new(error)),
    }
}
