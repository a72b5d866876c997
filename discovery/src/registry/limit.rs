use std::time::Duration;

use tokio::time::timeout;

use crate::Error;

/// What became of a future, if it ended in time.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let silent = |_| Error::registry(format!("{what}: no answer within {limit:?}"));
    timeout(limit, future).await.map_err(silent)
}
