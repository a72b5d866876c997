//! The connection of an etcd registry: one endpoint at a time, with failover.
//!
//! etcd-client would spread requests over all endpoints, the dead ones included, and would keep a half-open
//! connection until keep-alive pings detect it, nine seconds later. The invariant: a request has at least
//! one attempt at each endpoint, each within [`ATTEMPT_TIMEOUT`]. Retries beyond that are the caller's.

use std::time::Duration;

use arc_swap::ArcSwap;
use etcd_client::Client;
use futures_util::future::select_ok;
use tokio::sync::OnceCell;

use super::failed;
use super::options::options;
use crate::registry::limit::within;
use crate::{Error, RegistryUrl};

/// Maximum duration of one attempt at one endpoint, connecting included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection to one of several endpoints, shared by all requests of a registry. A failed request
/// replaces it with a new one to the next endpoint, which also covers a connection that was lost with the
/// runtime on which it was made.
pub(super) struct Connection {
    url: RegistryUrl,
    current: ArcSwap<Current>,
}

struct Current {
    /// Index of the endpoint, modulo their number.
    number: usize,
    client: OnceCell<Client>,
}

impl Connection {
    /// Starts with a random endpoint, so that the clients of a cluster spread over it.
    pub(super) fn new(url: RegistryUrl) -> Self {
        let first = fastrand::usize(..url.endpoints().len().max(1));
        Self {
            url,
            current: ArcSwap::from_pointee(Current::new(first)),
        }
    }

    pub(super) fn url(&self) -> &RegistryUrl {
        &self.url
    }

    /// Sends a request, with one attempt at each endpoint and a second one at the first, over a new
    /// connection.
    pub(super) async fn call<T, F>(
        &self,
        what: &str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut attempts = self.url.endpoints().len() + 1;
        loop {
            let current = self.current.load_full();
            let what = format!("{what} at {}", self.endpoint(&current));
            let response = async {
                let response = request(self.client(&current, &what).await?).await;
                response.map_err(|error| failed(&what, error))
            };
            let error = match within(ATTEMPT_TIMEOUT, &what, response).await.flatten() {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // Has no effect if another request has already replaced it.
            let next = Current::new(current.number + 1);
            self.current.compare_and_swap(&current, next.into());
            attempts -= 1;
            if attempts == 0 {
                return Err(error);
            }
        }
    }

    /// Sends a request to all endpoints at once, also to those without a leader, and returns the first
    /// successful response. For serializable reads, which a member serves alone.
    pub(super) async fn call_any_member<T, F>(
        &self,
        what: &str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let call = async |endpoint: &String| {
            let what = format!("{what} at {endpoint}");
            let response = async {
                let response = request(self.connect(endpoint, false, &what).await?).await;
                response.map_err(|error| failed(&what, error))
            };
            within(ATTEMPT_TIMEOUT, &what, response).await.flatten()
        };
        let endpoints = self.url.endpoints().iter();
        let responses = endpoints.map(|endpoint| Box::pin(call(endpoint)));
        select_ok(responses).await.map(|(first, _)| first)
    }

    fn endpoint(&self, current: &Current) -> &str {
        let endpoints = self.url.endpoints();
        &endpoints[current.number % endpoints.len()]
    }

    async fn client(&self, current: &Current, what: &str) -> Result<Client, Error> {
        let connect = || self.connect(self.endpoint(current), true, what);
        current.client.get_or_try_init(connect).await.cloned()
    }

    async fn connect(
        &self,
        endpoint: &str,
        require_leader: bool,
        what: &str,
    ) -> Result<Client, Error> {
        let options = options(&self.url.access, ATTEMPT_TIMEOUT)?
            // Without it, a partitioned member keeps a watch open and sends nothing.
            .with_require_leader(require_leader);
        let client = Client::connect([endpoint], Some(options)).await;
        client.map_err(|error| failed(what, error))
    }
}

impl Current {
    fn new(number: usize) -> Self {
        Self {
            number,
            client: OnceCell::new(),
        }
    }
}
