//! A fake etcd that fails as scripted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbKeyValue, PbKvServer, PbLeaseServer, PbWatchServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

mod rpc;
mod script;

use rpc::Rpc;
pub use script::{Call, End, Outcome, Script};

/// A fake etcd in this process, which fails as scripted: as the real one cannot be made to fail.
///
/// It implements what a registry uses: keys with revisions and history, leases that end, transactions
/// of one comparison and one put, watches. Everything else is unimplemented.
pub struct ScriptedEtcd {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    script: Arc<Mutex<Script>>,
    /// End with this.
    _tasks: JoinSet<()>,
}

/// Its data.
pub struct State {
    /// The revision of the last change.
    pub revision: i64,
    /// History before this revision is compacted.
    pub compacted: i64,
    /// All keys.
    pub keys: BTreeMap<Vec<u8>, PbKeyValue>,
    /// The events since `compacted`, in order.
    pub history: Vec<PbEvent>,
    /// The leases that live.
    pub leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    /// The number of times that an empty one took its place.
    pub replaced: u32,
}

/// A lease, which ends unless it is renewed.
pub struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl ScriptedEtcd {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(watch::Sender::new(State::beginning_at(1000)));
        let script = Arc::default();
        let rpc = Rpc::new(&state, &script);
        let server = Server::builder()
            .add_service(PbKvServer::new(rpc.clone()))
            .add_service(PbLeaseServer::new(rpc.clone()))
            .add_service(PbWatchServer::new(rpc))
            .serve_with_incoming(TcpIncoming::from(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(async { server.await.expect("it serves until it is dropped") });
        let leases = state.clone();
        tasks.spawn(async move {
            loop {
                sleep(Duration::from_millis(50)).await;
                leases.send_if_modified(State::end_leases);
            }
        });
        Self {
            address,
            state,
            script,
            _tasks: tasks,
        }
    }

    /// Returns its address as `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Fails at random from now on, as the seed decides.
    pub fn misbehave(&self, seed: u64) {
        *self.script() = Script::of(seed);
    }

    /// Works from now on. Streams that were to fail still do.
    pub fn behave(&self) {
        *self.script() = Script::default();
    }

    /// Returns the script, to add to it.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads its data.
    pub fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.state.borrow())
    }

    /// Changes its data, as another client would.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut changed = None;
        self.state
            .send_modify(|state| changed = Some(change(state)));
        changed.expect("it was called")
    }

    /// Replaces it by an empty one. Its streams end. No lease id is used again: etcd derives ids from
    /// the time and the member.
    pub fn replace(&self) {
        self.change(|state| {
            let replaced = state.replaced + 1;
            let last_lease = state.last_lease;
            *state = State::beginning_at(1);
            (state.replaced, state.last_lease) = (replaced, last_lease);
        });
    }
}

impl State {
    fn beginning_at(revision: i64) -> Self {
        Self {
            revision,
            compacted: 0,
            keys: BTreeMap::new(),
            history: Vec::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            replaced: 0,
        }
    }

    /// Writes a key, under a lease unless that is 0.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<(), Status> {
        if lease != 0 && !self.leases.contains_key(&lease) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        self.revision += 1;
        let before = self.keys.get(key);
        let written = PbKeyValue {
            key: key.to_vec(),
            value: value.to_vec(),
            lease,
            create_revision: before.map_or(self.revision, |before| before.create_revision),
            mod_revision: self.revision,
            version: before.map_or(1, |before| before.version + 1),
        };
        self.keys.insert(key.to_vec(), written.clone());
        self.happened(0, written);
        Ok(())
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: &[u8]) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            let deleted = PbKeyValue {
                key: key.to_vec(),
                mod_revision: self.revision,
                ..PbKeyValue::default()
            };
            self.happened(1, deleted);
        }
    }

    /// Adds an event to the history: 0 is a put, 1 a delete.
    fn happened(&mut self, kind: i32, kv: PbKeyValue) {
        self.history.push(PbEvent {
            r#type: kind,
            kv: Some(kv),
            prev_kv: None,
        });
    }

    /// Compacts the history up to the last revision, whose events etcd keeps.
    pub fn compact(&mut self) {
        let compacted = self.revision;
        let is_kept = |kv: &PbKeyValue| kv.mod_revision >= compacted;
        self.history
            .retain(|event| event.kv.as_ref().is_some_and(is_kept));
        self.compacted = compacted;
    }

    /// Grants a lease and returns its id.
    pub fn grant(&mut self, seconds: i64) -> i64 {
        self.last_lease += 1;
        let ttl = Duration::from_secs(seconds.max(1) as u64);
        let ends = Instant::now() + ttl;
        self.leases.insert(self.last_lease, Lease { ttl, ends });
        self.last_lease
    }

    /// Revokes a lease, which deletes its keys.
    pub fn revoke(&mut self, lease: i64) -> Result<(), Status> {
        self.leases
            .remove(&lease)
            .ok_or_else(|| Status::not_found("etcdserver: requested lease not found"))?;
        let of_it = self.keys.values().filter(|kv| kv.lease == lease);
        let keys: Vec<_> = of_it.map(|kv| kv.key.clone()).collect();
        keys.iter().for_each(|key| self.delete(key));
        Ok(())
    }

    /// Renews a lease and returns its TTL in seconds, 0 if it has ended.
    pub fn renew(&mut self, lease: i64) -> i64 {
        let Some(lease) = self.leases.get_mut(&lease) else {
            return 0;
        };
        lease.ends = Instant::now() + lease.ttl;
        lease.ttl.as_secs() as i64
    }

    fn end_leases(&mut self) -> bool {
        let now = Instant::now();
        let over = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        over.iter().for_each(|lease| drop(self.revoke(*lease)));
        !over.is_empty()
    }
}
