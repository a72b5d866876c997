use std::convert::Infallible;
use std::time::Duration;

use tokio::time::timeout;
use zookeeper_client::{Client, CreateMode, Error as ZkError, EventType, SessionState};

use super::{ZooKeeperRegistry, failed};
use crate::registration::{Keeper, Registered};
use crate::{Error, ServiceNode};

/// Keeps a node's znode under a session of its own, whose time to live is the node's: creates it, and
/// watches it. The client renews the session and takes it to another server, if it soon can; any other
/// trouble ends in a new session and a new znode.
pub(super) struct SessionKeeper {
    zookeeper: ZooKeeperRegistry,
    service: String,
    path: String,
    value: String,
    ttl: Duration,
    client: Option<Client>,
    /// Our sessions that the znode may be of: the one that it was created in, and later ones, of
    /// whose attempts no good news came back.
    sessions: Vec<i64>,
    /// Whether the znode was ours once. Until then it is taken from whoever has it, who cannot be
    /// listening where we are; afterwards another owner is a successor and is left alone.
    owned: bool,
}

impl SessionKeeper {
    pub(super) fn new(zookeeper: ZooKeeperRegistry, node: &ServiceNode, ttl: Duration) -> Self {
        let service = zookeeper.path(&node.service);
        Self {
            zookeeper,
            path: format!("{service}/{}", node.address),
            service,
            value: node.to_json(),
            ttl,
            client: None,
            sessions: Vec::new(),
            owned: false,
        }
    }

    async fn try_hold(&mut self, registered: &Registered) -> Result<Infallible, Error> {
        let client = self.zookeeper.connect(self.ttl, true).await?;
        let session = client.session_id().0;
        self.sessions.push(session);
        self.client = Some(client.clone());
        self.create(&client).await?;
        self.owned = true;
        self.sessions = vec![session];
        registered.now();
        tokio::select! {
            over = self.stay(&client, session) => over,
            () = cut_off(&client, self.ttl / 3) => Err(Error::registry("the session has no server")),
        }
    }

    async fn create(&self, client: &Client) -> Result<(), Error> {
        let value = self.value.as_bytes();
        let ephemeral = CreateMode::Ephemeral.with_acls(self.zookeeper.acls());
        let mut made = client.create(&self.path, value, &ephemeral).await;
        // A service that is there is not created: we may only be allowed to add to it.
        if made == Err(ZkError::NoNode) {
            let persistent = CreateMode::Persistent.with_acls(self.zookeeper.acls());
            let service = client.mkdir(&self.service, &persistent).await;
            service.map_err(|error| failed("create the service", error))?;
            made = client.create(&self.path, value, &ephemeral).await;
        }
        match made {
            Ok(_) => Ok(()),
            Err(ZkError::NodeExists) => self.replace(client).await,
            Err(error) => Err(failed("create", error)),
        }
    }

    /// Puts our znode in the place of another, at once: a znode does not change its session.
    async fn replace(&self, client: &Client) -> Result<(), Error> {
        let path = &self.path;
        let stat = client.check_stat(path).await;
        let stat = stat.map_err(|error| failed("look", error))?;
        let stat = stat.ok_or_else(|| Error::registry(format!("{path} has just been changed")))?;
        if self.owned && !self.sessions.contains(&stat.ephemeral_owner) {
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

    /// Stays as long as the znode is there and the session's.
    async fn stay(&self, client: &Client, session: i64) -> Result<Infallible, Error> {
        loop {
            let look = client.check_and_watch_stat(&self.path).await;
            let (stat, change) = look.map_err(|error| failed("look", error))?;
            if stat.is_none_or(|stat| stat.ephemeral_owner != session) {
                let path = &self.path;
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

    /// Deletes the znode if it is one of ours.
    async fn leave(self) -> Result<(), Error> {
        let client = match self.client {
            None => return Ok(()), // it was never there
            Some(client) if !client.state().is_terminated() => client,
            Some(_) => self.zookeeper.connect(self.ttl, true).await?,
        };
        let stat = client.check_stat(&self.path).await;
        let stat = stat.map_err(|error| failed("look", error))?;
        let ours = stat.filter(|stat| self.sessions.contains(&stat.ephemeral_owner));
        let Some(stat) = ours else { return Ok(()) };
        match client.delete(&self.path, Some(stat.version)).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(failed("delete", error)),
        }
    }
}
