//! What a wall clock does that somebody sets.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::header::{DATE, HttpDate};
use actix_web::rt::time::sleep;
use anyhow::Context;
use testing::Directory;
use testing::etcd::Etcd;
use testing::try_until;

use crate::Verdict;
use crate::system::{System, TTL};

const SECOND: Duration = Duration::from_secs(1);

/// Nothing fails, no lease is lost, and nobody is set aside when the clock of the gateway and of the
/// greeters is an hour ahead, then an hour behind, then right.
///
/// The machine's clock stays: [libfaketime](https://github.com/wolfcw/libfaketime) tells these
/// processes another time of day, and leaves the monotonic clock alone as a set clock does.
pub(crate) async fn clock() -> anyhow::Result<Verdict> {
    let Some(library) = libfaketime() else {
        return Ok(Verdict::left_out(
            "needs libfaketime: apt-get install libfaketime",
        ));
    };
    let directory = Directory::new()?;
    let offset = directory.file("offset");
    fs::write(&offset, "+0")?;
    let environment = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let environment = environment
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    let etcd = Etcd::start().await;
    let registry = etcd.address();
    let system = System::within(environment, etcd, &registry, &["v1"; 3], &[]).await?;
    system.until_known(3).await?;
    let listed = system.server.created().await;
    let gets = system.gets(200);
    let mut well = true;
    for (text, seconds) in [("+3600", 3600.0), ("-3600", -3600.0), ("+0", 0.0)] {
        fs::write(&offset, text)?;
        for process in system.greeters.iter().chain([&system.gateway]) {
            let is_so = || async { Ok((ahead(process.address).await? - seconds).abs() < 60.0) };
            try_until("the clock to be another", SECOND * 5, is_so).await?;
        }
        sleep(TTL + SECOND * 2).await;
        let states = system.states().await?;
        well &= states.len() == 3 && states.values().all(|state| state == "up");
    }
    let kept = system.server.created().await == listed;
    let gets = gets.end().await?;
    Ok(Verdict::new(well && kept && gets.failed() == 0)
        .counted(&gets)
        .note(if kept { "leases kept" } else { "LEASES LOST" })
        .note(if well {
            "all nodes up"
        } else {
            "NODES SET ASIDE"
        }))
}

/// By how many seconds a service's clock is ahead, as the dates of its answers tell.
#[expect(
    clippy::disallowed_types,
    reason = "the wall clock is what this is about"
)]
async fn ahead(service: SocketAddr) -> anyhow::Result<f64> {
    let answer = awc::Client::new().get(format!("http://{service}/")).send();
    let answer = answer.await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let date = answer.headers().get(DATE).context("a date")?.to_str()?;
    let date = std::time::SystemTime::from(date.parse::<HttpDate>()?);
    Ok(match date.duration_since(std::time::SystemTime::now()) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    })
}

/// Where LIBFAKETIME says, or Debian, Ubuntu and Fedora have it.
fn libfaketime() -> Option<PathBuf> {
    let named = std::env::var_os("LIBFAKETIME").map(PathBuf::from);
    let below = fs::read_dir("/usr/lib").ok()?;
    let below = below.filter_map(|entry| Some(entry.ok()?.path()));
    let directories = below.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    let libraries = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    named
        .into_iter()
        .chain(libraries)
        .find(|library| library.is_file())
}
