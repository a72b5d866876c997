use std::convert::Infallible;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::time::{MissedTickBehavior, interval};

use super::{EtcdRegistry, failed, within};
use crate::registration::{Keeper, Registered};
use crate::{Error, ServiceNode};

/// Keeps a node's key under a lease: grants, puts, renews, looks whether the key is still there.
/// Any trouble ends in a new lease and a new put; the key moves over, the old lease expires empty.
pub(super) struct LeaseKeeper {
    etcd: EtcdRegistry,
    key: String,
    value: String,
    ttl: Duration,
    /// Our latest lease, alive or not.
    lease: Option<i64>,
    /// Whether the key was ours once. Until then it is taken from whoever has it, who cannot be
    /// listening where we are; afterwards another owner is a successor and is left alone.
    owned: bool,
}

impl LeaseKeeper {
    pub(super) fn new(etcd: EtcdRegistry, node: &ServiceNode, ttl: Duration) -> Self {
        let key = format!("{}{}", etcd.service_prefix(&node.service), node.address);
        Self {
            etcd,
            key,
            value: node.to_json(),
            ttl,
            lease: None,
            owned: false,
        }
    }

    async fn try_hold(&mut self, registered: &Registered) -> Result<Infallible, Error> {
        let seen = self.look().await?;
        let ttl = self.grant().await?;
        self.put(seen).await?;
        registered.now();
        self.renew(ttl).await
    }

    /// The revision at which the key was last written, 0 if it is not there.
    async fn look(&self) -> Result<i64, Error> {
        let answer = self
            .etcd
            .call("get", |mut c| async move { c.get(&*self.key, None).await });
        let Some(entry) = answer.await?.take_kvs().pop() else {
            return Ok(0);
        };
        if self.owned && Some(entry.lease()) != self.lease {
            return Err(Error::registry(format!(
                "{} belongs to another process now",
                self.key
            )));
        }
        Ok(entry.mod_revision())
    }

    /// A new lease. Returns the time to live that was granted: etcd may give more than was asked.
    async fn grant(&mut self) -> Result<Duration, Error> {
        let seconds = self.ttl.as_secs_f64().ceil() as i64;
        let grant = |mut c: etcd_client::Client| async move { c.lease_grant(seconds, None).await };
        let lease = self.etcd.call("grant lease", grant).await?;
        self.lease = Some(lease.id());
        Ok(Duration::from_secs(lease.ttl().max(1) as u64))
    }

    /// Writes the key, unless somebody else wrote it since it was `seen`.
    async fn put(&mut self, seen: i64) -> Result<(), Error> {
        let options = PutOptions::new().with_lease(self.lease.unwrap_or_default());
        let write = Txn::new()
            .when([Compare::mod_revision(&*self.key, CompareOp::Equal, seen)])
            .and_then([TxnOp::put(&*self.key, &*self.value, Some(options))]);
        let answer = self.etcd.call("put", |mut client| {
            let write = write.clone();
            async move { client.txn(write).await }
        });
        if !answer.await?.succeeded() {
            return Err(Error::registry(format!(
                "{} was written by another process",
                self.key
            )));
        }
        self.owned = true;
        Ok(())
    }

    /// Renews at a third of the time to live, so that two renewals may fail before the lease does.
    async fn renew(&self, ttl: Duration) -> Result<Infallible, Error> {
        let lease = self.lease.unwrap_or_default();
        let open = |mut c: etcd_client::Client| async move { c.lease_keep_alive(lease).await };
        let (mut requests, mut answers) = self.etcd.call("keep lease alive", open).await?;
        let mut ticks = interval(ttl / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is at once, and opening was a renewal
        loop {
            ticks.tick().await;
            requests
                .keep_alive()
                .await
                .map_err(|error| failed("keep lease alive", error))?;
            let answer = within(ttl / 3, "keep lease alive", answers.message()).await?;
            // etcd answers the renewal of a lease that is gone with a time to live of 0.
            match answer.map_err(|error| failed("keep lease alive", error))? {
                Some(renewed) if renewed.ttl() > 0 => {}
                Some(_) => return Err(Error::registry("the lease is gone")),
                None => return Err(Error::registry("the stream of renewals ended")),
            }
            // Renewals go on when the key was deleted under a living lease.
            if self.look().await? == 0 {
                return Err(Error::registry(format!("{} was deleted", self.key)));
            }
        }
    }
}

impl Keeper for LeaseKeeper {
    async fn hold(&mut self, registered: &Registered) -> Error {
        match self.try_hold(registered).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Revokes its own lease, which takes the key with it. Deleting the key could hit a successor's.
    async fn leave(self) -> Result<(), Error> {
        let Some(lease) = self.lease else {
            return Ok(());
        };
        let revoke = |mut c: etcd_client::Client| async move { c.lease_revoke(lease).await };
        self.etcd.call("revoke lease", revoke).await.map(drop)
    }
}
