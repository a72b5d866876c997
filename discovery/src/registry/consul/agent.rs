//! Requests to a Consul agent, over a bounded number of connections.
//!
//! An agent limits the connections of one address ([`http_max_conns_per_client`][1], 200 by default), and
//! each blocking query holds one. So there are limits for watches, registrations and short requests, and
//! watches take turns above theirs. The invariant: every request has a time limit. What to request is
//! decided in `check.rs` and `watch.rs`.
//!
//! [1]: https://developer.hashicorp.com/consul/docs/agent/config/config-files#http_max_conns_per_client

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

/// Time that an agent has to respond, in addition to the `wait` of a blocking query.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum size of a response.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Maximum number of connections for watches. More than one process may share the client's address.
const MAX_WATCH_CONNECTIONS: usize = 60;

/// Maximum number of nodes being registered at once. Each holds a connection until the servers have it.
const MAX_REGISTERING: usize = 20;

/// Maximum number of connections for the short requests that keep nodes registered or deregister them.
const MAX_SHORT_CONNECTIONS: usize = 20;

/// Time in which each watch has a turn, when watches take turns.
const TURN_CYCLE: Duration = Duration::from_secs(2);

/// Minimum duration of a turn: with very many watches a cycle takes longer.
const MIN_TURN: Duration = Duration::from_millis(200);

/// A Consul agent, which forwards requests to the servers.
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

/// An HTTP response of the agent.
struct Response {
    status: StatusCode,
    /// Consul's index of the state, `X-Consul-Index`. A blocking query waits for a larger one.
    index: u64,
    body: Vec<u8>,
}

impl Agent {
    pub(super) fn new(url: RegistryUrl) -> Self {
        // A connection for each request: a pooled one may be dead without notice, and a node has only
        // three requests per TTL.
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

    /// Waits until one of the connections for registering is free. The requests of a registration are sent
    /// while the permit is held.
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

    /// Sends a change to the agent. Returns false if the agent does not have its object.
    pub(super) async fn put(&self, path: &str, body: String) -> Result<bool, Error> {
        let response = self.send(Method::PUT, path, body, RESPONSE_TIMEOUT).await?;
        // A missing check is a 404 only since Consul 1.11.
        let is_missing = response.text().contains("does not have associated TTL");
        if response.status == StatusCode::NOT_FOUND || is_missing {
            return Ok(false);
        }
        self.checked(path, response).map(|_| true)
    }

    /// Sends a blocking query: returns the value and its index once that is larger than `index`, or after
    /// `wait` and up to a sixteenth of it. With index 0 it does not wait.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(u64, T), Error> {
        let wait = if index == 0 { Duration::ZERO } else { wait };
        let mark = if path.contains('?') { '&' } else { '?' };
        let path_and_query = format!("{path}{mark}index={index}&wait={}ms", wait.as_millis());
        let limit = RESPONSE_TIMEOUT + wait + wait / 16;
        let response = self.send(Method::GET, &path_and_query, String::new(), limit);
        let response = self.checked(path, response.await?)?;
        let value = serde_json::from_slice(&response.body);
        let value = value.map_err(|error| self.failed(path, &error))?;
        Ok((response.index, value))
    }

    fn checked(&self, path: &str, response: Response) -> Result<Response, Error> {
        if response.status.is_success() {
            return Ok(response);
        }
        let (at, status) = (&self.url.endpoints()[0], response.status);
        let reason: String = response.text().chars().take(200).collect();
        Err(Error::registry(format!(
            "{path} at {at}: {status} {reason}"
        )))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> Result<Response, Error> {
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
        let response = async {
            let response = self.client.request(request).await;
            let (head, body) = response
                .map_err(|error| self.failed(path, &error))?
                .into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
            let body = body.map_err(|error| self.failed(path, &*error))?;
            let index = head.headers.get("x-consul-index");
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            Ok(Response {
                status: head.status,
                index: index.unwrap_or(0),
                body: body.to_bytes().into(),
            })
        };
        let what = format!("{path} at {}", self.url.endpoints()[0]);
        within(limit, &what, response).await.flatten()
    }

    /// Returns an error with the root cause, such as "Connection refused".
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

    /// Waits until one of the connections for watches is free. Watches get them in order of arrival.
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
    /// Sends a query as [`Agent::get`] does, with a shorter wait when there are more watches than connections.
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

/// Returns how long one of `watches` may wait for a change before the next one has its turn.
fn turn(watches: usize, wait: Duration) -> Duration {
    if watches <= MAX_WATCH_CONNECTIONS {
        return wait;
    }
    let share = TURN_CYCLE.mul_f64(MAX_WATCH_CONNECTIONS as f64 / watches as f64);
    share.max(MIN_TURN)
}

async fn permit(connections: &Semaphore) -> SemaphorePermit<'_> {
    let permit = connections.acquire().await;
    permit.expect("the semaphore is never closed")
}

impl Response {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_take_turns_above_the_limit() {
        let wait = Duration::from_secs(4);
        assert_eq!(turn(1, wait), wait);
        assert_eq!(turn(60, wait), wait);
        assert_eq!(turn(120, wait), TURN_CYCLE / 2);
        assert_eq!(turn(500, wait), TURN_CYCLE * 60 / 500);
        assert_eq!(turn(100_000, wait), MIN_TURN);
    }
}
