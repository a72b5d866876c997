//! A node in ZooKeeper: an [ephemeral znode][1] in a session whose timeout is the TTL.
//!
//! The client renews the session and moves it to another server. The invariant: a znode is replaced in one
//! transaction, and deleted only if both its claim and its session are this registration's. A dropped
//! registration leaves its znode to the TTL. Any error ends [`Registrar::maintain`], which is called again
//! with backoff.
//!
//! [1]: https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html#Ephemeral+Nodes

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, CreateMode, Error as ZkError, EventType, SessionState, Stat};

use super::claims::Claim;
use super::sessions::{Purpose, Session};
use super::{ZooKeeperRegistry, failed};
use crate::registration::{Registrar, RegistrationStatus};
use crate::{Error, ServiceNode};

/// Interval between attempts to delete the znode of a dropped registration.
const DELETE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps a node's znode in the session for registrations of its TTL: creates it, and watches it. Any error
/// leads to a new znode, and to a new session if that is needed.
pub(super) struct SessionRegistrar {
    zookeeper: ZooKeeperRegistry,
    service: String,
    value: String,
    ttl: Duration,
    session: Option<Arc<Session>>,
    znode: Znode,
    /// Set once the znode was created. Until then it is taken over from any owner, which cannot be listening
    /// at the same address; afterwards another owner is a new process and keeps it.
    owned: bool,
}

/// The znode of one registration.
#[derive(Clone)]
struct Znode {
    claim: Arc<Claim>,
    /// Own sessions that it may be in: the one of the last confirmed attempt to create it, and later ones
    /// whose attempts were not confirmed.
    sessions: Vec<i64>,
}

impl Znode {
    fn path(&self) -> &str {
        self.claim.path()
    }

    fn is_own(&self, stat: &Stat) -> bool {
        self.claim.is_own() && self.sessions.contains(&stat.ephemeral_owner)
    }

    /// Deletes it if it belongs to this registration.
    async fn delete(&self, client: &Client) -> Result<(), Error> {
        if !self.claim.is_own() {
            return Ok(());
        }
        let stat = client.check_stat(self.path()).await;
        let stat = stat.map_err(|error| failed("stat", error))?;
        let Some(stat) = stat.filter(|stat| self.is_own(stat)) else {
            return Ok(());
        };
        match client.delete(self.path(), Some(stat.version)).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(failed("delete", error)),
        }
    }

    /// Deletes it after its TTL if it still belongs to this registration.
    async fn expire(self, client: Client, ttl: Duration) {
        sleep(ttl).await;
        while let Err(error) = self.delete(&client).await {
            if client.state().is_terminated() {
                return; // the server deletes the znode
            }
            log::debug!(path = self.path(), error:%; "znode not deleted, retrying");
            sleep(DELETE_RETRY_INTERVAL).await;
        }
    }
}

impl SessionRegistrar {
    pub(super) fn new(zookeeper: ZooKeeperRegistry, node: &ServiceNode, ttl: Duration) -> Self {
        let service = zookeeper.path(&node.service);
        let path = format!("{service}/{}", node.address);
        Self {
            znode: Znode {
                claim: Arc::new(Claim::new(zookeeper.claims.clone(), path)),
                sessions: Vec::new(),
            },
            zookeeper,
            service,
            value: node.to_json(),
            ttl,
            session: None,
            owned: false,
        }
    }

    async fn try_maintain(&mut self, status: &RegistrationStatus) -> Result<Infallible, Error> {
        self.claim()?;
        let session = self.open().await?;
        let id = session.session_id().0;
        if !self.znode.sessions.contains(&id) {
            self.znode.sessions.push(id);
        }
        self.session = Some(session.clone());
        self.create(&session).await?;
        self.owned = true;
        self.znode.sessions = vec![id];
        status.set_registered();
        tokio::select! {
            ended = self.watch(&session) => ended,
            () = disconnected(&session, self.ttl / 3) => Err(Error::registry("the session has no server")),
        }
    }

    fn claim(&self) -> Result<(), Error> {
        if !self.owned {
            self.znode.claim.seize();
        } else if !self.znode.claim.take() {
            let path = self.znode.path();
            return Err(Error::registry(format!("{path} has a new owner")));
        }
        Ok(())
    }

