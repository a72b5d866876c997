//! Snapshots of one service from etcd: a range read, then a watch ([watch API][1]) from its revision.
//!
//! The invariant: the entries are what etcd had at the last snapshot's revision plus all later events. When
//! that is in doubt (an error, silence, a compaction, a smaller revision, a minute's age), the next item is
//! a new snapshot. Backoff between errors is the caller's.
//!
//! [1]: https://etcd.io/docs/v3.5/learning/api/#watch-api

use std::time::Duration;

use etcd_client::{
    Client, EventType, GetOptions, GetResponse, KeyValue, ResponseHeader, WatchOptions,
    WatchResponse, WatchStream,
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::{EtcdRegistry, MAX_MESSAGE_BYTES, failed};
use crate::registry::entries::Entries;
use crate::registry::limit::within;
use crate::{Error, ServiceName, Snapshot};

/// The silence on a watch after which the first progress request is sent.
const SILENCE_LIMIT: Duration = Duration::from_secs(4);

/// The time that etcd has to respond to a progress request.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of progress requests without a response after which the watch is given up. There is a
/// second one because etcd drops a request without a response while it still sends earlier events.
const MAX_PROGRESS_REQUESTS: u32 = 2;

/// Time after which a serializable read, which may be stale, replaces the initial snapshot. It suffices for
/// one attempt at a dead endpoint and one at another.
const INITIAL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval of snapshots on a healthy watch.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Watches the keys of one service: takes a snapshot, watches from its revision, and takes another
/// snapshot after any error.
///
/// The watch starts at the snapshot's own revision R, not at R + 1. On a quiet etcd R + 1 is in the
/// future, and since 3.4.38, 3.5.22 and 3.6.2 etcd does not respond to a progress request of such a
/// watch, because a progress below the start would be wrong
/// ([etcd 20229](https://github.com/etcd-io/etcd/pull/20229), `progressIfSync` in
/// [`watchable_store.go`](https://github.com/etcd-io/etcd/blob/main/server/storage/mvcc/watchable_store.go)).
/// Nothing else differs: the events of R, which the snapshot contains, are sent again and dropped
/// ([`Follow::newer_events`]). Compaction up to R does no harm. etcd cancels a watch that starts before the
/// compacted revision, not one that starts at it; that such a watch could lack the deletions of R
/// before 3.5.18 ([etcd 19249](https://github.com/etcd-io/etcd/pull/19249)) does not matter here.
pub(super) struct Watcher {
    etcd: EtcdRegistry,
    prefix: String,
    entries: Entries,
    stage: Stage,
}

enum Stage {
    Initial,
    /// The last snapshot may be stale, because of this error.
    Disconnected(Error),
    Snapshot,
    Watch {
        revision: i64,
    },
    Follow(Box<Follow>),
}

struct Follow {
    stream: WatchStream,
    /// Revision of the snapshot. A smaller one means that another etcd took over.
    revision: i64,
    resync_at: Instant,
}

impl Watcher {
    pub(super) fn new(etcd: EtcdRegistry, service: ServiceName) -> Self {
        let prefix = etcd.service_prefix(&service);
        let entries = Entries::new(service, prefix.clone());
        Self {
            etcd,
            prefix,
            entries,
            stage: Stage::Initial,
        }
    }

    /// Returns the next snapshot. After an error, the next call takes a new one.
    ///
    /// A service spends nearly all of its time in `Follow`. The futures of the other stages are boxed: they
    /// are many times larger, and would be part of every service's task.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Snapshot) {
                Stage::Initial => return Box::pin(self.initial_snapshot()).await,
                Stage::Disconnected(error) => return Err(error),
                Stage::Snapshot => return Box::pin(self.snapshot()).await,
                Stage::Watch { revision } => {
                    let follow = Box::pin(self.watch(revision)).await?;
                    self.stage = Stage::Follow(Box::new(follow));
                }
                Stage::Follow(mut follow) => {
                    let first = follow.message().await?;
                    if let Some(snapshot) = self.follow(follow, first) {
                        return Ok(snapshot);
                    }
                }
            }
        }
    }

    /// Folds a message and all others that have come by now into one snapshot, if they change anything.
    fn follow(
        &mut self,
        mut follow: Box<Follow>,
        first: Option<WatchResponse>,
    ) -> Option<Snapshot> {
        let (mut next, mut changed) = (first, None);
        while let Some(message) = next {
            if self.fold(follow.newer_events(&message)) {
                changed = message.header().map(ResponseHeader::revision);
            }
            next = match follow.message().now_or_never() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    self.stage = Stage::Disconnected(error);
                    break;
                }
                None => {
                    self.stage = Stage::Follow(follow);
                    break;
                }
            }
        } // without a message a resync is due
        changed.map(|revision| self.entries.snapshot(revision))
    }

    /// Takes the initial snapshot. Without a leader it falls back to a serializable read, which any member
    /// serves alone: data that may be stale is better than none. The next item is then the error that
    /// prevented a consistent read, which marks the snapshot as stale.
    ///
    /// With a password there is no fallback: without a leader, etcd cannot check it.
    async fn initial_snapshot(&mut self) -> Result<Snapshot, Error> {
        let snapshot = within(INITIAL_SNAPSHOT_TIMEOUT, "list", self.snapshot());
        let snapshot = snapshot.await.flatten();
        let Err(error) = snapshot else {
            return snapshot;
        };
        let request = |client| get(client, &self.prefix, GetOptions::new().with_serializable());
        let read = self.etcd.connection.call_any_member("list", request).await;
        let Ok(response) = read else {
            self.stage = Stage::Initial;
            return Err(error);
        };
        self.stage = Stage::Disconnected(error);
        Ok(self.replace(&response).1)
    }

    async fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let request = |client| get(client, &self.prefix, GetOptions::new());
        let response = self.etcd.call("list", request).await?;
        let (revision, snapshot) = self.replace(&response);
        self.stage = Stage::Watch { revision };
        Ok(snapshot)
    }

    /// Replaces all entries. Returns the snapshot and its revision.
    fn replace(&mut self, response: &GetResponse) -> (i64, Snapshot) {
        let keys = response.kvs().iter();
        self.entries
            .replace(keys.map(|kv| (kv.key(), kv.value(), kv.mod_revision())));
        let revision = response.header().map_or(0, ResponseHeader::revision);
        (revision, self.entries.snapshot(revision))
    }

    async fn watch(&self, revision: i64) -> Result<Follow, Error> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision.max(1)) // 0 would mean "from now on"
            .with_fragment();
        let watch = |client: Client| {
            let options = options.clone();
            let mut watch = client
                .watch_client()
                .max_decoding_message_size(MAX_MESSAGE_BYTES);
            async move { watch.watch(&*self.prefix, Some(options)).await }
        };
        let stream = self.etcd.call("watch", watch).await?;
        let resync_at = Instant::now() + RESYNC_INTERVAL.mul_f64(0.8 + 0.4 * fastrand::f64());
        Ok(Follow {
            stream,
            revision,
            resync_at,
        })
    }

    /// Applies events to the entries. Returns true if there were any.
    fn fold<'a>(&mut self, events: impl Iterator<Item = (EventType, &'a KeyValue)>) -> bool {
        let mut changed = false;
        for (event_type, kv) in events {
            match event_type {
                EventType::Put => self.entries.put((kv.key(), kv.value(), kv.mod_revision())),
                EventType::Delete => self.entries.delete(kv.key()),
            }
            changed = true;
        }
        changed
    }
}

