use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use awc::Client;
use serde_json::{Value, json};
use testing::server::Server;

use super::{Backend, by_its_server};
use crate::system::get;

/// A Consul of one agent.
pub(crate) struct Consul(Server);

impl Consul {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, text) = get(&format!("http://{}{path}", self.0.address())).await?;
        anyhow::ensure!(status == 200, "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Whether Consul takes it.
    async fn change(&self, path: &str, body: &Value) -> anyhow::Result<bool> {
        let url = format!("http://{}{path}", self.0.address());
        let answer = Client::new().put(&url).send_json(body).await;
        let answer = answer.map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
        Ok(answer.status().is_success())
    }

    /// The ids in a table of the agent's.
    async fn ids(&self, table: &str) -> anyhow::Result<Vec<String>> {
        let table: BTreeMap<String, Value> =
            serde_json::from_value(self.get(&format!("/v1/agent/{table}")).await?)?;
        Ok(table.into_keys().collect())
    }

    async fn deregister_all(&self, table: &str, what: &str) -> anyhow::Result<()> {
        for id in self.ids(table).await? {
            let path = format!("/v1/agent/{what}/deregister/{id}");
            anyhow::ensure!(self.change(&path, &Value::Null).await?, "{path}");
        }
        Ok(())
    }
}

impl Backend for Consul {
    const SCHEME: &'static str = "consul";

    by_its_server!();

    fn not_yet() -> Self {
        Self(testing::consul::not_yet())
    }

    /// Those that have a check of their own. Without one, Consul lists a service whoever keeps it.
    async fn listed(&self) -> anyhow::Result<Vec<String>> {
        let list = self.get("/v1/health/service/greeter?passing").await?;
        let own = |check: &Value| check["ServiceID"] != "";
        let kept = |entry: &&Value| {
            entry["Checks"]
                .as_array()
                .is_some_and(|c| c.iter().any(own))
        };
        let ids = list.as_array().into_iter().flatten().filter(kept);
        let ids = ids.filter_map(|entry| entry["Service"]["ID"].as_str().map(str::to_owned));
        Ok(ids.collect())
    }

    /// What is written of a service is no text of anybody's: only what has an address fits, and
    /// that is where it is.
    async fn put(&self, service: &str, name: &str, value: &str) -> anyhow::Result<bool> {
        let value: Value = serde_json::from_str(value).unwrap_or_default();
        let ip = value["IP"]
            .as_str()
            .and_then(|ip| ip.parse::<IpAddr>().ok());
        let port = value["Port"].as_u64().and_then(|port| port.try_into().ok());
        let address = ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
        if address.is_none_or(|address| address.to_string() != name) {
            return Ok(false);
        }
        let entry = json!({
            "ID": name,
            "Name": service,
            "Address": value["IP"],
            "Port": value["Port"],
            "Meta": value["Tags"],
        });
        self.change("/v1/agent/service/register", &entry).await
    }

    async fn delete_all(&self) -> anyhow::Result<()> {
        self.deregister_all("services", "service").await
    }

    async fn expire_all(&self) -> anyhow::Result<()> {
        for id in self.ids("checks").await? {
            let path = format!("/v1/agent/check/fail/{id}");
            anyhow::ensure!(self.change(&path, &Value::Null).await?, "{path}");
        }
        self.deregister_all("checks", "check").await
    }
}
