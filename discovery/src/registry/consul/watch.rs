use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::agent::{Agent, Watch};
use crate::registry::entries::Entries;
use crate::{Error, ServiceName, Snapshot};

/// How long Consul may keep a request for news, more or less by a fifth. A silent agent is noticed
/// after this and the time an answer may take.
const WAIT: Duration = Duration::from_secs(4);

/// How long to wait at most after an answer without news: on the way to Consul's servers, somebody
/// else's changes may be taken for this service's.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows a service with [blocking queries][1]: each asks for a list later than the last.
///
/// With more services than connections for them, watches take turns: a change is then seen at the
/// watch's next turn, up to two seconds later with 500 services.
///
/// [1]: https://developer.hashicorp.com/consul/api-docs/features/blocking
pub(super) struct Watcher {
    watch: Watch,
    path: String,
    entries: Entries,
    /// How late the last list was. 0 asks for what is now.
    index: u64,
    /// The last list, unless an error came after it.
    known: Option<Snapshot>,
}

/// What Consul says of a service that is alive.
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

    /// The next list that is another than the last. After an error, the next call begins anew.
    pub(super) async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            let list = match self.list().await {
                Ok(list) => list,
                Err(error) => {
                    (self.index, self.known) = (0, None);
                    return Err(error);
                }
            };
            if self
                .known
                .as_ref()
                .is_none_or(|known| !known.same_as(&list))
            {
                self.known = Some(list.clone());
                return Ok(list);
            }
            sleep(PAUSE.mul_f64(fastrand::f64())).await;
        }
    }

    async fn list(&mut self) -> Result<Snapshot, Error> {
        let wait = WAIT.mul_f64(0.8 + 0.4 * fastrand::f64());
        let turn = self.watch.turn().await;
        let answer = turn.get(&self.path, self.index, wait).await;
        let (index, instances): (u64, Vec<Instance>) = answer?;
        self.index = later(self.index, index);
        let entries: Vec<_> = instances.iter().map(Instance::entry).collect();
        let entries = entries.iter();
        self.entries
            .replace(entries.map(|(key, value, at)| (key.as_bytes(), value.as_bytes(), *at)));
        Ok(self.entries.snapshot(index as i64))
    }
}

/// The index to ask with, by Consul's rules for clients: a smaller one than before is that of
/// another Consul, of which nothing is known, and 0 would never wait.
fn later(before: u64, index: u64) -> u64 {
    if index < before { 0 } else { index.max(1) }
}

impl Instance {
    /// The service as other registries have it: under its address, as the article's JSON.
    fn entry(&self) -> (String, String, i64) {
        let service = &self.service;
        // A service without an address is where its agent is.
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
    fn an_index_that_went_back_asks_for_what_is_now_and_none_asks_without_waiting_twice() {
        assert_eq!(later(0, 7), 7);
        assert_eq!(later(7, 7), 7);
        assert_eq!(later(7, 9), 9);
        assert_eq!(later(7, 3), 0);
        assert_eq!(later(0, 0), 1);
    }

    #[test]
    fn a_service_without_an_address_is_where_its_agent_is() {
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