    async fn open(&self) -> Result<Arc<Session>, Error> {
        let purpose = Purpose::Registrations(self.ttl);
        self.zookeeper.sessions.get(purpose).await
    }

    async fn create(&self, client: &Client) -> Result<(), Error> {
        let (path, value) = (self.znode.path(), self.value.as_bytes());
        let ephemeral = CreateMode::Ephemeral.with_acls(self.zookeeper.acls());
        let mut created = client.create(path, value, &ephemeral).await;
        // The service is created only if it does not exist: the user may be allowed to add children only.
        if created == Err(ZkError::NoNode) {
            let persistent = CreateMode::Persistent.with_acls(self.zookeeper.acls());
            let service = client.mkdir(&self.service, &persistent).await;
            service.map_err(|error| failed("create the service", error))?;
            created = client.create(path, value, &ephemeral).await;
        }
        match created {
            Ok(_) => Ok(()),
            Err(ZkError::NodeExists) => self.replace(client).await,
            Err(error) => Err(failed("create", error)),
        }
    }

    /// Replaces a znode by an own one, in one transaction: a znode cannot change its session.
    async fn replace(&self, client: &Client) -> Result<(), Error> {
        let path = self.znode.path();
        let stat = client.check_stat(path).await;
        let stat = stat.map_err(|error| failed("stat", error))?;
        let stat = stat.ok_or_else(|| Error::registry(format!("{path} has just been changed")))?;
        if self.owned && !self.znode.is_own(&stat) {
            return Err(Error::registry(format!("{path} has a new owner")));
        }
        let ephemeral = CreateMode::Ephemeral.with_acls(self.zookeeper.acls());
        let mut both = client.new_multi_writer();
        both.add_delete(path, Some(stat.version))
            .and_then(|()| both.add_create(path, self.value.as_bytes(), &ephemeral))
            .map_err(|error| failed("replace", error))?;
        let replaced = both.commit().await;
        replaced.map_err(|error| failed("replace", error))?;
        Ok(())
    }

    /// Returns an error when the znode does not belong to this registration any more.
    async fn watch(&self, client: &Client) -> Result<Infallible, Error> {
        let path = self.znode.path();
        loop {
            let stat = client.check_and_watch_stat(path).await;
            let (stat, change) = stat.map_err(|error| failed("stat", error))?;
            if stat.is_none_or(|stat| !self.znode.is_own(&stat)) {
                return Err(Error::registry(format!("{path} was deleted or replaced")));
            }
            let event = change.changed().await;
            if event.event_type == EventType::Session {
                let state = event.session_state;
                return Err(Error::registry(format!("the session is over: {state}")));
            }
        }
    }
}

/// Waits until a session has been without a server for `limit`. Its client would retry for the session's
/// whole timeout, even without a chance: a server whose last transaction is older than the client's, such
/// as an empty one that took over, refuses the session and accepts a new one.
async fn disconnected(client: &Client, limit: Duration) {
    let mut states = client.state_watcher();
    let mut state = states.state();
    loop {
        let next = states.changed();
        state = match state {
            SessionState::Disconnected => match timeout(limit, next).await {
                Ok(next) => next,
                Err(_) => return,
            },
            _ => next.await,
        };
    }
}

impl Registrar for SessionRegistrar {
    async fn maintain(&mut self, status: &RegistrationStatus) -> Error {
        match self.try_maintain(status).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Deletes the znode if it belongs to this registration. The session stays open for others.
    async fn deregister(mut self) -> Result<(), Error> {
        let session = match &self.session {
            None => return Ok(()), // it was never created
            Some(session) if !session.state().is_terminated() => session.clone(),
            Some(_) => self.open().await?,
        };
        self.znode.delete(&session).await?;
        self.session = None;
        Ok(())
    }
}

impl Drop for SessionRegistrar {
    /// Leaves the znode to its TTL, as the process's death would. The server deletes it with the session,
    /// or a task does if the session stays open for others.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let client = Client::clone(&session);
            session.spawn(self.znode.clone().expire(client, self.ttl));
        }
    }
}