async fn get(
    client: Client,
    prefix: &str,
    options: GetOptions,
) -> Result<GetResponse, etcd_client::Error> {
    let mut kv = client
        .kv_client()
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    kv.get(prefix, Some(options.with_prefix())).await
}

impl Follow {
    /// Returns the next message, or `None` when a resync is due.
    ///
    /// # Errors
    /// When the watch is unusable. etcd announces a compacted or cancelled watch in a message and sends
    /// nothing afterwards; a frozen server or a half-open connection sends nothing at all.
    async fn message(&mut self) -> Result<Option<WatchResponse>, Error> {
        let mut requests = 0;
        let mut limit = SILENCE_LIMIT;
        while Instant::now() < self.resync_at {
            match timeout(limit, self.stream.message()).await {
                Ok(Ok(Some(message))) => return self.check(message).map(Some),
                Ok(Ok(None)) => return Err(Error::registry("watch: the stream ended")),
                Ok(Err(error)) => return Err(failed("watch", error)),
                Err(_) if requests == MAX_PROGRESS_REQUESTS => {
                    return Err(Error::registry("watch: etcd is silent"));
                }
                Err(_) => {
                    self.request_progress().await?;
                    requests += 1;
                    limit = PROGRESS_TIMEOUT;
                }
            }
        }
        Ok(None)
    }

    /// Requests a message on this watch, with or without events. Unlike a read, which any connection
    /// to etcd could carry, it shows that the watch itself is alive.
    async fn request_progress(&mut self) -> Result<(), Error> {
        let request = self.stream.request_progress();
        let sent = within(PROGRESS_TIMEOUT, "watch", request).await?;
        sent.map_err(|error| failed("watch", error))
    }

    /// Returns a message's events that are newer than the snapshot.
    fn newer_events<'a>(
        &'a self,
        message: &'a WatchResponse,
    ) -> impl Iterator<Item = (EventType, &'a KeyValue)> {
        let events = message.events().iter();
        let events = events.filter_map(|event| Some((event.event_type(), event.kv()?)));
        events.filter(|(_, kv)| kv.mod_revision() > self.revision)
    }

    fn check(&self, message: WatchResponse) -> Result<WatchResponse, Error> {
        if message.canceled() {
            let reason = match message.compact_revision() {
                0 => message.cancel_reason().to_owned(),
                revision => format!("history is compacted up to {revision}"),
            };
            return Err(Error::registry(format!("watch cancelled: {reason}")));
        }
        let revision = message.header().map_or(0, ResponseHeader::revision);
        if revision < self.revision {
            let reason = format!("revision {revision} after {}: another etcd", self.revision);
            return Err(Error::registry(format!("watch: {reason}")));
        }
        Ok(message)
    }
}
