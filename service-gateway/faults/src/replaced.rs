//! The end of the gateway itself: its successor, and the signals that start its end.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use anyhow::ensure;
use futures_util::future::{join, join_all};
use testing::etcd::Etcd;
use testing::try_until;

use crate::Verdict;
use crate::running::Running;
use crate::system::System;

const SECOND: Duration = Duration::from_secs(1);

/// Replacements in a row.
const REPLACEMENTS: usize = 3;

/// Connections that have served a request and wait for the next.
const IDLE: usize = 20;

/// The load, in requests a second: over kept connections, and over new ones.
const RATE: u32 = 100;

/// A successor listens on the same ports before the gateway drains. No request fails, whether its
/// client keeps connections or not, and idle connections do not delay the end.
pub(crate) async fn gateway_replaced() -> anyhow::Result<Verdict> {
    let mut system = System::around(Etcd::start().await, &["v1"; 3], &["--reuse-port"]).await?;
    system.until_known(3).await?;
    let kept = system.gets(RATE);
    let new = Running::begin(system.unkept_gets(RATE));
    let mut codes = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..REPLACEMENTS {
        let mut idle = join_all((0..IDLE).map(|_| system.connect())).await;
        for client in &mut idle {
            let answer = client.get("/greeter/greet/Ada").await;
            ensure!(answer.status() == 200, "{answer:?}");
        }
        let old = system.succeed_gateway(&["--reuse-port"]).await?;
        system.until_known(3).await?;
        let began = Instant::now();
        codes.push(old.leave().await?);
        slowest = slowest.max(began.elapsed());
    }
    sleep(SECOND).await;
    let (kept, new) = (kept.end().await?, new.end().await?);
    let held = kept.failed() + new.failed() == 0
        && codes == [Some(0); REPLACEMENTS]
        && slowest < SECOND * 4;
    Ok(Verdict::new(held)
        .counted(&kept)
        .counted(&new)
        .note(format!(
            "{REPLACEMENTS} successors, the slowest end took {:.1} s with {IDLE} idle connections",
            slowest.as_secs_f64()
        ))
        .note(format!("exit codes {codes:?}")))
}

/// SIGUSR1 and SIGUSR2 do nothing; SIGHUP drains, so that no request fails that came before the end.
pub(crate) async fn hup() -> anyhow::Result<Verdict> {
    let mut system = System::start(&["v1"; 2]).await?;
    let load = system.gets(RATE);
    for signal in ["-USR1", "-USR2"] {
        system.gateway.signal(signal)?;
        system.greeters[0].signal(signal)?;
    }
    sleep(SECOND).await;
    let greeter = system.greeters.remove(0);
    let greeter = greeter.end_by("-HUP").await?;
    let slow = system.slow(1);
    try_until("a slow request", SECOND * 5, || async {
        Ok(system.metric("gateway_requests_in_flight").await? >= 1.0)
    })
    .await?;
    ensure!(load.count() > 0, "no request has ended");
    let load = load.end().await?;
    let (slow, gateway) = join(slow.end(), system.gateway.end_by("-HUP")).await;
    let (slow, gateway) = (slow?, gateway?);
    let held = load.failed() + slow.failed() == 0 && [greeter, gateway] == [Some(0); 2];
    Ok(Verdict::new(held)
        .counted(&load)
        .counted(&slow)
        .note(format!("exit codes {greeter:?}, {gateway:?}")))
}
