use std::time::Duration;

use etcd_client::{
    Client, EventType, GetOptions, GetResponse, ResponseHeader, WatchOptions, WatchResponse,
    WatchStream,
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::{EtcdRegistry, MAX_MESSAGE_BYTES, failed};
use crate::registry::entries::Entries;
use crate::registry::limit::within;
use crate::{Error, ServiceName, Snapshot};

/// After this much silence etcd is asked whether it is there, and has as long again to answer.
const QUIET: Duration = Duration::from_secs(4);

/// How long the first list is waited for before one that may be stale will do: so long that a dead
/// endpoint leaves time to ask another.
const FIRST_LIMIT: Duration = Duration::from_secs(3);

/// How often the whole list is read although nothing seems wrong.
const RELIST: Duration = Duration::from_secs(60);

/// Follows the keys of one service: reads the list, watches from the revision after it, and reads
/// the list again whenever anything at all is wrong.
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
            if !message.events().is_empty() {
                changed = message.header().map(ResponseHeader::revision);
                self.fold(&message);
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
            .with_start_revision(listed + 1)
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

    fn fold(&mut self, message: &WatchResponse) {
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => self.entries.put((kv.key(), kv.value(), kv.mod_revision())),
                EventType::Delete => self.entries.delete(kv.key()),
            }
        }
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
        let mut asked = false;
        while Instant::now() < self.relist {
            match timeout(QUIET, self.stream.message()).await {
                Ok(Ok(Some(message))) => return self.check(message).map(Some),
                Ok(Ok(None)) => return Err(Error::registry("watch: the stream ended")),
                Ok(Err(error)) => return Err(failed("watch", error)),
                Err(_) if asked => return Err(Error::registry("watch: etcd is silent")),
                Err(_) => {
                    let ask = within(QUIET, "watch", self.stream.request_progress()).await?;
                    ask.map_err(|error| failed("watch", error))?;
                    asked = true;
                }
            }
        }
        Ok(None)
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
