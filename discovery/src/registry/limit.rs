//! A time limit for a request, with an error that names the request.

use std::time::Duration;

use tokio::time::timeout;

use crate::Error;

/// Runs a future for at most `limit`. `what` names it in the error.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    let timed_out = |_| Error::registry(format!("{what}: no response within {limit:?}"));
    timeout(limit, future).await.map_err(timed_out)
}
