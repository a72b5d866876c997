//! Snapshots of one service from ZooKeeper: a [persistent recursive watch][1] on its znode.
//!
//! The invariant: the watch is set before the children are read, so that no change falls in between, and
//! after any event of the session the watch starts over with a new snapshot. Backoff between errors is the
//! caller's.
//!
//! [1]: https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html#sc_WatchPersistentRecursive

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

/// Interval of snapshots on a healthy watch.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Watches the children of one znode, in the session that all watches share: reads all of them, and then
/// each that an event names. After any event of the session it starts over with a new snapshot, because
/// persistent watches miss events during a reconnect
/// ([ZOOKEEPER-4698](https://issues.apache.org/jira/browse/ZOOKEEPER-4698)).
pub(super) struct Watcher {
    zookeeper: ZooKeeperRegistry,
    path: String,
    entries: Entries,
    /// Transaction id (zxid) of the latest change in the snapshot.
    revision: i64,
    follow: Option<Follow>,
    /// The last snapshot, unless an error came after it.
    known: Option<Snapshot>,
}

struct Follow {
    session: Arc<Session>,
    watcher: PersistentWatcher,
    resync_at: Instant,
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

    /// Returns the next snapshot that differs from the last. After an error, the next call starts over.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            let snapshot = match self.follow.take() {
                Some(follow) => self.follow(follow).await,
                None => self.begin().await,
            };
            let snapshot = snapshot.inspect_err(|_| self.known = None)?;
            if self
                .known
                .as_ref()
                .is_none_or(|known| !known.same_as(&snapshot))
            {
                self.known = Some(snapshot.clone());
                return Ok(snapshot);
            }
        }
    }

    /// Sets the watch, then reads the children.
    async fn begin(&mut self) -> Result<Snapshot, Error> {
        let session = self.zookeeper.sessions.get(Purpose::Watches).await?;
        let all = AddWatchMode::PersistentRecursive; // also on a znode that does not exist yet
        let watcher = session.watch(&self.path, all).await;
        let watcher = watcher.map_err(|error| failed("watch", error))?;
        self.read_all(session, watcher).await
    }

    async fn read_all(
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
                Err(ZkError::NoNode) => {} // an event will follow
                Err(error) => return Err(failed("read", error)),
            }
        }
        let written = entries.iter().map(|(_, _, zxid)| *zxid).max();
        self.revision = last.max(written.unwrap_or(0));
        let entries = entries.iter();
        self.entries
            .replace(entries.map(|(path, value, zxid)| (path.as_bytes(), &**value, *zxid)));
        let resync_at = Instant::now() + RESYNC_INTERVAL.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.follow = Some(Follow {
            session,
            watcher,
            resync_at,
        });
        Ok(self.entries.snapshot(self.revision))
    }

    /// Waits for an event, and reads the children that this and all other queued events name.
    async fn follow(&mut self, mut follow: Follow) -> Result<Snapshot, Error> {
        let event = timeout_at(follow.resync_at, follow.watcher.changed()).await;
        let Ok(event) = event else {
            return self.read_all(follow.session, follow.watcher).await;
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

    /// Returns the zxid of the last change of the children; 0 if the parent does not exist.
    async fn last_deletion(&self, client: &Client) -> Result<i64, Error> {
        let parent = client.check_stat(&self.path).await;
        let parent = parent.map_err(|error| failed("stat", error))?;
        Ok(parent.map_or(0, |parent| parent.pzxid))
    }

    /// Returns the path of the child that an event names, `None` for other paths.
    ///
    /// # Errors
    /// If it is an event of the session.
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

/// Reads these znodes, all at once.
async fn read(client: &Client, paths: BTreeSet<String>) -> Vec<(String, Data)> {
    join_all(paths.into_iter().map(async |path| {
        let data = client.get_data(&path).await;
        (path, data)
    }))
    .await
}
