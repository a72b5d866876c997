//! Waiting for a state, with a limit. Nothing in a test sleeps for a fixed time instead.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{sleep, timeout};

/// The limit of [`within_limit`] and [`until`]. Only a failing test waits that long.
const LIMIT: Duration = Duration::from_secs(20);

/// The limit for a registry's client that has none of its own.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The time between two looks at a state.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the output of `future`.
///
/// # Panics
/// If it is not ready within 20 s.
pub async fn within_limit<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = timeout(LIMIT, future).await;
    waited.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Waits until `state` returns true.
///
/// # Panics
/// If it does not within 20 s.
pub async fn until(what: &str, state: impl AsyncFnMut() -> bool) {
    eventually(what, LIMIT, state).await;
}

/// Waits until `state` returns true.
///
/// # Panics
/// If it does not within `limit`.
pub async fn eventually(what: &str, limit: Duration, mut state: impl AsyncFnMut() -> bool) {
    let waited = try_until(what, limit, async || Ok(state().await)).await;
    waited.unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until `state` returns true.
///
/// # Errors
/// If it does not within `limit`, or fails.
pub async fn try_until(
    what: &str,
    limit: Duration,
    mut state: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let waiting = async {
        while !state().await? {
            sleep(POLL_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    match timeout(limit, waiting).await {
        Ok(result) => result,
        Err(_) => bail!("not within {limit:?}: {what}"),
    }
}
