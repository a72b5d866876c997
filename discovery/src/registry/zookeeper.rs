//! ZooKeeper ([programmer's guide](https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html)):
//! a node is an ephemeral znode, which ends with the session that created it.
//!
//! `session.rs` keeps a znode, `watch.rs` streams snapshots, `sessions.rs` shares sessions between them, and
//! `claims.rs` records which registration owns a path. The invariant: a registration deletes no znode but
//! its own. Backoff is left to `registration.rs` and `service.rs`.

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
use session::SessionRegistrar;
use sessions::Sessions;
use watch::Watcher;

/// All permissions for the creator's user, read for all others.
static OWNER_ACLS: [Acl; 2] = [
    Acl::new_const(Permission::ALL, "auth", ""),
    Acl::new_const(Permission::READ, "world", "anyone"),
];

/// A ZooKeeper: znodes `{prefix}{service}/{ip:port}`, with the node's JSON as data.
///
/// With a user in its URL, the znodes it creates belong to that user: others may read them, and neither
/// change nor add any. ZooKeeper has no list of users: a user is a name and a password together, so the
/// first to create a service owns it, and another password is another user. All nodes under a prefix need
/// the same.
///
/// A registry has one session for all watches and one for all registrations of the same TTL. Clones share
/// them. A session ends with its last watch or registration.
#[derive(Clone)]
pub struct ZooKeeperRegistry {
    url: RegistryUrl,
    sessions: Arc<Sessions>,
    claims: Arc<Claims>,
}

impl ZooKeeperRegistry {
    /// Creates the registry of this URL. It connects at the first use.
    pub fn new(url: &RegistryUrl) -> Self {
        Self {
            url: url.clone(),
            sessions: Arc::new(Sessions::new(url.clone())),
            claims: Arc::default(),
        }
    }

    /// Returns the znode of a service, whose children are its nodes.
    fn path(&self, service: &ServiceName) -> String {
        let prefix = self.url.prefix();
        format!("/{}{service}", prefix.trim_start_matches('/'))
    }

    /// Returns the ACLs of new znodes.
    fn acls(&self) -> Acls<'static> {
        match self.url.access.user {
            Some(_) => Acls::new(&OWNER_ACLS),
            None => Acls::anyone_all(),
        }
    }
}

impl NodeRegistry for ZooKeeperRegistry {
    fn register(&self, node: ServiceNode, ttl: Duration) -> Registration {
        Registration::start(
            node.clone(),
            SessionRegistrar::new(self.clone(), &node, ttl),
        )
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
