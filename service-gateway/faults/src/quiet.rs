//! A registry in which nothing changes.

use std::time::Instant;

use actix_web::rt::time::sleep;

use crate::Verdict;
use crate::backend::Backend;
use crate::registry::SECOND;
use crate::system::SystemOn;

/// The registry stays connected and the gateway logs no warning while nothing changes. The gateway
/// starts last, so that its snapshot has the registry's last revision. An etcd that does not respond
/// counts as disconnected after 8 s, for as long as the next snapshot takes.
pub(crate) async fn quiet<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1"]).await?;
    system.replace_gateway().await?;
    system.until_known(2).await?;
    let gets = system.gets(50);
    let end = Instant::now() + SECOND * 20;
    let (mut samples, mut disconnected) = (0, 0);
    while Instant::now() < end {
        samples += 1;
        disconnected += usize::from(system.registry_state().await? != "connected");
        sleep(SECOND / 10).await;
    }
    let gets = gets.end().await?;
    let warnings = system.gateway.warnings()?;
    let note = format!(
        "disconnected in {disconnected} of {samples} samples, {} warnings",
        warnings.len()
    );
    let held = disconnected == 0 && warnings.is_empty() && gets.failed() == 0;
    Ok(Verdict::new(held)
        .counted(&gets)
        .listing(&warnings)
        .note(note))
}
