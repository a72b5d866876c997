//! A node in Consul: a service with a [TTL check][1], which is passed at a third of the TTL.
//!
//! Consul contains a service's node in a watch while its check passes. The invariant: each registration has a
//! check id of its own, so a missing check means a new owner, and only the own check is failed before a
//! service is deregistered. Any error ends [`Registrar::maintain`], which is called again with backoff.
//!
//! [1]: https://developer.hashicorp.com/consul/docs/register/health-check/vm

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::agent::Agent;
use crate::registration::{Registrar, RegistrationStatus};
use crate::registry::limit::within;
use crate::{Error, ServiceNode};

/// Time after which Consul deregisters a service whose check fails. Its minimum is a minute.
const DEREGISTER_AFTER: &str = "1m";

/// Maximum time from a registration at the agent until the servers have it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps a node in Consul under a check: registers both, and passes the check periodically.
///
/// The id of a service is its address, the same for all owners. So each registration has a check with a
/// random id, which replaces the one before: a registration whose check is missing has a new owner.
pub(super) struct CheckRegistrar {
    agent: Arc<Agent>,
    node: ServiceNode,
    ttl: Duration,
    /// Id of the service.
    service: String,
    /// Id of the check.
    check: String,
    /// Set once the service was registered by this registration.
    owned: bool,
}

/// A service's check in the state of the servers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
}

impl CheckRegistrar {
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

    async fn try_maintain(&mut self, status: &RegistrationStatus) -> Result<Infallible, Error> {
        let agent = self.agent.clone();
        let registering = agent.registering().await;
        if self.owned && self.has_new_owner().await? {
            let service = &self.service;
            return Err(Error::registry(format!("{service} has a new owner")));
        }
        self.register().await?;
        self.owned = true;
        self.pass().await?; // registering does not reset a check that fails already
        within(SYNC_TIMEOUT, "register", self.synced()).await??;
        status.set_registered();
        drop(registering);
        loop {
            sleep(self.ttl / 3).await;
            let _short = agent.short().await;
            self.pass().await?;
        }
    }

    /// Passes the check.
    async fn pass(&self) -> Result<(), Error> {
        let pass = self.update("pass");
        if within(self.ttl / 3, "pass check", pass).await?? {
            Ok(())
        } else {
            Err(Error::registry("Consul has lost the check"))
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
                "Name": "passes for a TTL after each heartbeat",
                "TTL": format!("{}ms", self.ttl.as_millis()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            },
        });
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.agent.put(path, registration.to_string()).await?;
        Ok(())
    }

    /// Waits until the servers have the check, so that watches contain the node.
    async fn synced(&self) -> Result<(), Error> {
        let is_own = |check: &Check| check.check_id == self.check && check.status == "passing";
        let (mut index, mut checks) = self.checks(0).await?;
        while !checks.iter().any(is_own) {
            (index, checks) = self.checks(index).await?;
        }
        Ok(())
    }

    /// Returns true if another registration passes a check of the service.
    async fn has_new_owner(&self) -> Result<bool, Error> {
        let is_other = |check: &Check| check.check_id != self.check && check.status == "passing";
        Ok(self.checks(0).await?.1.iter().any(is_other))
    }

    async fn checks(&self, index: u64) -> Result<(u64, Vec<Check>), Error> {
        let filter = format!("ServiceID == \"{}\"", self.service);
        let filter = utf8_percent_encode(&filter, NON_ALPHANUMERIC);
        let path = format!("/v1/health/checks/{}?filter={filter}", self.node.service);
        self.agent.get(&path, index, SYNC_TIMEOUT).await
    }

    /// Sets the check to `pass` or `fail`. Returns false if it does not exist any more.
    async fn update(&self, status: &str) -> Result<bool, Error> {
        let path = format!("/v1/agent/check/{status}/{}", self.check);
        self.agent.put(&path, String::new()).await
    }
}

impl Registrar for CheckRegistrar {
    async fn maintain(&mut self, status: &RegistrationStatus) -> Error {
        match self.try_maintain(status).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Fails the check first, which removes the node from watches and cannot affect a new owner.
    /// Deregistering alone could.
    async fn deregister(self) -> Result<(), Error> {
        let _short = self.agent.short().await;
        if !self.update("fail").await? {
            return Ok(()); // deregistered already, or a new owner's
        }
        let service = utf8_percent_encode(&self.service, NON_ALPHANUMERIC);
        let path = format!("/v1/agent/service/deregister/{service}");
        self.agent.put(&path, String::new()).await?;
        Ok(())
    }
}
