//! Many nodes, and many gateways.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use discovery::{DiscoveryClient, ServiceName};
use futures_util::future::{try_join, try_join_all};
use testing::etcd::{Etcd, registry};
use testing::relay::Relay;
use testing::try_until;
use testing::usage::Usage;

use crate::Verdict;
use crate::running::Running;
use crate::stand_in::{Peer, StandIn};
use crate::system::{System, entry};

const SECOND: Duration = Duration::from_secs(1);

/// Descriptors and memory are back a minute after 300 nodes went, and nothing waits to be closed.
///
/// Allocators keep what they once had, so the first 300 show how much that is, and the others must
/// make do with it.
pub(crate) async fn gone_nodes() -> anyhow::Result<Verdict> {
    let flags = ["--keep-unconfirmed", "1s"];
    let system = System::around(Etcd::start().await, &["v1"; 3], &flags).await?;
    system.until_known(3).await?;
    let usage = || Usage::of(system.gateway.id());
    let first = system.gets(300);
    come_and_go(&system, &first).await?;
    let first = first.end().await?; // with the connections of the load
    let before = usage()?;
    let gets = system.gets(300);
    let mut most = 0;
    for _ in 0..3 {
        most = most.max(come_and_go(&system, &gets).await?.descriptors);
    }
    let gets = gets.end().await?;
    let gone = Instant::now();
    let back = || async {
        let now = usage()?;
        Ok(now.descriptors <= before.descriptors + 20
            && now.close_wait == 0
            && now.memory <= before.memory + 10.0)
    };
    let back = try_until("descriptors and memory", SECOND * 60, back).await;
    let (took, after) = (gone.elapsed(), usage()?);
    let failed = first.failed() + gets.failed();
    Ok(Verdict::new(back.is_ok() && failed == 0)
        .counted(&gets)
        .note(format!(
            "descriptors {}, {most} at most, {} in the end, {} of them in CLOSE_WAIT",
            before.descriptors, after.descriptors, after.close_wait
        ))
        .note(format!(
            "memory {:.1} MB, {:.1} in the end, {:.0} s after",
            before.memory,
            after.memory,
            took.as_secs_f64()
        )))
}

/// Lists 300 nodes until they have answered, and returns what the gateway then has.
async fn come_and_go(system: &System, gets: &Running) -> anyhow::Result<Usage> {
    let nodes = (0..300).map(|_| StandIn::on(([127, 0, 1, 1], 0).into(), Peer::oblige));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let addresses = nodes.iter().map(|node| node.address.to_string());
    system.put_nodes(addresses).await;
    system.until_known(303).await?;
    let turns = gets.count() + 600; // nearly two for each
    let asked = || async { Ok(gets.count() >= turns) };
    try_until("an answer of each node", SECOND * 30, asked).await?;
    let usage = Usage::of(system.gateway.id())?;
    system.server.delete("/services/greeter/127.0.1.1:").await;
    system.until_known(3).await?;
    Ok(usage)
}

/// They come back spread over a second at least, and all know the same again in five. A relay keeps
/// them away until etcd answers: else those who come while it starts would be answered together.
pub(crate) async fn many_gateways() -> anyhow::Result<Verdict> {
    let mut etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let clients: Vec<_> = (0..100)
        .map(|_| DiscoveryClient::new(registry(relay.address())))
        .collect();
    etcd.put_all((1..=10).map(|n| entry(&address(n), "null")))
        .await;
    let agree = || async { Ok(clients.iter().all(|client| is_current(client, 10))) };
    try_until("all to know ten nodes", SECOND * 20, agree).await?;
    relay.cut();
    etcd.kill();
    etcd.run().await;
    sleep(SECOND * 3).await; // they have tried some times by now
    let returns = clients.iter().map(|client| async {
        let mut changes = client.changes(&service());
        while !is_current(client, 10) && !is_current(client, 11) {
            changes.changed().await?;
        }
        anyhow::Ok(Instant::now())
    });
    let restart = async {
        relay.heal();
        let back = Instant::now();
        etcd.put_all([entry(&address(11), "null")].into_iter())
            .await;
        let agree = || async { Ok(clients.iter().all(|client| is_current(client, 11))) };
        try_until("all to know the eleventh", SECOND * 20, agree).await?;
        anyhow::Ok(back.elapsed())
    };
    let (returns, agreed) = try_join(try_join_all(returns), restart).await?;
    let (first, last) = (returns.iter().min(), returns.iter().max());
    let spread = first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| *last - *first);
    Ok(Verdict::new(spread >= SECOND && agreed <= SECOND * 5)
        .note(format!(
            "{} came back within {:.1} s",
            returns.len(),
            spread.as_secs_f64()
        ))
        .note(format!("all agree after {:.1} s", agreed.as_secs_f64())))
}

/// Whether it follows the registry, and knows so many nodes.
fn is_current(client: &DiscoveryClient, count: usize) -> bool {
    let view = client.view(&service());
    view.is_some_and(|view| view.stale_for().is_none() && view.endpoints().len() == count)
}

fn service() -> ServiceName {
    "greeter".parse().expect("a name")
}

/// The addresses of nodes that need not be there.
fn address(number: usize) -> String {
    format!("127.0.2.{number}:80")
}
