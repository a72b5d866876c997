//! What happens to the registry, whichever it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use testing::relay::Relay;
use testing::try_until;

use crate::Verdict;
use crate::backend::Backend;
use crate::stand_in::{Peer, StandIn};
use crate::system::{SystemOn, TTL, get};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What must hold after the registry was away: all are listed again in five seconds, and a node that joins
/// is found in five more.
pub(crate) async fn recovered<B: Backend>(
    system: &mut SystemOn<B>,
    back: Instant,
) -> anyhow::Result<(bool, String)> {
    let count = system.greeters.len();
    let listed = || async { Ok(system.server.listed().await?.len() == count) };
    try_until("all to be listed again", SECOND * 20, listed).await?;
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
pub(crate) async fn etcd_down<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    system.server.kill();
    sleep(TTL * 4).await;
    system.server.run().await;
    let (well, note) = recovered(&mut system, Instant::now()).await?;
    let gets = gets.end().await?;
    Ok(Verdict::new(well && gets.failed() == 0)
        .counted(&gets)
        .note(note))
}

/// Frozen for three times to live.
pub(crate) async fn etcd_frozen<B: Backend>() -> anyhow::Result<Verdict> {
    let system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    let thaw = |system: &SystemOn<B>| system.server.thaw();
    fell_silent(system, |system| system.server.freeze(), thaw).await
}

/// Bytes are swallowed on the way for as long: connections only seem to be open.
pub(crate) async fn etcd_half_open<B: Backend>() -> anyhow::Result<Verdict> {
    let server = B::started().await;
    let relay = Relay::to(server.address()).await;
    let system = SystemOn::at(server, relay.address(), &["v1", "v1", "v1"], &[]).await?;
    system.until_known(3).await?;
    fell_silent(system, |_| relay.fall_silent(), |_| relay.heal()).await
}

async fn fell_silent<B: Backend>(
    mut system: SystemOn<B>,
    begin: impl FnOnce(&SystemOn<B>),
    end: impl FnOnce(&SystemOn<B>),
) -> anyhow::Result<Verdict> {
    let gets = system.gets(300);
    sleep(SECOND).await;
    begin(&system);
    let began = Instant::now();
    let away = || async { Ok(system.registry_state().await? == "away") };
    try_until("the gateway to notice", SECOND * 20, away).await?;
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
pub(crate) async fn etcd_wiped<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    system.server.replace().await;
    let back = Instant::now();
    let listed = || async { Ok(system.server.listed().await?.len() == 3) };
    try_until("all to be listed again", SECOND * 30, listed).await?;
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
pub(crate) async fn key_deleted<B: Backend>() -> anyhow::Result<Verdict> {
    let system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    back_within_a_ttl(&system, system.server.delete_all()).await
}

/// All leases revoked, or whatever keeps entries there.
pub(crate) async fn lease_revoked<B: Backend>() -> anyhow::Result<Verdict> {
    if let Some(why) = B::CANNOT_EXPIRE {
        return Ok(Verdict::left_out(why));
    }
    let system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    back_within_a_ttl(&system, system.server.expire_all()).await
}

async fn back_within_a_ttl<B: Backend>(
    system: &SystemOn<B>,
    fault: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Verdict> {
    let gets = system.gets(300);
    sleep(SECOND).await;
    fault.await?;
    let began = Instant::now();
    let listed = || async { Ok(system.server.listed().await?.len() == 3) };
    try_until("all to be listed again", SECOND * 20, listed).await?;
    let took = began.elapsed();
    sleep(SECOND).await;
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && took <= TTL)
        .counted(&gets)
        .note(format!("keys back after {:.1} s", took.as_secs_f64())))
}

/// Services first, etcd later: they wait and say so, and are ready five seconds after etcd is.
pub(crate) async fn cold_start<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::around(B::not_yet(), &["v1", "v1"], &[]).await?;
    let (status, _) = get(&system.url("/greet/Ada").to_string()).await?;
    let (ready, _) = system.admin("/ready").await?;
    let said = system.greeters[0].logged("not registered, retrying")?
        && system
            .gateway
            .logged("no snapshot from the registry yet, retrying")?;
    system.server.run().await;
    let began = Instant::now();
    let is_ready = || async {
        Ok(system.admin("/ready").await?.0 == 200 && system.states().await?.len() == 2)
    };
    try_until("the gateway to be ready", SECOND * 20, is_ready).await?;
    let took = began.elapsed();
    Ok(
        Verdict::new(status == 503 && ready == 503 && said && took <= SECOND * 5)
            .note(format!("before: {status}, /ready {ready}, said so: {said}"))
            .note(format!("ready after {:.1} s", took.as_secs_f64())),
    )
}

/// Values and keys that make no sense are skipped and counted; the others are served.
pub(crate) async fn junk<B: Backend>() -> anyhow::Result<Verdict> {
    let system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
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
    let mut count = 0;
    for (name, value) in entries {
        count += usize::from(system.server.put("greeter", &name, &value).await?);
    }
    let other = node("127.0.0.1", 1);
    system.server.put("greeter2", "127.0.0.1:1", &other).await?;
    let skipped = || async {
        Ok(system
            .metric(r#"gateway_registry_skipped_entries{service="greeter"}"#)
            .await? as usize
            == count)
    };
    try_until("all junk to be counted", SECOND * 5, skipped).await?;
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

/// A thousand nodes are one list, and a node more or less is seen as soon as among few.
pub(crate) async fn thousand<B: Backend>() -> anyhow::Result<Verdict> {
    const NODES: usize = 1000;
    // Linux has all of 127.0.0.0/8: one listener is all nodes.
    let everybody = StandIn::on(([0, 0, 0, 0], 0).into(), Peer::oblige)?;
    let port = everybody.address.port();
    let server = B::started().await;
    for n in 0..NODES {
        let ip = format!("127.1.{}.{}", n / 250, n % 250 + 1);
        let value = format!(r#"{{"ServiceName":"greeter","IP":"{ip}","Port":{port}}}"#);
        server
            .put("greeter", &format!("{ip}:{port}"), &value)
            .await?;
    }
    let began = Instant::now();
    let mut system = SystemOn::around(server, &[], &[]).await?;
    system.until_known(NODES).await?;
    let listed = began.elapsed();
    let gets = system.gets(300);
    let began = Instant::now();
    system.add("v1").await?;
    system.until_known(NODES + 1).await?;
    let joined = began.elapsed();
    let began = Instant::now();
    system.greeters.remove(0).leave().await?;
    system.until_known(NODES).await?;
    let left = began.elapsed();
    let gets = gets.end().await?;
    let times = [listed, joined, left].map(|time| time.as_millis());
    let held = gets.failed() == 0 && listed <= SECOND * 3 && joined <= SECOND * 5;
    Ok(Verdict::new(held).counted(&gets).note(format!(
        "known {} ms after the gateway's start, one more {} ms after its start, and gone {} ms after SIGTERM",
        times[0], times[1], times[2]
    )))
}
