//! The same for a long time.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use anyhow::Context;
use testing::usage::Usage;

use crate::Verdict;
use crate::system::System;

/// How long it takes, unless the environment's `SOAK` says otherwise.
const LENGTH: Duration = Duration::from_secs(600);

/// Nothing fails while nodes come and go, and the gateway uses as much at the end as it did early.
pub(crate) async fn soak() -> anyhow::Result<Verdict> {
    let length = match std::env::var("SOAK") {
        Ok(text) => humantime::parse_duration(&text).context("SOAK")?,
        Err(_) => LENGTH,
    };
    let mut system = System::start(&["v1"; 3]).await?;
    let gets = system.gets(300);
    let (began, mut used, mut changes) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < length {
        change(&mut system, changes).await?;
        changes += 1;
        for _ in 0..4 {
            sleep(Duration::from_millis(500)).await;
            used.push(system.usage()?);
        }
    }
    let gets = gets.end().await?;
    let quarter = used.len() / 4;
    let (early, late) = (&used[quarter..2 * quarter], &used[3 * quarter..]);
    let mut flat = true;
    let mut compare = |what: &str, of: fn(&Usage) -> f64| {
        let (early, late) = (mean(early, of), mean(late, of));
        flat &= late <= early * 1.1; // idle connections come and go
        format!("{early:.1}, then {late:.1} {what}")
    };
    let means = [
        compare("MiB of RSS", |used| used.memory),
        compare("descriptors", |used| used.descriptors as f64),
        compare("threads", |used| used.threads as f64),
    ];
    let length = length.as_secs();
    Ok(Verdict::new(gets.failed() == 0 && flat)
        .counted(&gets)
        .note(format!("{changes} nodes came, died or left in {length} s"))
        .note(format!("second and last quarter: {}", means.join(", "))))
}

/// One comes, the oldest dies; one comes, the oldest leaves; and so on.
async fn change(system: &mut System, turn: usize) -> anyhow::Result<()> {
    match turn % 4 {
        1 => drop(system.greeters.remove(0)), // kill -9
        3 => drop(system.greeters.remove(0).leave().await?),
        _ => {
            let address = system.add("v1").await?.address.to_string();
            system.until_listed(&address).await?;
        }
    }
    Ok(())
}

fn mean(used: &[Usage], of: fn(&Usage) -> f64) -> f64 {
    used.iter().map(of).sum::<f64>() / used.len() as f64
}
