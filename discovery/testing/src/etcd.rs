//! A real etcd, alone or as a cluster.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use discovery::{NodeRegistry, connect};
use etcd_client::{
    Client, CompactionOptions, ConnectOptions, DeleteOptions, GetOptions, KeyValue, LeaseStatus,
    Txn, TxnOp,
};
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::server::{Daemon, free_port, program};

/// The limit of one request of a test.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A real etcd with its own ports and data. Its process ends and its data is removed on drop.
pub struct Etcd {
    name: String,
    port: u16,
    peer_port: u16,
    /// The members of its cluster, in etcd's syntax. Most are alone.
    cluster: String,
    /// Further flags, and the credentials of the test's clients.
    flags: Vec<String>,
    options: ConnectOptions,
    scheme: &'static str,
    daemon: Daemon,
}

impl Etcd {
    /// Starts one, and waits until it responds.
    pub async fn start() -> Self {
        let mut etcd = Self::not_yet();
        etcd.run().await;
        etcd
    }

    /// Returns one that has an address, and does not run yet.
    pub fn not_yet() -> Self {
        let [etcd] = Self::members();
        etcd
    }

    /// Adds flags, which may make it listen with TLS.
    pub fn with_flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.flags = flags.into_iter().map(str::to_owned).collect();
        if self
            .flags
            .iter()
            .any(|flag| flag.starts_with("--cert-file"))
        {
            self.scheme = "https";
        }
        self
    }

    /// Sets the credentials of the test's own clients.
    pub fn let_in(&mut self, options: ConnectOptions) {
        self.options = options;
    }

    /// Starts a cluster of three.
    pub async fn cluster() -> [Self; 3] {
        let mut members = Self::members();
        join_all(members.iter_mut().map(Self::run)).await;
        members
    }

    fn members<const COUNT: usize>() -> [Self; COUNT] {
        let mut members = [(); COUNT].map(|()| Self::member());
        let peer = |etcd: &Self| format!("{}=http://127.0.0.1:{}", etcd.name, etcd.peer_port);
        let cluster = members.iter().map(peer).collect::<Vec<_>>().join(",");
        for etcd in &mut members {
            etcd.cluster.clone_from(&cluster);
        }
        members
    }

    fn member() -> Self {
        let (port, peer_port) = (free_port(), free_port());
        let name = format!("discovery-etcd-{}-{port}", std::process::id());
        Self {
            daemon: Daemon::not_yet(&name),
            name,
            port,
            peer_port,
            cluster: String::new(),
            flags: Vec::new(),
            options: ConnectOptions::new(),
            scheme: "http",
        }
    }

    /// Starts it with its data, and waits until it responds.
    pub async fn run(&mut self) {
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new(program("etcd"));
        command
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(&self.flags)
            .arg("--data-dir")
            .arg(self.directory.join("data"));
        self.start(&mut command);
        self.is_up(self.responds()).await;
    }

    /// Replaces it by an empty one.
    pub async fn replace(&mut self) {
        self.lose_all();
        self.run().await;
    }

    /// Returns its address as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns it as a registry, over a new connection.
    pub fn registry(&self) -> Arc<dyn NodeRegistry> {
        registry(&self.address())
    }

    /// Returns a client that is not the library's, for what other programs do to etcd.
    pub async fn client(&self) -> Client {
        let options = self.options.clone().with_timeout(CALL_LIMIT);
        let client = Client::connect([self.address()], Some(options)).await;
        client.expect("connecting waits for the first request")
    }

    /// Writes a key without a lease.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        let put = self.client().await.put(key, value, None).await;
        put.expect("etcd takes the value");
    }

    /// Writes many keys, a hundred in a transaction.
    pub async fn put_all(&self, entries: impl Iterator<Item = (String, String)>) {
        let mut client = self.client().await;
        let puts: Vec<_> = entries
            .map(|(key, value)| TxnOp::put(key, value, None))
            .collect();
        for some in puts.chunks(100) {
            let put = client.txn(Txn::new().and_then(some)).await;
            put.expect("etcd takes the values");
        }
    }

    /// Returns all keys, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let entries = self.entries().await;
        let text = |entry: &KeyValue| String::from_utf8_lossy(entry.key()).into_owned();
        entries.iter().map(text).collect()
    }

    /// Returns all keys with their values, sorted by key.
    pub async fn entries(&self) -> Vec<KeyValue> {
        let all = GetOptions::new().with_all_keys();
        let response = self.client().await.get("", Some(all)).await;
        response.expect("etcd responds").take_kvs()
    }

    /// Returns the create revisions of all keys: one that is written again keeps its own.
    pub async fn created(&self) -> Vec<i64> {
        let entries = self.entries().await;
        entries.iter().map(KeyValue::create_revision).collect()
    }

    /// Returns the modification revisions of all keys.
    pub async fn written(&self) -> Vec<i64> {
        let entries = self.entries().await;
        entries.iter().map(KeyValue::mod_revision).collect()
    }

    /// Deletes all keys with this prefix.
    pub async fn delete(&self, prefix: &str) {
        let all = DeleteOptions::new().with_prefix();
        let deleted = self.client().await.delete(prefix, Some(all)).await;
        deleted.expect("etcd deletes keys");
    }

    /// Returns the ids of all leases.
    pub async fn leases(&self) -> Vec<i64> {
        let leases = self.client().await.leases().await;
        let leases = leases.expect("etcd lists its leases");
        leases.leases().iter().map(LeaseStatus::id).collect()
    }

    /// Revokes all leases.
    pub async fn revoke_all_leases(&self) {
        let mut client = self.client().await;
        for lease in self.leases().await {
            let revoked = client.lease_revoke(lease).await;
            revoked.expect("etcd revokes a lease");
        }
    }

    /// Compacts the history: no watch can start before now.
    pub async fn compact(&self) {
        let mut client = self.client().await;
        let now = client.get("any", None).await.expect("etcd responds");
        let revision = now.header().expect("a response has a header").revision();
        let physically = CompactionOptions::new().with_physical();
        let compacted = client.compact(revision, Some(physically)).await;
        compacted.expect("etcd compacts its history");
    }

    async fn responds(&self) {
        let mut client = self.client().await;
        while client.get("any", None).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Deref for Etcd {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// Returns the registry at an address: what follows `etcd://`.
pub fn registry(rest: &str) -> Arc<dyn NodeRegistry> {
    registry_at(&format!("etcd://{rest}"))
}

/// Returns the registry at a URL.
pub fn registry_at(url: &str) -> Arc<dyn NodeRegistry> {
    connect(&url.parse().expect("a registry URL")).expect("etcd is built in")
}
