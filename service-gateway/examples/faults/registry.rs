//! What happens to the registry.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;

use crate::Verdict;
use crate::etcd::Etcd;
use crate::process::until;
use crate::relay::Relay;
use crate::system::{System, TTL, get};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What must hold after etcd was away: all are listed again in five seconds, and a node that joins
/// is found in five more.
pub(crate) async fn recovered(
    system: &mut System,
    back: Instant,
) -> anyhow::Result<(bool, String)> {
    let count = system.greeters.len();
    let listed = || async { Ok(system.etcd.keys().await.len() == count) };
    until(SECOND * 20, "all to be listed again", listed).await?;
    let listed = back.elapsed();
    let began = Instant::now();
    system.add("v1").await?;
    system.until_known(count + 1).await?;
    let found = began.elapsed();
    let note = format!(
        "all listed after {:.1} s, a new node found after {:.1} s",
        listed.as_secs_f64(),
        found.as_secs_f64()
    );
    Ok((listed <= SECOND * 5 && found <= SECOND * 5, note))
}

/// Away for four times to live.
pub(crate) async fn etcd_down() -> anyhow::Result<Verdict> {
    let mut system = System::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    system.etcd.kill();
    sleep(TTL * 4).await;
    system.etcd.run().await;
    let (well, note) = recovered(&mut system, Instant::now()).await?;
    let gets = gets.end().await?;
    Ok(Verdict::new(well && gets.failed() == 0)
        .counted(&gets)
        .note(note))
}

/// Frozen for three times to live.
pub(crate) async fn etcd_frozen() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    let thaw = |system: &System| system.etcd.thaw();
    fell_silent(system, |system| system.etcd.freeze(), thaw).await
}

/// Bytes are swallowed on the way for as long: connections only seem to be open.
pub(crate) async fn etcd_half_open() -> anyhow::Result<Verdict> {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let system = System::at(etcd, relay.address(), &["v1", "v1", "v1"], &[]).await?;
    system.until_known(3).await?;
    fell_silent(system, |_| relay.fall_silent(), |_| relay.heal()).await
}

async fn fell_silent(
    mut system: System,
    begin: impl FnOnce(&System),
    end: impl FnOnce(&System),
) -> anyhow::Result<Verdict> {
    let gets = system.gets(300);
    sleep(SECOND).await;
    begin(&system);
    let began = Instant::now();
    let away = || async { Ok(system.registry_state().await? == "away") };
    until(SECOND * 20, "the gateway to notice", away).await?;
    let noticed = began.elapsed();
    sleep((TTL * 3).saturating_sub(noticed)).await;
    end(&system);
    let (well, note) = recovered(&mut system, Instant::now()).await?;
    let gets = gets.end().await?;
    Ok(
        Verdict::new(well && gets.failed() == 0 && noticed <= SECOND * 9)
            .counted(&gets)
            .note(format!("noticed after {:.1} s", noticed.as_secs_f64()))
            .note(note),
    )
}

/// Replaced by an empty one.
pub(crate) async fn etcd_wiped() -> anyhow::Result<Verdict> {
    let mut system = System::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    system.etcd.replace().await;
    let back = Instant::now();
    let listed = || async { Ok(system.etcd.keys().await.len() == 3) };
    until(SECOND * 30, "all to be listed again", listed).await?;
    let took = back.elapsed();
    system.add("v1").await?;
    system.until_known(4).await?;
    system.greeters.remove(0).leave().await?;
    system.until_known(3).await?;
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && took <= TTL + SECOND * 3)
        .counted(&gets)
        .note(format!(
            "all listed after {:.1} s, joins and leaves seen",
            took.as_secs_f64()
        )))
}

/// All keys deleted under living leases.
pub(crate) async fn key_deleted() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    back_within_a_ttl(&system, system.etcd.delete("/")).await
}

/// All leases revoked.
pub(crate) async fn lease_revoked() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    back_within_a_ttl(&system, system.etcd.revoke_all_leases()).await
}

async fn back_within_a_ttl(
    system: &System,
    fault: impl Future<Output = ()>,
) -> anyhow::Result<Verdict> {
    let gets = system.gets(300);
    sleep(SECOND).await;
    fault.await;
    let began = Instant::now();
    let listed = || async { Ok(system.etcd.keys().await.len() == 3) };
    until(SECOND * 20, "all to be listed again", listed).await?;
    let took = began.elapsed();
    sleep(SECOND).await;
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && took <= TTL)
        .counted(&gets)
        .note(format!("keys back after {:.1} s", took.as_secs_f64())))
}

