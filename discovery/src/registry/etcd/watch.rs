use std::time::Duration;

use etcd_client::{
    EventType, GetOptions, ResponseHeader, WatchOptions, WatchResponse, WatchStream,
};
use tokio::time::{Instant, timeout};

use super::entries::Entries;
use super::{EtcdRegistry, MAX_MESSAGE_BYTES, failed, within};
use crate::{Error, ServiceName, Snapshot};

/// After this much silence etcd is asked whether it is there, and has as long again to answer.
const QUIET: Duration = Duration::from_secs(4);

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
    List,
    Watch { listed: i64 },
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
            stage: Stage::List,
        }
    }

    /// The next list. After an error, the next call begins with a new one.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::List) {
                Stage::List => return self.list().await,
                Stage::Watch { listed } => {
                    self.stage = Stage::Follow(Box::new(self.watch(listed).await?));
                }
                Stage::Follow(mut follow) => match follow.message().await? {
                    None => {} // time for a new list
                    Some(message) => {
                        let changed = !message.events().is_empty();
                        let revision = message.header().map_or(0, ResponseHeader::revision);
                        self.fold(&message);
                        self.stage = Stage::Follow(follow);
                        if changed {
                            return Ok(self.entries.snapshot(revision));
                        }
                    }
                },
            }
        }
    }

    async fn list(&mut self) -> Result<Snapshot, Error> {
        let prefix = &*self.prefix;
        let list = |client: etcd_client::Client| async move {
            let mut kv = client
                .kv_client()
                .max_decoding_message_size(MAX_MESSAGE_BYTES);
            kv.get(prefix, Some(GetOptions::new().with_prefix())).await
        };
        let answer = self.etcd.call("list", list).await?;
        let keys = answer
            .kvs()
            .iter()
            .map(|kv| (kv.key(), kv.value(), kv.mod_revision()));
        self.entries.replace(keys);
        let listed = answer.header().map_or(0, ResponseHeader::revision);
        self.stage = Stage::Watch { listed };
        Ok(self.entries.snapshot(listed))
    }

    async fn watch(&self, listed: i64) -> Result<Follow, Error> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(listed + 1)
            .with_fragment();
        let watch = |client: etcd_client::Client| {
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
