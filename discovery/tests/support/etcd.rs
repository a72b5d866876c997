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

pub(crate) use super::server::free_port;
use super::server::{Daemon, program};

/// How long etcd may take for one request of a test.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A real etcd, on ports and with data of its own. Process and data are gone when this is dropped.
pub(crate) struct Etcd {
    name: String,
    port: u16,
    peer_port: u16,
    /// All members of its cluster, as etcd wants to be told. Most are alone.
    cluster: String,
    /// Flags of its own, and how to be let in by it.
    flags: Vec<String>,
    options: ConnectOptions,
    scheme: &'static str,
    daemon: Daemon,
}

impl Etcd {
    /// An etcd that answers.
    pub(crate) async fn start() -> Self {
        let mut etcd = Self::not_yet();
        etcd.run().await;
        etcd
    }

    /// One that has an address, and does not run yet.
    pub(crate) fn not_yet() -> Self {
        let [etcd] = Self::members();
        etcd
    }

    /// One with flags of its own, which may make it listen with TLS.
    pub(crate) fn with_flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
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

    /// How the clients of this test get in from now on.
    pub(crate) fn let_in(&mut self, options: ConnectOptions) {
        self.options = options;
    }

    /// Three that are one.
    pub(crate) async fn cluster() -> [Self; 3] {
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

    /// Starts it with the data it has, and waits until it answers.
    pub(crate) async fn run(&mut self) {
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
        self.is_up(self.answers()).await;
    }

    /// Puts an empty one in its place.
    pub(crate) async fn replace(&mut self) {
        self.lose_all();
        self.run().await;
    }

    /// Where it listens, as `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The registry it is, over a connection of its own.
    pub(crate) fn registry(&self) -> Arc<dyn NodeRegistry> {
        registry(&self.address())
    }

    /// A client that is not ours, for what others do to etcd.
    pub(crate) async fn client(&self) -> Client {
        let options = self.options.clone().with_timeout(CALL_LIMIT);
        let client = Client::connect([self.address()], Some(options)).await;
        client.expect("connecting waits for the first request")
    }

    pub(crate) async fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        let put = self.client().await.put(key, value, None).await;
        put.expect("etcd takes the value");
    }

    /// Many keys with their values, a hundred at a time.
    pub(crate) async fn put_all(&self, entries: impl Iterator<Item = (String, String)>) {
        let mut client = self.client().await;
        let puts: Vec<_> = entries
            .map(|(key, value)| TxnOp::put(key, value, None))
            .collect();
        for some in puts.chunks(100) {
            let put = client.txn(Txn::new().and_then(some)).await;
            put.expect("etcd takes the values");
        }
    }

    /// All its keys, sorted.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let entries = self.entries().await;
        let text = |entry: &KeyValue| String::from_utf8_lossy(entry.key()).into_owned();
        entries.iter().map(text).collect()
    }

    /// All it has, sorted by key.
    pub(crate) async fn entries(&self) -> Vec<KeyValue> {
        let all = GetOptions::new().with_all_keys();
        let answer = self.client().await.get("", Some(all)).await;
        answer.expect("etcd answers").take_kvs()
    }

    /// When its keys came to be: a key that is written again keeps this, unless it was gone.
    pub(crate) async fn created(&self) -> Vec<i64> {
        let entries = self.entries().await;
        entries.iter().map(KeyValue::create_revision).collect()
    }

    /// When its keys were last written.
    pub(crate) async fn written(&self) -> Vec<i64> {
        let entries = self.entries().await;
        entries.iter().map(KeyValue::mod_revision).collect()
    }

    /// Deletes all keys that begin so.
    pub(crate) async fn delete(&self, prefix: &str) {
        let all = DeleteOptions::new().with_prefix();
        let deleted = self.client().await.delete(prefix, Some(all)).await;
        deleted.expect("etcd deletes keys");
    }

    /// The leases that it granted and that live.
    pub(crate) async fn leases(&self) -> Vec<i64> {
        let leases = self.client().await.leases().await;
        let leases = leases.expect("etcd lists its leases");
        leases.leases().iter().map(LeaseStatus::id).collect()
    }

    pub(crate) async fn revoke_all_leases(&self) {
        let mut client = self.client().await;
        for lease in self.leases().await {
            let revoked = client.lease_revoke(lease).await;
            revoked.expect("etcd revokes a lease");
        }
    }

    /// Forgets all history: a watch that wants to begin before now cannot.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let now = client.get("any", None).await.expect("etcd answers");
        let revision = now.header().expect("an answer has a header").revision();
        let physically = CompactionOptions::new().with_physical();
        let compacted = client.compact(revision, Some(physically)).await;
        compacted.expect("etcd compacts its history");
    }

    async fn answers(&self) {
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

/// The registry at what may follow `etcd://`.
pub(crate) fn registry(rest: &str) -> Arc<dyn NodeRegistry> {
    registry_at(&format!("etcd://{rest}"))
}

pub(crate) fn registry_at(url: &str) -> Arc<dyn NodeRegistry> {
    connect(&url.parse().expect("a registry URL")).expect("etcd is built in")
}
