use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, CreateMode, Error as ZkError, EventType, SessionState, Stat};

use super::claims::Claim;
use super::sessions::{Purpose, Session};
use super::{ZooKeeperRegistry, failed};
use crate::registration::{Keeper, Registered};
use crate::{Error, ServiceNode};

/// How long to wait before the znode of a dropped registration is deleted again.
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// Keeps a node's znode in the session for registrations of its TTL: creates it, and watches it. The
/// client renews the session and takes it to another server, if it soon can; any other trouble ends
/// in a new znode, and in a new session where that is needed.
pub(super) struct SessionKeeper {
    zookeeper: ZooKeeperRegistry,
    service: String,
    value: String,
    ttl: Duration,
    session: Option<Arc<Session>>,
    znode: Znode,
    /// Whether the znode was ours once. Until then it is taken over from its owner, which cannot be
    /// listening at our address; afterwards another owner is a successor and is left alone.
    owned: bool,
}

/// The znode of one registration.
#[derive(Clone)]
struct Znode {
    claim: Arc<Claim>,
    /// Our sessions that it may be of: the one that it was created in, and later ones, of whose
    /// attempts no good news came back.
    sessions: Vec<i64>,
}

impl Znode {
    fn path(&self) -> &str {
        self.claim.path()
    }

    fn is_ours(&self, stat: &Stat) -> bool {
        self.claim.is_ours() && self.sessions.contains(&stat.ephemeral_owner)
    }

    /// Deletes it if it is ours.
    async fn delete(&self, client: &Client) -> Result<(), Error> {
        if !self.claim.is_ours() {
            return Ok(());
        }
        let stat = client.check_stat(self.path()).await;
        let stat = stat.map_err(|error| failed("look", error))?;
        let Some(stat) = stat.filter(|stat| self.is_ours(stat)) else {
            return Ok(());
        };
        match client.delete(self.path(), Some(stat.version)).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(failed("delete", error)),
        }
    }

    /// Deletes it after its TTL if it is still ours.
    async fn expire(self, client: Client, ttl: Duration) {
        sleep(ttl).await;
        while let Err(error) = self.delete(&client).await {
            if client.state().is_terminated() {
                return; // and the znode is gone
            }
            log::debug!(path = self.path(), error:%; "not deleted yet");
            sleep(DELETE_RETRY).await;
        }
    }
}

impl SessionKeeper {
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

    async fn try_hold(&mut self, registered: &Registered) -> Result<Infallible, Error> {
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
        registered.now();
        tokio::select! {
            over = self.stay(&session) => over,
            () = cut_off(&session, self.ttl / 3) => Err(Error::registry("the session has no server")),
        }
    }

    fn claim(&self) -> Result<(), Error> {
        if !self.owned {
            self.znode.claim.seize();
        } else if !self.znode.claim.take() {
            let path = self.znode.path();
            return Err(Error::registry(format!(
                "{path} is another registration's now"
            )));
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
        let mut made = client.create(path, value, &ephemeral).await;
        // A service that is there is not created: we may only be allowed to add to it.
        if made == Err(ZkError::NoNode) {
            let persistent = CreateMode::Persistent.with_acls(self.zookeeper.acls());
            let service = client.mkdir(&self.service, &persistent).await;
            service.map_err(|error| failed("create the service", error))?;
            made = client.create(path, value, &ephemeral).await;
        }
        match made {
            Ok(_) => Ok(()),
            Err(ZkError::NodeExists) => self.replace(client).await,
            Err(error) => Err(failed("create", error)),
        }
    }

    /// Puts our znode in the place of another, at once: a znode does not change its session.
    async fn replace(&self, client: &Client) -> Result<(), Error> {
        let path = self.znode.path();
        let stat = client.check_stat(path).await;
        let stat = stat.map_err(|error| failed("look", error))?;
        let stat = stat.ok_or_else(|| Error::registry(format!("{path} has just been changed")))?;
        if self.owned && !self.znode.is_ours(&stat) {
            return Err(Error::registry(format!("{path} is another process's now")));
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

    /// Stays as long as the znode is there and ours.
    async fn stay(&self, client: &Client) -> Result<Infallible, Error> {
        let path = self.znode.path();
        loop {
            let look = client.check_and_watch_stat(path).await;
            let (stat, change) = look.map_err(|error| failed("look", error))?;
            if stat.is_none_or(|stat| !self.znode.is_ours(&stat)) {
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

/// Waits until a session has been without a server for so long. Its client would try for the session's
/// whole time to live, also where that is hopeless: a server that has seen less than the client
/// did, such as an empty one in the place of the old, refuses the session and takes a new one.
async fn cut_off(client: &Client, limit: Duration) {
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

impl Keeper for SessionKeeper {
    async fn hold(&mut self, registered: &Registered) -> Error {
        match self.try_hold(registered).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Deletes the znode if it is ours. The session may go on for others.
    async fn leave(mut self) -> Result<(), Error> {
        let session = match &self.session {
            None => return Ok(()), // it was never there
            Some(session) if !session.state().is_terminated() => session.clone(),
            Some(_) => self.open().await?,
        };
        self.znode.delete(&session).await?;
        self.session = None;
        Ok(())
    }
}

impl Drop for SessionKeeper {
    /// Leaves the znode to its TTL, as the process's death would: the server deletes it with the
    /// session, or we do if the session goes on for others.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let client = Client::clone(&session);
            session.spawn(self.znode.clone().expire(client, self.ttl));
        }
    }
}
