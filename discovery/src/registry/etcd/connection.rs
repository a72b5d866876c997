use std::time::Duration;

use arc_swap::ArcSwap;
use etcd_client::Client;
use futures_util::future::select_ok;
use tokio::sync::OnceCell;

use super::failed;
use super::options::options;
use crate::registry::limit::within;
use crate::{Error, RegistryUrl};

/// How long one endpoint has for one request, with the time to connect.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// The connection to one endpoint of several, shared by all that a registry does. Whenever a
/// request fails there it is given up for a new one to the next endpoint.
///
/// etcd-client would spread requests over all endpoints, the dead ones included, and would keep a
/// connection that only seems open until pings tell, nine seconds later. A connection is also lost
/// with the runtime on which it was made.
pub(super) struct Connection {
    url: RegistryUrl,
    current: ArcSwap<Current>,
}

struct Current {
    /// Which endpoint, counted round and round.
    number: usize,
    client: OnceCell<Client>,
}

impl Connection {
    /// To any of these endpoints, so that the clients of a cluster spread over it.
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

    /// Makes a request, with each endpoint having a try, and the first of them another one over a
    /// new connection.
    pub(super) async fn call<T, F>(
        &self,
        what: &str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut tries = self.url.endpoints().len() + 1;
        loop {
            let current = self.current.load_full();
            let what = format!("{what} at {}", self.endpoint(&current));
            let answer = async {
                let answer = request(self.client(&current, &what).await?).await;
                answer.map_err(|error| failed(&what, error))
            };
            let error = match within(TRY_LIMIT, &what, answer).await.flatten() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Unless another request has already done so.
            let next = Current::new(current.number + 1);
            self.current.compare_and_swap(&current, next.into());
            tries -= 1;
            if tries == 0 {
                return Err(error);
            }
        }
    }

    /// Asks all endpoints at once, also those that have lost their cluster, and takes the first
    /// good answer. For requests that a member can answer by itself.
    pub(super) async fn ask_any<T, F>(
        &self,
        what: &str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let ask = async |endpoint: &String| {
            let what = format!("{what} at {endpoint}");
            let answer = async {
                let answer = request(self.connect(endpoint, false, &what).await?).await;
                answer.map_err(|error| failed(&what, error))
            };
            within(TRY_LIMIT, &what, answer).await.flatten()
        };
        let endpoints = self.url.endpoints().iter();
        let answers = endpoints.map(|endpoint| Box::pin(ask(endpoint)));
        select_ok(answers).await.map(|(first, _)| first)
    }

    fn endpoint(&self, current: &Current) -> &str {
        let endpoints = self.url.endpoints();
        &endpoints[current.number % endpoints.len()]
    }

    async fn client(&self, current: &Current, what: &str) -> Result<Client, Error> {
        let connect = || self.connect(self.endpoint(current), true, what);
        current.client.get_or_try_init(connect).await.cloned()
    }

    async fn connect(&self, endpoint: &str, led: bool, what: &str) -> Result<Client, Error> {
        let options = options(&self.url.access, TRY_LIMIT)?
            // Without it, a member cut off from its cluster keeps a watch open and silent.
            .with_require_leader(led);
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