/// Services first, etcd later: they wait and say so, and are ready five seconds after etcd is.
pub(crate) async fn cold_start() -> anyhow::Result<Verdict> {
    let mut system = System::around(Etcd::not_yet(), &["v1", "v1"], &[]).await?;
    let (status, _) = get(&system.url("/greet/Ada").to_string()).await?;
    let (ready, _) = system.admin("/ready").await?;
    let said = system.greeters[0].logged("trying until it is")?
        && system.gateway.logged("trying until")?;
    system.etcd.run().await;
    let began = Instant::now();
    let is_ready = || async {
        Ok(system.admin("/ready").await?.0 == 200 && system.states().await?.len() == 2)
    };
    until(SECOND * 20, "the gateway to be ready", is_ready).await?;
    let took = began.elapsed();
    Ok(
        Verdict::new(status == 503 && ready == 503 && said && took <= SECOND * 5)
            .note(format!("before: {status}, /ready {ready}, said so: {said}"))
            .note(format!("ready after {:.1} s", took.as_secs_f64())),
    )
}

/// Values and keys that make no sense are skipped and counted; the others are served.
pub(crate) async fn junk() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    let prefix = "/services/greeter/";
    let node =
        |ip: &str, port: u32| format!(r#"{{"ServiceName":"greeter","IP":"{ip}","Port":{port}}}"#);
    let tags: Vec<_> = (0..10_000).map(|n| format!(r#""t{n}":"x""#)).collect();
    let many_tags = format!(
        r#"{{"ServiceName":"greeter","IP":"127.0.0.1","Port":4,"Tags":{{{}}}}}"#,
        tags.join(",")
    );
    let own = |address: SocketAddr| {
        (
            address.to_string(),
            node("127.0.0.1", address.port().into()),
        )
    };
    let later = r#"{"Schema":2,"Name":"greeter","Endpoints":[{"Host":"127.0.0.1","Port":10}]}"#;
    let entries = [
        ("127.0.0.1:1", "no JSON".to_owned()),
        ("127.0.0.1:2", "x".repeat(1 << 20)),
        (
            "127.0.0.1:3",
            r#"{"ServiceName":"greeter","IP":1,"Port":"x"}"#.to_owned(),
        ),
        ("127.0.0.1:4", many_tags),
        ("127.0.0.1:0", node("127.0.0.1", 0)),
        ("0.0.0.0:5", node("0.0.0.0", 5)),
        ("127.0.0.1:6", node("127.0.0.1", 7)),
        ("..", node("127.0.0.1", 8)),
        ("", node("127.0.0.1", 9)),
        ("127.0.0.1:10", later.to_owned()),
        ("169.254.169.254:80", node("169.254.169.254", 80)),
        (
            "[::ffff:169.254.169.254]:80",
            node("::ffff:169.254.169.254", 80),
        ),
        ("[fe80::1]:80", node("fe80::1", 80)),
        ("8.8.8.8:80", node("8.8.8.8", 80)),
    ];
    let entries = entries.map(|(key, value)| (key.to_owned(), value));
    let ours = [system.gateway.address, system.gateway.admin()?.parse()?].map(own);
    let entries = [entries.to_vec(), ours.to_vec()].concat();
    let count = entries.len();
    for (key, value) in entries {
        system.etcd.put(&format!("{prefix}{key}"), value).await;
    }
    system
        .etcd
        .put("/services/greeter2/127.0.0.1:1", node("127.0.0.1", 1))
        .await;
    let skipped = || async {
        Ok(system
            .metric(r#"gateway_registry_skipped_entries{service="greeter"}"#)
            .await? as usize
            == count)
    };
    until(SECOND * 5, "all junk to be counted", skipped).await?;
    sleep(SECOND).await;
    let known = system.states().await?.len();
    let gets = gets.end().await?;
    let looped = system
        .metric(r#"gateway_refusals_total{reason="loop"}"#)
        .await?;
    Ok(
        Verdict::new(gets.failed() == 0 && known == 3 && looped == 0.0)
            .counted(&gets)
            .note(format!(
                "{count} entries skipped, {known} nodes known, {looped} loops"
            )),
    )
}
