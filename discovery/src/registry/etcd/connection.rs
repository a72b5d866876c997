use std::time::Duration;

use arc_swap::ArcSwap;
use etcd_client::{Client, ConnectOptions};
use futures_util::future::select_ok;
use tokio::sync::OnceCell;

use super::{failed, within};
use crate::Error;

/// How long one endpoint has for one request, with the time to connect.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// The connection to one endpoint of several, shared by all that a registry does. Whenever a
/// request fails there it is given up for a new one to the next endpoint.
///
/// etcd-client would spread requests over all endpoints, the dead ones included, and would keep a
/// connection that only seems open until pings tell, nine seconds later. A connection is also lost
/// with the runtime on which it was made.
pub(super) struct Connection {
    endpoints: Box<[String]>,
    current: ArcSwap<Current>,
}

struct Current {
    /// Which endpoint, counted round and round.
    number: usize,
    client: OnceCell<Client>,
}

impl Connection {
    /// To any of these, given as `host:port`, so that the clients of a cluster spread over it.
    pub(super) fn new(endpoints: &[String]) -> Self {
        let first = fastrand::usize(..endpoints.len().max(1));
        Self {
            endpoints: endpoints.into(),
            current: ArcSwap::from_pointee(Current::new(first)),
        }
    }

    pub(super) fn endpoints(&self) -> &[String] {
        &self.endpoints
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
        let mut tries = self.endpoints.len() + 1;
        loop {
            let current = self.current.load_full();
            let what = format!("{what} at {}", self.endpoint(&current));
            let answer = async { request(self.client(&current).await?).await };
            let answer = within(TRY_LIMIT, &what, answer).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failed(&what, error),
                Err(silence) => silence,
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
            let answer = async { request(connect(endpoint, false).await?).await };
            let answer = within(TRY_LIMIT, &what, answer).await?;
            answer.map_err(|error| failed(&what, error))
        };
        let answers = self
            .endpoints
            .iter()
            .map(|endpoint| Box::pin(ask(endpoint)));
        select_ok(answers).await.map(|(first, _)| first)
    }

    fn endpoint(&self, current: &Current) -> &str {
        &self.endpoints[current.number % self.endpoints.len()]
    }

    async fn client(&self, current: &Current) -> Result<Client, etcd_client::Error> {
        let connect = || connect(self.endpoint(current), true);
        current.client.get_or_try_init(connect).await.cloned()
    }
}

async fn connect(endpoint: &str, require_leader: bool) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new()
        .with_connect_timeout(TRY_LIMIT)
        // Pings less than 5 s apart make etcd close the connection.
        .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
        .with_keep_alive_while_idle(true)
        // Without it, a member cut off from its cluster keeps a watch open and silent.
        .with_require_leader(require_leader);
    Client::connect([endpoint], Some(options)).await
}

impl Current {
    fn new(number: usize) -> Self {
        Self {
            number,
            client: OnceCell::new(),
        }
    }
}
