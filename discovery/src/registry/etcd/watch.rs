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

/// How long the first list is waited for before one that may be stale will do: so long that a dead
/// endpoint leaves time to ask another.
const FIRST_LIMIT: Duration = Duration::from_secs(3);

/// How often the whole list is read although nothing seems wrong.
const RELIST: Duration = Duration::from_secs(60);

/// Follows the keys of one service: takes a snapshot, watches from its revision, and takes another
/// snapshot whenever anything at all is wrong.
///
/// The watch starts at the snapshot's own revision R, not at R + 1. On a quiet etcd R + 1 is in the
/// future, and since 3.4.38, 3.5.22 and 3.6.2 etcd does not respond to a progress request of such a
/// watch, because a progress below the start would be wrong
/// ([etcd 20229](https://github.com/etcd-io/etcd/pull/20229), `progressIfSync` in
/// [`watchable_store.go`](https://github.com/etcd-io/etcd/blob/main/server/storage/mvcc/watchable_store.go)).
/// Nothing else differs: the events of R, which the snapshot contains, are sent again and dropped
/// ([`Follow::news`]). Compaction up to R does no harm. etcd cancels a watch that starts before the
/// compacted revision, not one that starts at it; that such a watch could lack the deletions of R
/// before 3.5.18 ([etcd 19249](https://github.com/etcd-io/etcd/pull/19249)) does not matter here.
pub(super) struct Watcher {
    etcd: EtcdRegistry,
    prefix: String,
    entries: Entries,
    stage: Stage,
}

enum Stage {
    First,
    /// The list that was handed out may be stale by now, because of this.
    Away(Error),
    List,
    Watch {
        listed: i64,
    },
    Follow(Box<Follow>),
}

struct Follow {
    stream: WatchStream,
    /// The revision of the list. A smaller one means that etcd was replaced by another.
    listed: i64,
    relist: Instant,
}

impl Watcher {
    pub(super) fn new(etcd: EtcdRegistry, service: ServiceName) -> Self {
        let prefix = etcd.service_prefix(&service);
        let entries = Entries::new(service, prefix.clone());
        Self {
            etcd,
            prefix,
            entries,
            stage: Stage::First,
        }
    }

    /// The next list. After an error, the next call begins with a new one.
    ///
    /// Nearly all of its time it follows. Everything else is in boxes, or a service would hold the memory
    /// for that too, which is many times as much.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::List) {
                Stage::First => return Box::pin(self.first_list()).await,
                Stage::Away(error) => return Err(error),
                Stage::List => return Box::pin(self.list()).await,
                Stage::Watch { listed } => {
                    let follow = Box::pin(self.watch(listed)).await?;
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

    /// Folds a message, and all that have come by now, into one list, if they change it.
    fn follow(
        &mut self,
        mut follow: Box<Follow>,
        first: Option<WatchResponse>,
    ) -> Option<Snapshot> {
        let (mut next, mut changed) = (first, None);
        while let Some(message) = next {
            if self.fold(follow.news(&message)) {
                changed = message.header().map(ResponseHeader::revision);
            }
            next = match follow.message().now_or_never() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    self.stage = Stage::Away(error);
                    break;
                }
                None => {
                    self.stage = Stage::Follow(follow);
                    break;
                }
            }
        } // without a message it is time to read the list again
        changed.map(|revision| self.entries.snapshot(revision))
    }

    /// The first list of all. Without a leader nobody has the last word, but every member has what
    /// it heard last, and for who knows nothing that is good news. The next item is the error that
    /// stood in the way, so nobody takes it for the last word.
    ///
    /// A user with a password has to wait for a leader: without one, etcd cannot check it.
    async fn first_list(&mut self) -> Result<Snapshot, Error> {
        let list = within(FIRST_LIMIT, "list", self.list()).await.flatten();
        let Err(error) = list else { return list };
        // "Serializable" is etcd's word for an answer without asking the others: it may be stale.
        let request = |client| get(client, &self.prefix, GetOptions::new().with_serializable());
        let Ok(answer) = self.etcd.connection.ask_any("list", request).await else {
            self.stage = Stage::First;
            return Err(error);
        };
        self.stage = Stage::Away(error);
        Ok(self.replace(&answer).1)
    }

    async fn list(&mut self) -> Result<Snapshot, Error> {
        let request = |client| get(client, &self.prefix, GetOptions::new());
        let answer = self.etcd.call("list", request).await?;
        let (listed, list) = self.replace(&answer);
        self.stage = Stage::Watch { listed };
        Ok(list)
    }

    /// Takes a whole list, and tells its revision.
    fn replace(&mut self, answer: &GetResponse) -> (i64, Snapshot) {
        let keys = answer.kvs().iter();
        self.entries
            .replace(keys.map(|kv| (kv.key(), kv.value(), kv.mod_revision())));
        let listed = answer.header().map_or(0, ResponseHeader::revision);
        (listed, self.entries.snapshot(listed))
    }

    async fn watch(&self, listed: i64) -> Result<Follow, Error> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(listed.max(1)) // 0 is "from now on"
            .with_fragment();
        let watch = |client: Client| {
            let options = options.clone();
            let mut watch = client
                .watch_client()
                .max_decoding_message_size(MAX_MESSAGE_BYTES);
            async move { watch.watch(&*self.prefix, Some(options)).await }
        };
        let stream = self.etcd.call("watch", watch).await?;
        let relist = Instant::now() + RELIST.mul_f64(0.8 + 0.4 * fastrand::f64());
        Ok(Follow {
            stream,
            listed,
            relist,
        })
    }

    /// Applies events to the entries, and returns whether there were any.
    fn fold<'a>(&mut self, news: impl Iterator<Item = (EventType, &'a KeyValue)>) -> bool {
        let mut changed = false;
        for (event_type, kv) in news {
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
    /// The next message, or none when it is time to read the list again.
    ///
    /// # Errors
    /// When the watch is of no use any more. A compacted or cancelled one says so in a message and
    /// is silent afterwards; a frozen server or a half-open connection is only silent.
    async fn message(&mut self) -> Result<Option<WatchResponse>, Error> {
        let mut requests = 0;
        let mut limit = SILENCE_LIMIT;
        while Instant::now() < self.relist {
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
    fn news<'a>(
        &'a self,
        message: &'a WatchResponse,
    ) -> impl Iterator<Item = (EventType, &'a KeyValue)> {
        let events = message.events().iter();
        let events = events.filter_map(|event| Some((event.event_type(), event.kv()?)));
        events.filter(|(_, kv)| kv.mod_revision() > self.listed)
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
        if revision < self.listed {
            let reason = format!("revision {revision} after {}: another etcd", self.listed);
            return Err(Error::registry(format!("watch: {reason}")));
        }
        Ok(message)
    }
}
