//! The registry that a fault happens to: its server, and what others may do to what is in it.

pub(crate) mod consul;
#[cfg(feature = "zookeeper")]
pub(crate) mod zookeeper;

/// A registry's server. Faults that every registry has to survive know no more of it.
pub(crate) trait Backend: Sized + 'static {
    /// What its URLs begin with.
    const SCHEME: &'static str;

    /// Why [`expire_all`](Self::expire_all) cannot be done here, if it cannot.
    const CANNOT_EXPIRE: Option<&'static str> = None;

    /// One that has an address, and does not run yet.
    fn not_yet() -> Self;

    /// One that answers.
    async fn started() -> Self {
        let mut server = Self::not_yet();
        server.run().await;
        server
    }

    /// Starts it with the data it has, and waits until it answers.
    async fn run(&mut self);

    fn kill(&mut self);

    /// Puts an empty one in its place.
    async fn replace(&mut self);

    fn freeze(&self);

    fn thaw(&self);

    /// Where it listens, as `host:port`.
    fn address(&self) -> String;

    /// The names of a greeter's entries, as it has them itself.
    async fn listed(&self) -> anyhow::Result<Vec<String>>;

    /// Lists what nobody keeps, as another program would. Tells whether it can hold that at all.
    async fn put(&self, service: &str, name: &str, value: &str) -> anyhow::Result<bool>;

    /// Deletes all entries, and nothing else.
    async fn delete_all(&self) -> anyhow::Result<()>;

    /// Ends what keeps the entries, as if nobody had renewed it.
    async fn expire_all(&self) -> anyhow::Result<()>;
}

impl Backend for Etcd {
    const SCHEME: &'static str = "etcd";

    fn not_yet() -> Self {
        Etcd::not_yet()
    }

    async fn run(&mut self) {
        self.run().await;
    }

    fn kill(&mut self) {
        Daemon::kill(self);
    }

    async fn replace(&mut self) {
        self.replace().await;
    }

    fn freeze(&self) {
        Daemon::freeze(self);
    }

    fn thaw(&self) {
        Daemon::thaw(self);
    }

    fn address(&self) -> String {
        self.address()
    }

    async fn listed(&self) -> anyhow::Result<Vec<String>> {
        let keys = self.keys().await.into_iter();
        let names =
            keys.filter_map(|key| key.strip_prefix("/services/greeter/").map(str::to_owned));
        Ok(names.collect())
    }

    async fn put(&self, service: &str, name: &str, value: &str) -> anyhow::Result<bool> {
        self.put(&format!("/services/{service}/{name}"), value)
            .await;
        Ok(true)
    }

    async fn delete_all(&self) -> anyhow::Result<()> {
        self.delete("/").await;
        Ok(())
    }

    async fn expire_all(&self) -> anyhow::Result<()> {
        self.revoke_all_leases().await;
        Ok(())
    }
}

/// What a [`Server`](testing::server::Server) does by itself.
macro_rules! by_its_server {
    () => {
        async fn run(&mut self) {
            self.0.run().await;
        }

        fn kill(&mut self) {
            self.0.kill();
        }

        async fn replace(&mut self) {
            self.0.replace().await;
        }

        fn freeze(&self) {
            self.0.freeze();
        }

        fn thaw(&self) {
            self.0.thaw();
        }

        fn address(&self) -> String {
            self.0.address()
        }
    };
}
use by_its_server;
use testing::etcd::Etcd;
use testing::server::Daemon;
