//! Snapshots of one service from Consul, by [blocking queries][1].
//!
//! Each query waits for an index larger than the last. The invariant is that of Consul's rules for clients:
//! a smaller index restarts the query from 0, and no query has index 0 twice in a row. Connections and
//! turns are managed in `agent.rs`, backoff between errors is the caller's.
//!
//! [1]: https://developer.hashicorp.com/consul/api-docs/features/blocking

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::agent::{Agent, Watch};
use crate::registry::entries::Entries;
use crate::{Error, ServiceName, Snapshot};

/// The `wait` of a blocking query, with a jitter of a fifth. A frozen agent is detected after this and the
/// response timeout.
const BLOCKING_QUERY_WAIT: Duration = Duration::from_secs(4);

/// Maximum pause after a response without a change. Consul also wakes a query for changes of other
/// services.
const MAX_POLL_JITTER: Duration = Duration::from_millis(200);

/// Watches one service.
///
/// With more services than connections, watches take turns: a change is then seen at the watch's next
/// turn, up to two seconds later with 500 services.
pub(super) struct Watcher {
    watch: Watch,
    path: String,
    entries: Entries,
    /// Index of the last response. A query with 0 returns the current state at once.
    index: u64,
    /// The last snapshot, unless an error came after it.
    known: Option<Snapshot>,
}

/// A service with a passing check, as the health API returns it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Host,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Host {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "Service")]
    name: String,
    address: String,
    port: i64,
    #[serde(default)] // since Consul 1.0.7
    meta: Value,
    modify_index: i64,
}

impl Watcher {
    pub(super) fn new(agent: Arc<Agent>, service: ServiceName) -> Self {
        Self {
            watch: Watch::new(agent),
            path: format!("/v1/health/service/{service}?passing=true"),
            entries: Entries::new(service, String::new()),
            index: 0,
            known: None,
        }
    }

    /// Returns the next snapshot that differs from the last. After an error, the next call starts over.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            let snapshot = match self.query().await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    (self.index, self.known) = (0, None);
                    return Err(error);
                }
            };
            if self
                .known
                .as_ref()
                .is_none_or(|known| !known.same_as(&snapshot))
            {
                self.known = Some(snapshot.clone());
                return Ok(snapshot);
            }
            sleep(MAX_POLL_JITTER.mul_f64(fastrand::f64())).await;
        }
    }

    async fn query(&mut self) -> Result<Snapshot, Error> {
        let wait = BLOCKING_QUERY_WAIT.mul_f64(0.8 + 0.4 * fastrand::f64());
        let turn = self.watch.turn().await;
        let response = turn.get(&self.path, self.index, wait).await;
        let (index, instances): (u64, Vec<Instance>) = response?;
        self.index = next_index(self.index, index);
        let entries: Vec<_> = instances.iter().map(Instance::entry).collect();
        let entries = entries.iter();
        self.entries
            .replace(entries.map(|(key, value, at)| (key.as_bytes(), value.as_bytes(), *at)));
        Ok(self.entries.snapshot(index as i64))
    }
}

/// Returns the index of the next query, by Consul's rules for clients: a smaller index than before is that
/// of another Consul, so the query starts over; 0 would never wait.
fn next_index(before: u64, index: u64) -> u64 {
    if index < before { 0 } else { index.max(1) }
}

impl Instance {
    /// Returns the service in the form of other registries: its address as key, the article's JSON as value.
    fn entry(&self) -> (String, String, i64) {
        let service = &self.service;
        // A service without an address has that of its agent.
        let ip = match service.address.as_str() {
            "" => &self.node.address,
            address => address,
        };
        let key = match (ip.parse::<IpAddr>(), u16::try_from(service.port)) {
            (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
            _ => format!("{ip}:{}", service.port),
        };
        let value = json!({
            "ServiceName": service.name,
            "IP": ip,
            "Port": service.port,
            "Tags": service.meta,
        });
        (key, value.to_string(), service.modify_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_index_restarts_the_query() {
        assert_eq!(next_index(0, 7), 7);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(7, 3), 0);
        assert_eq!(next_index(0, 0), 1);
    }

    #[test]
    fn a_service_without_address_has_its_agents() {
        let instance = |address: &str| Instance {
            node: Host {
                address: "10.0.0.9".into(),
            },
            service: Service {
                name: "greeter".into(),
                address: address.into(),
                port: 80,
                meta: Value::Null,
                modify_index: 1,
            },
        };
        assert_eq!(instance("").entry().0, "10.0.0.9:80");
        assert_eq!(instance("2001:db8::1").entry().0, "[2001:db8::1]:80");
        assert_eq!(instance("greeter.local").entry().0, "greeter.local:80");
    }
}
