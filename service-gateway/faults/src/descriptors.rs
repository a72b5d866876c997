//! Fewer open files than the clients would need.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use anyhow::{Context, ensure};
use testing::process::limited;
use testing::try_until;
use tokio::net::TcpStream;

use crate::Verdict;
use crate::system::{FREE, System};

const SECOND: Duration = Duration::from_secs(1);

/// Clients that connect and send nothing.
const IDLE: usize = 1200;

/// What was seen while the idle clients were there.
struct Seen {
    answered: u64,
    overloaded: usize,
    /// Failures of any other kind.
    others: usize,
    ejections: f64,
    /// The slowest response of the admin port.
    admin: Duration,
    is_healthy: bool,
}

/// With a soft limit of 1024 nothing fails. With a hard one, what fails is refused as overloaded, no
/// node is ejected, and the admin port and the health check go on. With 64 the gateway does not start.
pub(crate) async fn descriptors() -> anyhow::Result<Verdict> {
    let mut system = System::start(&["v1"; 3]).await?;
    let mut verdict = Verdict::new(true);
    for (ulimit, may_refuse) in [("-Sn 1024", false), ("-n 1024", true)] {
        system.limit_gateway(ulimit).await?;
        system.until_known(3).await?;
        let seen = crowded(&system, ulimit).await?;
        let held = seen.answered > 0
            && seen.others == 0
            && (may_refuse || seen.overloaded == 0)
            && seen.ejections == 0.0
            && seen.admin < SECOND * 2
            && seen.is_healthy;
        verdict.held = verdict.held.map(|so_far| so_far && held);
        verdict = verdict.note(format!(
            "ulimit {ulimit}: {} answered, {} overloaded, {} failed otherwise, {} ejections, \
             admin port {} ms at most, health check {}",
            seen.answered,
            seen.overloaded,
            seen.others,
            seen.ejections,
            seen.admin.as_millis(),
            if seen.is_healthy { "passes" } else { "fails" },
        ));
    }
    let error = too_few().await?;
    verdict.held = verdict
        .held
        .map(|so_far| so_far && error.contains("the limit of open files is 64"));
    Ok(verdict.note(format!("ulimit -n 64: {error}")))
}

/// Ten seconds of requests beside idle clients.
async fn crowded(system: &System, ulimit: &str) -> anyhow::Result<Seen> {
    let _idle = idle(system.gateway.address).await?;
    let load = system.gets(100);
    let mut admin = Duration::ZERO;
    let mut ejections: f64 = 0.0;
    let began = Instant::now();
    while began.elapsed() < SECOND * 10 {
        let asked = Instant::now();
        ejections = ejections.max(ejected(system).await?);
        admin = admin.max(asked.elapsed());
        sleep(SECOND / 4).await;
    }
    let is_healthy = is_healthy(&system.gateway.admin()?, ulimit).await?;
    let tally = load.end().await?;
    let overloaded = tally.failures().filter(|f| f.contains("\"overloaded\""));
    let overloaded = overloaded.count();
    let others = tally.failures().filter(|f| !f.contains("\"overloaded\""));
    let others = others
        .inspect(|failure| eprintln!("  failed: {failure}"))
        .count();
    Ok(Seen {
        answered: tally.answered(),
        overloaded,
        others,
        ejections,
        admin,
        is_healthy,
    })
}

async fn idle(gateway: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..IDLE {
        clients.push(TcpStream::connect(gateway).await?);
    }
    Ok(clients)
}

/// How many nodes are not up.
async fn ejected(system: &System) -> anyhow::Result<f64> {
    let states = system.states().await?;
    Ok(states.values().filter(|state| *state != "up").count() as f64)
}

async fn is_healthy(admin: &str, ulimit: &str) -> anyhow::Result<bool> {
    let mut check = limited(
        "service-gateway",
        &["healthcheck", "--admin-listen", admin],
        ulimit,
    )?;
    let check = actix_web::web::block(move || check.status());
    Ok(check.await??.success())
}

/// What a gateway writes that may open 64 files, if it ends by itself.
async fn too_few() -> anyhow::Result<String> {
    let flags = [&["--registry", "memory:"][..], &FREE].concat();
    let mut command = limited("service-gateway", &flags, "-n 64")?;
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut ended = None;
    try_until("its end", SECOND * 10, || {
        ended = child.try_wait().transpose();
        let is_over = ended.is_some();
        async move { Ok(is_over) }
    })
    .await
    .inspect_err(|_| drop(child.kill()))?;
    let status = ended.context("an exit status")??;
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(status.code() == Some(1), "{status}: {error}");
    Ok(error)
}
