//! What happens to members of an etcd cluster.

use std::time::Instant;

use actix_web::rt::time::sleep;
use anyhow::Context;
use futures_util::future::join;
use testing::etcd::Etcd;
use testing::free_port;
use testing::try_until;

use crate::Verdict;
use crate::registry::{SECOND, recovered};
use crate::system::{System, TTL};

/// Three members, of whom one stays well.
struct Cluster {
    leader: Etcd,
    follower: Etcd,
    /// What works with them. Its etcd is the third.
    system: System,
}

/// A follower is frozen, the leader killed, quorum lost, all with a dead endpoint first in the list.
/// No request notices; no registration is lost with the leader; a gateway that is started without
/// quorum serves what the last member knows, and does not call it current.
pub(crate) async fn etcd_cluster() -> anyhow::Result<Verdict> {
    let mut cluster = Cluster::start().await?;
    let gets = cluster.system.gets(300);
    let frozen = cluster.freeze_follower().await?;
    let (headless, kept) = cluster.kill_leader().await?;
    cluster.lose_quorum().await?;
    let before = gets.end().await?;
    let ready = cluster.replace_gateway().await?;
    let gets = cluster.system.gets(300);
    sleep(SECOND * 3).await;
    join(cluster.leader.run(), cluster.follower.run()).await;
    let (well, note) = recovered(&mut cluster.system, Instant::now()).await?;
    let after = gets.end().await?;
    let served = before.failed() + after.failed() == 0;
    Ok(Verdict::new(served && kept && ready <= 5.0 && well)
        .counted(&before)
        .note(format!("follower frozen: a node found after {frozen:.1} s"))
        .note(format!(
            "leader killed: {headless:.1} s, registrations kept: {kept}"
        ))
        .note(format!("no quorum: a new gateway ready after {ready:.1} s"))
        .counted(&after)
        .note(note))
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let [leader, follower, third] = members().await?;
        let dead = format!("127.0.0.1:{}", free_port());
        let addresses = [&leader, &follower, &third].map(Etcd::address).join(",");
        let registry = format!("{dead},{addresses}");
        let system = System::at(third, &registry, &["v1", "v1", "v1"], &[]).await?;
        system.until_known(3).await?;
        Ok(Self {
            leader,
            follower,
            system,
        })
    }

    /// Returns how long a new node takes to be found, in seconds.
    async fn freeze_follower(&mut self) -> anyhow::Result<f64> {
        self.follower.freeze();
        let found = self.joins_and_leaves_are_seen().await;
        self.follower.thaw();
        found
    }

    /// Returns the same, and whether no registration was lost.
    async fn kill_leader(&mut self) -> anyhow::Result<(f64, bool)> {
        let created = self.system.server.created().await;
        self.leader.kill();
        let found = self.joins_and_leaves_are_seen().await?;
        sleep(TTL + SECOND).await; // who was not renewed is gone by now
        Ok((found, self.system.server.created().await == created))
    }

    async fn lose_quorum(&mut self) -> anyhow::Result<()> {
        self.follower.kill();
        let away = || async { Ok(self.system.registry_state().await? == "away") };
        try_until("the gateway to notice", SECOND * 14, away).await?;
        sleep(TTL).await;
        Ok(())
    }

    /// Returns how long the new one took to be ready, in seconds.
    async fn replace_gateway(&mut self) -> anyhow::Result<f64> {
        let began = Instant::now();
        let system = &mut self.system;
        system.replace_gateway().await?;
        let ready = || async { Ok(system.admin("/ready").await?.0 == 200) };
        try_until("the new gateway to be ready", SECOND * 20, ready).await?;
        let ready = began.elapsed().as_secs_f64();
        let away = || async { Ok(system.registry_state().await? == "away") };
        try_until("its list to be called stale", SECOND * 2, away).await?;
        system.until_known(3).await?;
        Ok(ready)
    }

    async fn joins_and_leaves_are_seen(&mut self) -> anyhow::Result<f64> {
        let system = &mut self.system;
        let (count, began) = (system.greeters.len(), Instant::now());
        system.add("v1").await?;
        system.until_known(count + 1).await?;
        let found = began.elapsed();
        let one = system.greeters.pop().context("it was just added")?;
        one.leave().await?;
        system.until_known(count).await?;
        Ok(found.as_secs_f64())
    }
}

/// The members of a cluster of three, its leader first.
async fn members() -> anyhow::Result<[Etcd; 3]> {
    let mut members = Etcd::cluster().await;
    let status = members[0].client().await.status().await?;
    for number in 0..members.len() {
        let own = members[number].client().await.status().await?;
        let id = own.header().context("an answer has a header")?.member_id();
        if id == status.leader() {
            members.rotate_left(number);
            break;
        }
    }
    Ok(members)
}
