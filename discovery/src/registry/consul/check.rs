use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::agent::Agent;
use crate::registration::{Keeper, Registered};
use crate::registry::limit::within;
use crate::{Error, ServiceNode};

/// How long a service that no check calls alive stays in Consul, unlisted: its least is a minute.
const REAPED_AFTER: &str = "1m";

/// How long the servers may take to know what their agent was told.
const SYNC_LIMIT: Duration = Duration::from_secs(3);

/// Keeps a node in Consul under a check: registers both, and calls the node alive again and again.
/// Consul lists a service while its check passes, and the check does for a time to live after each
/// call.
///
/// A service has one id, whoever registers it. So each of us has a check with an id of its own,
/// which replaces the one that was there: who finds its check gone has a successor.
pub(super) struct CheckKeeper {
    agent: Arc<Agent>,
    node: ServiceNode,
    ttl: Duration,
    /// The ids of the service and of the check.
    service: String,
    check: String,
    /// Whether the service was ours once.
    owned: bool,
}

/// A service's check, as Consul's servers have it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
}

impl CheckKeeper {
    pub(super) fn new(agent: Arc<Agent>, node: ServiceNode, ttl: Duration) -> Self {
        Self {
            agent,
            ttl,
            service: node.address.to_string(),
            check: format!("ttl:{:016x}", fastrand::u64(..)),
            node,
            owned: false,
        }
    }

    async fn try_hold(&mut self, registered: &Registered) -> Result<Infallible, Error> {
        let agent = self.agent.clone();
        let registering = agent.registering().await;
        if self.owned && self.has_successor().await? {
            let service = &self.service;
            return Err(Error::registry(format!(
                "{service} is another process's now"
            )));
        }
        self.register().await?;
        self.owned = true;
        self.pass().await?; // a check that was there and failed goes on failing
        within(SYNC_LIMIT, "register", self.listed()).await??;
        registered.now();
        drop(registering);
        loop {
            sleep(self.ttl / 3).await;
            let _short = agent.short().await;
            self.pass().await?;
        }
    }

    /// Calls the node alive.
    async fn pass(&self) -> Result<(), Error> {
        let pass = self.update("pass");
        match within(self.ttl / 3, "pass check", pass).await?? {
            true => Ok(()),
            false => Err(Error::registry("Consul does not know the check any more")),
        }
    }

    async fn register(&self) -> Result<(), Error> {
        let ServiceNode {
            service,
            address,
            tags,
            ..
        } = &self.node;
        let registration = json!({
            "ID": self.service,
            "Name": service.as_str(),
            "Address": address.ip(),
            "Port": address.port(),
            "Meta": tags,
            "Check": {
                "CheckID": self.check,
                "Name": "alive for a time to live after each sign of life",
                "TTL": format!("{}ms", self.ttl.as_millis()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": REAPED_AFTER,
            },
        });
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.agent.put(path, registration.to_string()).await?;
        Ok(())
    }

    /// Waits until the servers have what the agent was told, so that whoever watches sees it.
    async fn listed(&self) -> Result<(), Error> {
        let ours = |check: &Check| check.check_id == self.check && check.status == "passing";
        let (mut index, mut checks) = self.checks(0).await?;
        while !checks.iter().any(ours) {
            (index, checks) = self.checks(index).await?;
        }
        Ok(())
    }

    /// Whether somebody else calls the service alive.
    async fn has_successor(&self) -> Result<bool, Error> {
        let others = |check: &Check| check.check_id != self.check && check.status == "passing";
        Ok(self.checks(0).await?.1.iter().any(others))
    }

    async fn checks(&self, index: u64) -> Result<(u64, Vec<Check>), Error> {
        let filter = format!("ServiceID == \"{}\"", self.service);
        let filter = utf8_percent_encode(&filter, NON_ALPHANUMERIC);
        let path = format!("/v1/health/checks/{}?filter={filter}", self.node.service);
        self.agent.get(&path, index, SYNC_LIMIT).await
    }

    /// Tells the check `pass` or `fail`, and whether it is still ours.
    async fn update(&self, status: &str) -> Result<bool, Error> {
        let path = format!("/v1/agent/check/{status}/{}", self.check);
        self.agent.put(&path, String::new()).await
    }
}

impl Keeper for CheckKeeper {
    async fn hold(&mut self, registered: &Registered) -> Error {
        match self.try_hold(registered).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Lets the check fail first, which is off the list and can only be ours. Deregistering alone
    /// could hit a successor.
    async fn leave(self) -> Result<(), Error> {
        let _short = self.agent.short().await;
        if !self.update("fail").await? {
            return Ok(()); // gone already, or a successor's
        }
        let service = utf8_percent_encode(&self.service, NON_ALPHANUMERIC);
        let path = format!("/v1/agent/service/deregister/{service}");
        self.agent.put(&path, String::new()).await?;
        Ok(())
    }
}
