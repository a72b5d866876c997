use std::convert::Infallible;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, LeaseKeepAliveResponse, PutOptions, Txn, TxnOp};
use tokio::time::{MissedTickBehavior, interval};

use super::{EtcdRegistry, failed};
use crate::registration::{Keeper, Registered};
use crate::registry::limit::within;
use crate::{Error, ServiceNode};

/// What is asked when a lease is renewed, for errors.
const RENEW: &str = "keep lease alive";

/// [gRPC's code](https://grpc.io/docs/guides/status-codes/) for a lease that is gone.
const NOT_FOUND: i32 = 5;

/// Keeps a node's key under a lease: grants, puts, renews, looks whether the key is still there.
/// Any trouble ends in a new lease and a new put; the key moves over, the old lease expires empty.
pub(super) struct LeaseKeeper {
    etcd: EtcdRegistry,
    key: String,
    value: String,
    ttl: Duration,
    /// Our leases under which the key may be: the one it was put under, and later ones, of whose
    /// puts no good news came back.
    leases: Vec<i64>,
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
            leases: Vec::new(),
            owned: false,
        }
    }

    async fn try_hold(&mut self, registered: &Registered) -> Result<Infallible, Error> {
        let seen = self.look().await?;
        let (lease, ttl) = self.grant().await?;
        self.put(lease, seen).await?;
        registered.now();
        self.renew(lease, ttl).await
    }

    /// The revision at which the key was last written, 0 if it is not there.
    async fn look(&self) -> Result<i64, Error> {
        let answer = self
            .etcd
            .call("get", |mut c| async move { c.get(&*self.key, None).await });
        let Some(entry) = answer.await?.take_kvs().pop() else {
            return Ok(0);
        };
        if self.owned && !self.leases.contains(&entry.lease()) {
            let key = &self.key;
            return Err(Error::registry(format!("{key} is another process's now")));
        }
        Ok(entry.mod_revision())
    }

    /// A new lease, and its time to live: etcd may give more than was asked.
    async fn grant(&mut self) -> Result<(i64, Duration), Error> {
        let seconds = self.ttl.as_secs_f64().ceil() as i64;
        let grant = |mut c: Client| async move { c.lease_grant(seconds, None).await };
        let lease = self.etcd.call("grant lease", grant).await?;
        self.leases.push(lease.id());
        let ttl = Duration::from_secs(lease.ttl().max(1) as u64);
        Ok((lease.id(), ttl))
    }

    /// Writes the key, unless somebody else wrote it since it was `seen`.
    async fn put(&mut self, lease: i64, seen: i64) -> Result<(), Error> {
        let options = PutOptions::new().with_lease(lease);
        let write = Txn::new()
            .when([Compare::mod_revision(&*self.key, CompareOp::Equal, seen)])
            .and_then([TxnOp::put(&*self.key, &*self.value, Some(options))]);
        let answer = self.etcd.call("put", |mut client| {
            let write = write.clone();
            async move { client.txn(write).await }
        });
        if !answer.await?.succeeded() {
            let key = &self.key;
            return Err(Error::registry(format!("{key} has just been changed")));
        }
        self.owned = true;
        self.leases = vec![lease];
        Ok(())
    }

    /// Renews at a third of the time to live. When that fails, there is as much time again for a new
    /// lease before this one ends, and the key with it.
    async fn renew(&self, lease: i64, ttl: Duration) -> Result<Infallible, Error> {
        let open = |mut c: Client| async move { c.lease_keep_alive(lease).await };
        let (mut requests, mut answers) = self.etcd.call(RENEW, open).await?;
        let mut ticks = interval(ttl / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is at once, and opening was a renewal
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                unasked = answers.message() => renewed(unasked)?, // the stream's end
            }
            let request = requests.keep_alive().await;
            request.map_err(|error| failed(RENEW, error))?;
            renewed(within(ttl / 3, RENEW, answers.message()).await?)?;
            // Renewals go on when the key was deleted under a living lease.
            if self.look().await? == 0 {
                return Err(Error::registry(format!("{} was deleted", self.key)));
            }
        }
    }
}

fn renewed(
    answer: Result<Option<LeaseKeepAliveResponse>, etcd_client::Error>,
) -> Result<(), Error> {
    match answer.map_err(|error| failed(RENEW, error))? {
        Some(lease) if lease.ttl() > 0 => Ok(()),
        Some(_) => Err(Error::registry("the lease is gone")), // which etcd says with a 0
        None => Err(Error::registry("the stream of renewals ended")),
    }
}

impl Keeper for LeaseKeeper {
    async fn hold(&mut self, registered: &Registered) -> Error {
        match self.try_hold(registered).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Revokes its own leases, which takes the key with them. Deleting the key could hit a
    /// successor's.
    async fn leave(self) -> Result<(), Error> {
        for lease in self.leases {
            let revoke = |mut c: Client| async move {
                match c.lease_revoke(lease).await {
                    Err(etcd_client::Error::GRpcStatus(status))
                        if i32::from(status.code()) == NOT_FOUND =>
                    {
                        Ok(()) // it is gone already
                    }
                    revoked => revoked.map(drop),
                }
            };
            self.etcd.call("revoke lease", revoke).await?;
        }
        Ok(())
    }
}
