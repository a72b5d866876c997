use std::time::Duration;

use tokio::time::timeout;

/// Far longer than anything here takes: who waits that long waits in vain.
const LIMIT: Duration = Duration::from_secs(20);

/// What `future` comes to, if it does so before the test's patience ends.
pub(crate) async fn within_limit<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = timeout(LIMIT, future).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Waits until `state` is so.
pub(crate) async fn until(what: &str, mut state: impl AsyncFnMut() -> bool) {
    within_limit(what, async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
