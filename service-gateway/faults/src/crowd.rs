//! A service of ten thousand nodes that never rests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::rt::time::{interval, sleep, timeout};
use anyhow::Context;
use awc::Client;
use discovery::ServiceNode;
use etcd_client::{Txn, TxnOp};
use serde_json::Value;
use testing::etcd::Etcd;
use testing::try_until;
use testing::usage::Usage;
use tokio::time::MissedTickBehavior;

use crate::Verdict;
use crate::stand_in::{Peer, StandIn};
use crate::system::{System, entry};

const SECOND: Duration = Duration::from_secs(1);

/// How many are listed, about, and for how long they change.
const NODES: usize = 10_000;
const TIME: Duration = Duration::from_secs(60);

/// A thousand changes a second, so many in one transaction.
const AT_ONCE: usize = 20;

/// The first list is there in 300 ms, a change is chosen in 100 ms, none is lost, and all of it fits
/// into 150 MB.
pub(crate) async fn many() -> anyhow::Result<Verdict> {
    // Linux has all of 127.0.0.0/8: one listener is all nodes.
    let everybody = StandIn::on(([0, 0, 0, 0], 0).into(), Peer::oblige)?;
    let mut crowd = Crowd::new(everybody.address.port());
    let etcd = Etcd::start().await;
    etcd.put_all(crowd.entries()).await;

    let began = Instant::now();
    let system = System::around(etcd, &[], &[]).await?;
    let ready = || async { Ok(system.admin("/ready").await?.0 == 200) };
    try_until("the gateway to be ready", SECOND * 20, ready).await?;
    let listed = began.elapsed();
    let before = Usage::of(system.gateway.id())?;

    let gets = system.gets(100);
    let mut seen = Vec::new();
    tokio::select! {
        changed = crowd.change(&system, TIME) => changed?,
        never = sample(&system, everybody.address.port(), &mut seen) => never?,
    }
    let listed_at_last = listed_in(&system.server).await?;
    let equal = || async { Ok(known(&system).await? == listed_at_last) };
    let equal = try_until("the gateway to know what etcd does", SECOND * 5, equal).await;
    let gets = gets.end().await?;
    let after = Usage::of(system.gateway.id())?;

    seen.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| seen[seen.len() * percent / 100]);
    let held = listed <= SECOND * 3 / 10
        && p99 <= SECOND / 10
        && equal.is_ok()
        && after.peak <= 150.0
        && gets.failed() == 0;
    let lost = if equal.is_ok() {
        "none lost"
    } else {
        "SOME LOST"
    };
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!("ready {} ms after its start", listed.as_millis()))
        .note(format!(
            "{} changes, {lost}, chosen after {} ms, p99 {} ms",
            crowd.changes,
            p50.as_millis(),
            p99.as_millis()
        ))
        .note(format!(
            "memory {:.0} MB at most, {:.0} % of a core",
            after.peak,
            100.0 * (after.cpu - before.cpu).div_duration_f64(TIME)
        )))
}

/// Who is listed, by address, with the only tag each one has.
struct Crowd {
    port: u16,
    listed: BTreeMap<String, String>,
    changes: usize,
}

impl Crowd {
    fn new(port: u16) -> Self {
        let listed = (0..NODES).map(|n| (address(n, port), "0".to_owned()));
        Self {
            port,
            listed: listed.collect(),
            changes: 0,
        }
    }

    fn entries(&self) -> impl Iterator<Item = (String, String)> {
        self.listed
            .iter()
            .map(|(address, tag)| tagged(address, tag))
    }

    /// Changes in etcd what is listed, again and again.
    async fn change(&mut self, system: &System, time: Duration) -> anyhow::Result<()> {
        let mut etcd = system.server.client().await;
        let began = Instant::now();
        let mut ticks = interval(SECOND * AT_ONCE as u32 / 1000);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while began.elapsed() < time {
            ticks.tick().await;
            let changes: Vec<_> = self.next_changes();
            etcd.txn(Txn::new().and_then(changes)).await?;
            self.changes += AT_ONCE;
        }
        Ok(())
    }

    /// Some join, some leave, and some have another tag from now on. Two of three are listed when
    /// that is in balance.
    fn next_changes(&mut self) -> Vec<TxnOp> {
        let chosen = fastrand::choose_multiple(0..NODES * 3 / 2, AT_ONCE);
        let change = |number| {
            let address = address(number, self.port);
            if self.listed.contains_key(&address) && fastrand::bool() {
                self.listed.remove(&address);
                return TxnOp::delete(entry(&address, "").0, None);
            }
            let tag = fastrand::u32(..).to_string();
            let (key, value) = tagged(&address, &tag);
            self.listed.insert(address, tag);
            TxnOp::put(key, value, None)
        };
        chosen.into_iter().map(change).collect()
    }
}

/// Nodes from this number on are there for [`sample`].
const SAMPLES: usize = NODES * 2;

/// Lists one node after the other, and notes how long it takes until it has answered through the
/// gateway.
async fn sample(system: &System, port: u16, seen: &mut Vec<Duration>) -> anyhow::Result<()> {
    let client = Client::default();
    loop {
        let tag = format!("sample-{}", seen.len());
        let (key, value) = tagged(&address(SAMPLES + seen.len(), port), &tag);
        system.server.put(&key, value).await;
        let listed = Instant::now();
        let answered = async {
            let url = system.url("/");
            loop {
                let request = client.get(&url);
                let request = request.insert_header(("x-service-tags", format!("n={tag}")));
                match request.send().await {
                    Ok(answer) if answer.status() == 200 => break,
                    _ => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(SECOND * 5, answered)
            .await
            .with_context(|| tag.clone())?;
        seen.push(listed.elapsed());
        sleep(SECOND / 10).await;
    }
}

/// Who etcd lists, with the tag of each.
async fn listed_in(etcd: &Etcd) -> anyhow::Result<BTreeMap<String, String>> {
    let entries = etcd.entries().await;
    let entries = entries.iter().map(|entry| {
        let node = ServiceNode::from_json(entry.value())?;
        let tag = node.tags.get("n").unwrap_or_default();
        Ok((node.address.to_string(), tag.to_owned()))
    });
    entries.collect()
}

/// The same as the gateway knows it.
async fn known(system: &System) -> anyhow::Result<BTreeMap<String, String>> {
    let page: Value = serde_json::from_str(&system.admin("/api/instances").await?.1)?;
    let instances = page["services"][0]["instances"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let instances = instances.context("a list of instances")?.iter();
    Ok(instances
        .map(|instance| (text(&instance["instance"]), text(&instance["tags"]["n"])))
        .collect())
}

fn address(number: usize, port: u16) -> String {
    format!(
        "127.{}.{}.{}:{port}",
        1 + number / 62_500,
        number / 250 % 250,
        1 + number % 250
    )
}

fn tagged(address: &str, tag: &str) -> (String, String) {
    entry(address, &format!(r#"{{"n":"{tag}"}}"#))
}
