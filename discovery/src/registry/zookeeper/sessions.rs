//! The sessions of one registry object, shared by all of its watches and registrations: a server accepts
//! 60 connections of a client's address by default ([`maxClientCnxns`][1]).
//!
//! There is one session for all watches, and one for all registrations with the same TTL: the TTL is
//! the session's timeout, because a server deletes a dead process's znodes when that is over. The
//! invariant: a session lives as long as it has users, and belongs to the runtime that opened it, where
//! its client is a task.
//!
//! [1]: https://zookeeper.apache.org/doc/current/zookeeperAdmin.html#sc_configuration

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared, join_all};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zookeeper_client::{Client, SessionState};

use crate::{Error, RegistryUrl};

/// Timeout of the session for watches. The client considers a server dead after two fifths of it.
const WATCH_SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Maximum duration of each step of a diagnosis.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_millis(500);

/// Use of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Watching services. The session is closed with its last user.
    Watches,
    /// Registrations with this TTL. The session is not closed: nodes whose process ends stay
    /// registered until their TTL is over.
    Registrations(Duration),
}

/// A session that several users share.
pub(super) struct Session {
    client: Client,
    /// Password with which it was opened. A new one in the password file needs a new session.
    password: Option<String>,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

pub(super) struct Sessions {
    url: RegistryUrl,
    slots: Mutex<HashMap<(Id, Purpose), Slot>>,
}

#[derive(Default)]
struct Slot {
    session: Weak<Session>,
    attempt: Option<WeakShared<Attempt>>,
}

/// Opens a session, or returns the reason why that failed.
type Attempt = BoxFuture<'static, Result<Arc<Session>, String>>;

impl Sessions {
    pub(super) fn new(url: RegistryUrl) -> Self {
        Self {
            url,
            slots: Mutex::default(),
        }
    }

    /// Returns the session for this purpose, and opens it if none is connected. Concurrent callers share the
    /// attempt and its failure.
    pub(super) async fn get(&self, purpose: Purpose) -> Result<Arc<Session>, Error> {
        let user = self.url.access.user.as_ref();
        let password = user.map(|user| user.password.read()).transpose()?;
        let key = (Handle::current().id(), purpose);
        let attempt = {
            let mut slots = self.slots();
            slots.retain(|_, slot| slot.is_used());
            let slot = slots.entry(key).or_default();
            match slot.connected(password.as_ref()) {
                Some(session) => return Ok(session),
                None => slot.attempt(|| open(self.url.clone(), password, purpose).boxed()),
            }
        };
        let session = attempt.await.map_err(Error::registry)?;
        self.slots().entry(key).or_default().session = Arc::downgrade(&session);
        Ok(session)
    }

    /// Locks a std mutex, which is held for one look-up in a map.
    fn slots(&self) -> MutexGuard<'_, HashMap<(Id, Purpose), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn is_used(&self) -> bool {
        let attempt = self.attempt.as_ref().and_then(WeakShared::upgrade);
        self.session.strong_count() > 0 || attempt.is_some()
    }

    fn connected(&self, password: Option<&String>) -> Option<Arc<Session>> {
        let session = self.session.upgrade()?;
        let is_connected = session.state() == SessionState::SyncConnected;
        (is_connected && session.password.as_ref() == password).then_some(session)
    }

    fn attempt(&mut self, begin: impl FnOnce() -> Attempt) -> Shared<Attempt> {
        if let Some(attempt) = self.attempt.as_ref().and_then(WeakShared::upgrade) {
            return attempt;
        }
        let attempt = begin().shared();
        self.attempt = attempt.downgrade();
        attempt
    }
}

impl Session {
    /// Runs a task until it ends or the session has lost its last user. The task must not be a user of the
    /// session itself.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Opens a session. The server may grant another timeout than requested: two to twenty of its ticks.
async fn open(
    url: RegistryUrl,
    password: Option<String>,
    purpose: Purpose,
) -> Result<Arc<Session>, String> {
    let mut servers = url.endpoints().to_vec();
    fastrand::shuffle(&mut servers); // so that clients spread over a cluster
    let connector = Client::connector().with_fail_eagerly();
    let mut connector = match purpose {
        Purpose::Watches => connector.with_session_timeout(WATCH_SESSION_TIMEOUT),
        Purpose::Registrations(ttl) => connector.with_session_timeout(ttl).with_detached(),
    };
    if let (Some(user), Some(password)) = (&url.access.user, &password) {
        let digest = format!("{}:{password}", user.name);
        connector = connector.with_auth("digest", digest.as_bytes());
    }
    match connector.connect(&servers.join(",")).await {
        Ok(client) => Ok(Arc::new(Session {
            client,
            password,
            runtime: Handle::current(),
            tasks: Mutex::default(),
        })),
        Err(error) => Err(format!("connect: {error}: {}", diagnosis(&servers).await)),
    }
}

/// Returns the result of a plain connection to each server. The client's own error is the same for all
/// causes.
async fn diagnosis(servers: &[String]) -> String {
    let causes = servers.iter().map(async |server| {
        let cause = cause(server).await;
        format!("{server}: {cause}")
    });
    join_all(causes).await.join(", ")
}

async fn cause(server: &str) -> String {
    let stream = match timeout(DIAGNOSIS_TIMEOUT, TcpStream::connect(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no connection in time".into(),
    };
    // A server does not send first: the socket becomes readable when the connection is closed.
    let readable = timeout(DIAGNOSIS_TIMEOUT, stream.readable()).await;
    match readable.map(|_| stream.try_read(&mut [0])) {
        Ok(Ok(0)) => {}
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {}
        _ => return "accepts connections, but no session".into(),
    }
    "closed the connection at once: more than its maxClientCnxns from this address?".into()
}
