//! A registry in which nothing changes.

use std::time::Instant;

use actix_web::rt::time::sleep;
use anyhow::ensure;

use crate::Verdict;
use crate::backend::Backend;
use crate::registry::SECOND;
use crate::system::SystemOn;

/// The registry stays connected while nothing changes. The gateway starts last, so that its snapshot
/// has the registry's last revision. An etcd that does not respond counts as disconnected after 8 s.
pub(crate) async fn quiet<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1"]).await?;
    system.replace_gateway().await?;
    system.until_known(2).await?;
    let gets = system.gets(50);
    let end = Instant::now() + SECOND * 20;
    let (mut samples, mut disconnected) = (0, 0);
    while Instant::now() < end {
        let state = system.registry_state().await?;
        ensure!(state != "pending", "the initial snapshot is there");
        samples += 1;
        disconnected += usize::from(state != "connected");
        sleep(SECOND / 10).await;
    }
    let gets = gets.end().await?;
    let note = format!("disconnected in {disconnected} of {samples} samples");
    Ok(Verdict::new(disconnected == 0 && gets.failed() == 0)
        .counted(&gets)
        .note(note))
}
