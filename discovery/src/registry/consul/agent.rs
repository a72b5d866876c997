use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::registry::file::read;
use crate::registry::limit::within;
use crate::{Error, RegistryUrl};

/// How long an agent may take to answer, beside the time it was told to wait.
const LIMIT: Duration = Duration::from_secs(2);

/// The largest answer read.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How many connections watches hold at once. An agent takes 200 of a client's address by default
/// ([`http_max_conns_per_client`][1]), and more than one process may have that address.
///
/// [1]: https://developer.hashicorp.com/consul/docs/agent/config/config-files#http_max_conns_per_client
const MAX_WATCH_CONNECTIONS: usize = 60;

/// How many nodes are being registered at once. Each holds a connection until the servers list it.
const MAX_REGISTERING: usize = 20;

/// How many connections the short requests hold at once that keep nodes registered or deregister them.
const MAX_SHORT_CONNECTIONS: usize = 20;

/// When watches take turns, the time in which each has one.
const CYCLE: Duration = Duration::from_secs(2);

/// The shortest turn: with very many watches a cycle takes longer.
const MIN_TURN: Duration = Duration::from_millis(200);

/// The agent of a Consul, which passes on what its servers know.
pub(super) struct Agent {
    url: RegistryUrl,
    client: Client<HttpConnector, String>,
    watching: Semaphore,
    registering: Semaphore,
    short: Semaphore,
    watches: AtomicUsize,
}

/// One of the watches that share an agent's connections, until it is dropped.
pub(super) struct Watch(Arc<Agent>);

/// The right of a watch to one request.
pub(super) struct Turn<'a> {
    agent: &'a Agent,
    _permit: SemaphorePermit<'a>,
}

/// What an agent answers.
struct Answer {
    status: StatusCode,
    /// How late it is, by Consul's count: the number to ask for something later.
    index: u64,
    body: Vec<u8>,
}

impl Agent {
    pub(super) fn new(url: RegistryUrl) -> Self {
        // A connection for each request: one that is kept may be dead without anybody knowing, and a
        // node has two requests in a time to live.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self {
            url,
            client,
            watching: Semaphore::new(MAX_WATCH_CONNECTIONS),
            registering: Semaphore::new(MAX_REGISTERING),
            short: Semaphore::new(MAX_SHORT_CONNECTIONS),
            watches: AtomicUsize::new(0),
        }
    }

    /// Waits until one of the connections for registering is free. Requests that belong to a registration
    /// are made while this is held.
    pub(super) async fn registering(&self) -> SemaphorePermit<'_> {
        permit(&self.registering).await
    }

    /// Waits until one of the connections for short requests is free.
    pub(super) async fn short(&self) -> SemaphorePermit<'_> {
        permit(&self.short).await
    }

    pub(super) fn url(&self) -> &RegistryUrl {
        &self.url
    }

    /// Asks the agent to change something. Tells whether it knew the thing.
    pub(super) async fn put(&self, path: &str, body: String) -> Result<bool, Error> {
        let answer = self.ask(Method::PUT, path, body, LIMIT).await?;
        // What is unknown is a 404 only since Consul 1.11.
        let unknown = answer.text().contains("does not have associated TTL");
        if answer.status == StatusCode::NOT_FOUND || unknown {
            return Ok(false);
        }
        self.checked(path, answer).map(|_| true)
    }

    /// Asks what is later than an index, and how late the answer is. If nothing is, the answer is the
    /// same after a `wait`, and up to a sixteenth of it. Index 0 asks what is, and does not wait.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(u64, T), Error> {
        let wait = if index == 0 { Duration::ZERO } else { wait };
        let mark = if path.contains('?') { '&' } else { '?' };
        let path_and_query = format!("{path}{mark}index={index}&wait={}ms", wait.as_millis());
        let limit = LIMIT + wait + wait / 16;
        let answer = self.ask(Method::GET, &path_and_query, String::new(), limit);
        let answer = self.checked(path, answer.await?)?;
        let value = serde_json::from_slice(&answer.body);
        let value = value.map_err(|error| self.failed(path, &error))?;
        Ok((answer.index, value))
    }

    fn checked(&self, path: &str, answer: Answer) -> Result<Answer, Error> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let (at, status) = (&self.url.endpoints()[0], answer.status);
        let reason: String = answer.text().chars().take(200).collect();
        Err(Error::registry(format!(
            "{path} at {at}: {status} {reason}"
        )))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let uri = format!("http://{}{path}", self.url.endpoints()[0]);
        *request.uri_mut() = uri.parse().map_err(|error| self.failed(path, &error))?;
        if let Some(file) = &self.url.access.token {
            let token = HeaderValue::from_str(read(file)?.trim_end());
            let mut token = token.map_err(|error| self.failed(path, &error))?;
            token.set_sensitive(true);
            request.headers_mut().insert("x-consul-token", token);
        }
        let answer = async {
            let answer = self.client.request(request).await;
            let (head, body) = answer
                .map_err(|error| self.failed(path, &error))?
                .into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| self.failed(path, &*error))?;
            let index = head.headers.get("x-consul-index");
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: head.status,
                index: index.unwrap_or(0),
                body: body.to_bytes().into(),
            })
        };
        let what = format!("{path} at {}", self.url.endpoints()[0]);
        within(limit, &what, answer).await.flatten()
    }

    /// With the first cause, such as "Connection refused".
    fn failed(&self, path: &str, error: &(dyn StdError + 'static)) -> Error {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        let cause = causes.last().unwrap_or(error);
        Error::registry(format!("{path} at {}: {cause}", self.url.endpoints()[0]))
    }
}

impl Watch {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        agent.watches.fetch_add(1, Ordering::Relaxed);
        Self(agent)
    }

    /// Waits until one of the connections for watches is free. Watches get them in the order in which
    /// they come.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn {
            agent: &self.0,
            _permit: permit(&self.0.watching).await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turn<'_> {
    /// The same as [`Agent::get`], with a shorter wait when there are more watches than connections.
    pub(super) async fn get<T: DeserializeOwned>(
        self,
        path: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(u64, T), Error> {
        let watches = self.agent.watches.load(Ordering::Relaxed);
        self.agent.get(path, index, turn(watches, wait)).await
    }
}

/// Returns how long one of so many watches may wait for a change before it is another's turn.
fn turn(watches: usize, wait: Duration) -> Duration {
    if watches <= MAX_WATCH_CONNECTIONS {
        return wait;
    }
    let share = CYCLE.mul_f64(MAX_WATCH_CONNECTIONS as f64 / watches as f64);
    share.max(MIN_TURN)
}

async fn permit(connections: &Semaphore) -> SemaphorePermit<'_> {
    let permit = connections.acquire().await;
    permit.expect("the semaphore is never closed")
}

impl Answer {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_take_turns_when_there_are_more_than_connections() {
        let wait = Duration::from_secs(4);
        assert_eq!(turn(1, wait), wait);
        assert_eq!(turn(60, wait), wait);
        assert_eq!(turn(120, wait), CYCLE / 2);
        assert_eq!(turn(500, wait), CYCLE * 60 / 500);
        assert_eq!(turn(100_000, wait), MIN_TURN);
    }
}
