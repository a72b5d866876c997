use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use zookeeper_client::{
    AddWatchMode, Client, Error as ZkError, EventType, PersistentWatcher, Stat, WatchedEvent,
};

use super::sessions::{Purpose, Session};
use super::{ZooKeeperRegistry, failed};
use crate::registry::entries::Entries;
use crate::{Error, ServiceName, Snapshot};

/// How often the whole list is read although nothing seems wrong.
const RELIST: Duration = Duration::from_secs(60);

/// Follows the children of one znode, in the session that all watches share: watches all of them, reads
/// the list, and then each that an event names. After any trouble with the session the watch begins
/// again with a new list: what happens while a client is connected anew, a lasting watch does not tell
/// ([ZOOKEEPER-4698](https://issues.apache.org/jira/browse/ZOOKEEPER-4698)).
pub(super) struct Watcher {
    zookeeper: ZooKeeperRegistry,
    path: String,
    entries: Entries,
    /// Of the latest change that is in the list, in the whole ZooKeeper's count.
    revision: i64,
    follow: Option<Follow>,
    /// The last list, unless an error came after it.
    known: Option<Snapshot>,
}

struct Follow {
    session: Arc<Session>,
    watcher: PersistentWatcher,
    relist: Instant,
}

type Data = Result<(Vec<u8>, Stat), ZkError>;

impl Watcher {
    pub(super) fn new(zookeeper: ZooKeeperRegistry, service: ServiceName) -> Self {
        let path = zookeeper.path(&service);
        Self {
            zookeeper,
            entries: Entries::new(service, format!("{path}/")),
            path,
            revision: 0,
            follow: None,
            known: None,
        }
    }

    /// The next list that is another than the last. After an error, the next call begins anew.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            let list = match self.follow.take() {
                Some(follow) => self.follow(follow).await,
                None => self.begin().await,
            };
            let list = list.inspect_err(|_| self.known = None)?;
            if self
                .known
                .as_ref()
                .is_none_or(|known| !known.same_as(&list))
            {
                self.known = Some(list.clone());
                return Ok(list);
            }
        }
    }

    /// Watches first and reads then, so that nothing is missed in between.
    async fn begin(&mut self) -> Result<Snapshot, Error> {
        let session = self.zookeeper.sessions.get(Purpose::Watches).await?;
        let all = AddWatchMode::PersistentRecursive; // also if there is no such znode yet
        let watcher = session.watch(&self.path, all).await;
        let watcher = watcher.map_err(|error| failed("watch", error))?;
        self.list(session, watcher).await
    }

    async fn list(
        &mut self,
        session: Arc<Session>,
        watcher: PersistentWatcher,
    ) -> Result<Snapshot, Error> {
        let (names, last) = match session.get_children(&self.path).await {
            Ok((names, stat)) => (names, stat.pzxid),
            Err(ZkError::NoNode) => (Vec::new(), 0),
            Err(error) => return Err(failed("list", error)),
        };
        let paths = names.iter().map(|name| format!("{}/{name}", self.path));
        let mut entries = Vec::new();
        for (path, data) in read(&session, paths.collect()).await {
            match data {
                Ok((value, stat)) => entries.push((path, value, stat.mzxid)),
                Err(ZkError::NoNode) => {} // an event will say so
                Err(error) => return Err(failed("read", error)),
            }
        }
        let written = entries.iter().map(|(_, _, zxid)| *zxid).max();
        self.revision = last.max(written.unwrap_or(0));
        let entries = entries.iter();
        self.entries
            .replace(entries.map(|(path, value, zxid)| (path.as_bytes(), &**value, *zxid)));
        let relist = Instant::now() + RELIST.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.follow = Some(Follow {
            session,
            watcher,
            relist,
        });
        Ok(self.entries.snapshot(self.revision))
    }

    /// Waits for an event, and reads what it and all others that have come by now are about.
    async fn follow(&mut self, mut follow: Follow) -> Result<Snapshot, Error> {
        let event = timeout_at(follow.relist, follow.watcher.changed()).await;
        let Ok(event) = event else {
            return self.list(follow.session, follow.watcher).await;
        };
        let (mut next, mut changed) = (Some(event), BTreeSet::new());
        while let Some(event) = next {
            changed.extend(self.child(event)?);
            next = follow.watcher.changed().now_or_never();
        }
        for (path, data) in read(&follow.session, changed).await {
            match data {
                Ok((value, stat)) => {
                    self.revision = self.revision.max(stat.mzxid);
                    self.entries.put((path.as_bytes(), &value, stat.mzxid));
                }
                Err(ZkError::NoNode) => {
                    self.entries.delete(path.as_bytes());
                    self.revision = self
                        .revision
                        .max(self.last_deletion(&follow.session).await?);
                }
                Err(error) => return Err(failed("read", error)),
            }
        }
        self.follow = Some(follow);
        Ok(self.entries.snapshot(self.revision))
    }

    /// When a child was deleted, which only the parent knows; 0 if that is gone too.
    async fn last_deletion(&self, client: &Client) -> Result<i64, Error> {
        let parent = client.check_stat(&self.path).await;
        let parent = parent.map_err(|error| failed("look", error))?;
        Ok(parent.map_or(0, |parent| parent.pzxid))
    }

    /// The child that an event is about, if it is about one.
    fn child(&self, event: WatchedEvent) -> Result<Option<String>, Error> {
        if event.event_type == EventType::Session {
            let state = event.session_state;
            return Err(Error::registry(format!("watch: the session is {state}")));
        }
        let name = event.path.strip_prefix(&self.path);
        let name = name.and_then(|name| name.strip_prefix('/'));
        let is_child = name.is_some_and(|name| !name.contains('/'));
        Ok(is_child.then_some(event.path))
    }
}

/// The data of these, all asked for at once.
async fn read(client: &Client, paths: BTreeSet<String>) -> Vec<(String, Data)> {
    join_all(paths.into_iter().map(async |path| {
        let data = client.get_data(&path).await;
        (path, data)
    }))
    .await
}
