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

mod fate;
mod rpc;

use fate::Fate;
pub(crate) use fate::{Call, End, Outcome};
use rpc::Rpc;

/// A stand-in for etcd in this process, which fails as the real one cannot be made to fail.
///
/// It knows what a registry uses: keys with revisions and history, leases that end, transactions of
/// one comparison and one put, watches. Everything else is unimplemented.
pub(crate) struct Double {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    fate: Arc<Mutex<Fate>>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

/// What it knows.
pub(crate) struct State {
    pub(crate) revision: i64,
    /// History before this revision is forgotten.
    pub(crate) compacted: i64,
    pub(crate) keys: BTreeMap<Vec<u8>, PbKeyValue>,
    pub(crate) history: Vec<PbEvent>,
    pub(crate) leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    /// How often another one took its place.
    pub(crate) replaced: u32,
}

pub(crate) struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl Double {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(watch::Sender::new(State::beginning_at(1000)));
        let fate = Arc::default();
        let rpc = Rpc::new(&state, &fate);
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
            fate,
            _tasks: tasks,
        }
    }

    /// Where it listens, as `host:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Fails now and then, as the seed decides.
    pub(crate) fn misbehave(&self, seed: u64) {
        *self.fate() = Fate::of(seed);
    }

    /// Does what it should. Streams that were to fail still do.
    pub(crate) fn behave(&self) {
        *self.fate() = Fate::default();
    }

    /// What goes wrong in it.
    pub(crate) fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is true of it now.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.state.borrow())
    }

    /// Does what somebody else would.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut changed = None;
        self.state
            .send_modify(|state| changed = Some(change(state)));
        changed.expect("it was called")
    }

    /// Puts an empty one in its place. Its streams end. No lease has the number of an old one: etcd
    /// makes them of the time and the member.
    pub(crate) fn replace(&self) {
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

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<(), Status> {
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

    pub(crate) fn delete(&mut self, key: &[u8]) {
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

    /// Keeps an event: 0 is a put, 1 a delete.
    fn happened(&mut self, kind: i32, kv: PbKeyValue) {
        self.history.push(PbEvent {
            r#type: kind,
            kv: Some(kv),
            prev_kv: None,
        });
    }

    /// Forgets all history before the last revision, whose events etcd keeps.
    pub(crate) fn compact(&mut self) {
        let compacted = self.revision;
        let is_kept = |kv: &PbKeyValue| kv.mod_revision >= compacted;
        self.history
            .retain(|event| event.kv.as_ref().is_some_and(is_kept));
        self.compacted = compacted;
    }

    pub(crate) fn grant(&mut self, seconds: i64) -> i64 {
        self.last_lease += 1;
        let ttl = Duration::from_secs(seconds.max(1) as u64);
        let ends = Instant::now() + ttl;
        self.leases.insert(self.last_lease, Lease { ttl, ends });
        self.last_lease
    }

    /// Ends a lease, which takes its keys with it.
    pub(crate) fn revoke(&mut self, lease: i64) -> Result<(), Status> {
        self.leases
            .remove(&lease)
            .ok_or_else(|| Status::not_found("etcdserver: requested lease not found"))?;
        let of_it = self.keys.values().filter(|kv| kv.lease == lease);
        let keys: Vec<_> = of_it.map(|kv| kv.key.clone()).collect();
        keys.iter().for_each(|key| self.delete(key));
        Ok(())
    }

    /// Its time to live in seconds, from now on; 0 if it is gone.
    pub(crate) fn renew(&mut self, lease: i64) -> i64 {
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
