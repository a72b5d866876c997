use std::time::Duration;

use testing::server::Server;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{Backend, by_its_server};

/// A ZooKeeper, alone.
pub(crate) struct ZooKeeper(Server);

/// The longest data that its server takes in one request, with some room for the request.
const MAX_DATA: usize = 1_000_000;

impl ZooKeeper {
    async fn client(&self) -> anyhow::Result<Client> {
        let connector = Client::connector().with_session_timeout(Duration::from_secs(10));
        Ok(connector.connect(&self.0.address()).await?)
    }
}

impl Backend for ZooKeeper {
    const SCHEME: &'static str = "zookeeper";

    const CANNOT_EXPIRE: Option<&'static str> =
        Some("a session is its client's alone: only that and time can end it");

    by_its_server!();

    fn not_yet() -> Self {
        Self(testing::zookeeper::not_yet())
    }

    async fn listed(&self) -> anyhow::Result<Vec<String>> {
        match self
            .client()
            .await?
            .list_children("/services/greeter")
            .await
        {
            Err(Error::NoNode) => Ok(Vec::new()),
            names => Ok(names?),
        }
    }

    async fn put(&self, service: &str, name: &str, value: &str) -> anyhow::Result<bool> {
        if name.is_empty() || name == ".." || value.len() > MAX_DATA {
            return Ok(false);
        }
        let client = self.client().await?;
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        client
            .mkdir(&format!("/services/{service}"), &persistent)
            .await?;
        let path = format!("/services/{service}/{name}");
        client.create(&path, value.as_bytes(), &persistent).await?;
        Ok(true)
    }

    async fn delete_all(&self) -> anyhow::Result<()> {
        let client = self.client().await?;
        for name in self.listed().await? {
            client
                .delete(&format!("/services/greeter/{name}"), None)
                .await?;
        }
        Ok(())
    }

    async fn expire_all(&self) -> anyhow::Result<()> {
        anyhow::bail!("sessions cannot be ended by others")
    }
}
