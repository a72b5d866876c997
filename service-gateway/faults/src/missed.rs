//! What the gateway could miss of the registry's changes.

use std::collections::BTreeSet;
use std::time::Instant;

use actix_web::rt::time::sleep;
use testing::etcd::Etcd;
use testing::relay::Relay;
use testing::try_until;

use crate::Verdict;
use crate::registry::SECOND;
use crate::system::System;

/// Three greeters that reach etcd, and a gateway that does so through a relay.
async fn behind(relay: &Relay, etcd: Etcd) -> anyhow::Result<System> {
    let mut system = System::at(etcd, relay.address(), &[], &[]).await?;
    system.registry = system.server.address();
    for _ in 0..3 {
        system.add("v1").await?;
    }
    system.until_known(3).await?;
    Ok(system)
}

/// History is compacted while the watch is cut: nothing of it is missed, and nobody who is gone
/// stays known.
pub(crate) async fn etcd_compacted() -> anyhow::Result<Verdict> {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let mut system = behind(&relay, etcd).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    relay.cut();
    let away = || async { Ok(system.registry_state().await? == "away") };
    try_until("the gateway to notice", SECOND * 9, away).await?;
    for _ in 0..2 {
        let address = system.add("v2").await?.address.to_string();
        system.until_listed(&address).await?;
    }
    for number in [4, 0] {
        system.greeters.remove(number).leave().await?; // the last to come, and the first
    }
    system.server.compact().await;
    let greeters = system.greeters.iter();
    let there: BTreeSet<_> = greeters.map(|node| node.address.to_string()).collect();
    relay.heal();
    let began = Instant::now();
    let known = async || anyhow::Ok(system.states().await?.into_keys().collect::<BTreeSet<_>>());
    let right = || async { Ok(known().await? == there) };
    try_until("those who are there to be known", SECOND * 20, right).await?;
    let took = began.elapsed();
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && took <= SECOND * 5)
        .counted(&gets)
        .note(format!(
            "exactly those who are there known after {:.1} s",
            took.as_secs_f64()
        )))
}

/// The watch loses the news of a deletion: the periodic list, every 60 s give or take a fifth, heals it.
pub(crate) async fn relist() -> anyhow::Result<Verdict> {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    relay.lose_deletions();
    let mut system = behind(&relay, etcd).await?;
    let gets = system.gets(100);
    let gone = system.greeters.remove(0);
    let address = gone.address.to_string();
    gone.leave().await?;
    let began = Instant::now();
    try_until("the news to be lost", SECOND * 5, || async {
        Ok(relay.lost() > 0)
    })
    .await?;
    sleep(SECOND * 2).await;
    let missed = system.states().await?.contains_key(&address);
    let healed = || async { Ok(!system.states().await?.contains_key(&address)) };
    try_until("the node to be gone", SECOND * 90, healed).await?;
    let took = began.elapsed();
    let gets = gets.end().await?;
    Ok(
        Verdict::new(gets.failed() == 0 && missed && took <= SECOND * 72)
            .counted(&gets)
            .note(format!(
                "deletion lost: {missed}, healed after {:.0} s",
                took.as_secs_f64()
            )),
    )
}
