//! A node in etcd: a key under a lease ([lease API][1]) that is renewed at a third of its TTL.
//!
//! The invariant: it writes the key only if the key has not changed since it was read (a transaction on
//! the mod revision), and removes it only by revoking its own leases. So it never touches the entry of a
//! new owner. Any error ends [`Registrar::maintain`], which is called again with backoff.
//!
//! [1]: https://etcd.io/docs/v3.5/learning/api/#lease-api

use std::convert::Infallible;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, LeaseKeepAliveResponse, PutOptions, Txn, TxnOp};
use tokio::time::{MissedTickBehavior, interval};

use super::{EtcdRegistry, failed};
use crate::registration::{Registrar, RegistrationStatus};
use crate::registry::limit::within;
use crate::{Error, ServiceNode};

/// Name of the renewal in errors.
const RENEWAL: &str = "keep lease alive";

/// [gRPC's status code](https://grpc.io/docs/guides/status-codes/) of a lease that does not exist.
const NOT_FOUND: i32 = 5;

/// Keeps a node's key under a lease: grants, puts, renews, and checks that the key still exists. Any
/// error leads to a new lease and a new put: the key moves to it, and the old lease expires without keys.
pub(super) struct LeaseRegistrar {
    etcd: EtcdRegistry,
    key: String,
    value: String,
    ttl: Duration,
    /// Own leases that the key may be under: the one of the last confirmed put, and later ones whose puts
    /// were not confirmed.
    leases: Vec<i64>,
    /// Set once the key was put. Until then the key is taken over from any owner, which cannot be listening
    /// at the same address; afterwards another owner is a new process and keeps it.
    owned: bool,
}

impl LeaseRegistrar {
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

    async fn try_maintain(&mut self, status: &RegistrationStatus) -> Result<Infallible, Error> {
        let seen = self.read_revision().await?;
        let (lease, ttl) = self.grant().await?;
        self.put(lease, seen).await?;
        status.set_registered();
        self.renew(lease, ttl).await
    }

    /// Returns the revision of the last write of the key, 0 if it does not exist.
    ///
    /// # Errors
    /// If the key has a new owner.
    async fn read_revision(&self) -> Result<i64, Error> {
        let response = self
            .etcd
            .call("get", |mut c| async move { c.get(&*self.key, None).await });
        let Some(entry) = response.await?.take_kvs().pop() else {
            return Ok(0);
        };
        if self.owned && !self.leases.contains(&entry.lease()) {
            let key = &self.key;
            return Err(Error::registry(format!("{key} has a new owner")));
        }
        Ok(entry.mod_revision())
    }

    /// Grants a lease. Returns its id and its TTL, which may be longer than requested.
    async fn grant(&mut self) -> Result<(i64, Duration), Error> {
        let seconds = self.ttl.as_secs_f64().ceil() as i64;
        let grant = |mut c: Client| async move { c.lease_grant(seconds, None).await };
        let lease = self.etcd.call("grant lease", grant).await?;
        self.leases.push(lease.id());
        let ttl = Duration::from_secs(lease.ttl().max(1) as u64);
        Ok((lease.id(), ttl))
    }

    /// Writes the key, unless it was written since revision `seen`.
    async fn put(&mut self, lease: i64, seen: i64) -> Result<(), Error> {
        let options = PutOptions::new().with_lease(lease);
        let write = Txn::new()
            .when([Compare::mod_revision(&*self.key, CompareOp::Equal, seen)])
            .and_then([TxnOp::put(&*self.key, &*self.value, Some(options))]);
        let response = self.etcd.call("put", |mut client| {
            let write = write.clone();
            async move { client.txn(write).await }
        });
        if !response.await?.succeeded() {
            let key = &self.key;
            return Err(Error::registry(format!("{key} has just been changed")));
        }
        self.owned = true;
        self.leases = vec![lease];
        Ok(())
    }

    /// Renews at a third of the TTL. When that fails, a third of the TTL is left for a new lease before this
    /// one expires, and the key with it.
    async fn renew(&self, lease: i64, ttl: Duration) -> Result<Infallible, Error> {
        let open = |mut c: Client| async move { c.lease_keep_alive(lease).await };
        let (mut requests, mut responses) = self.etcd.call(RENEWAL, open).await?;
        let mut ticks = interval(ttl / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // completes at once; opening the stream was a renewal
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                unrequested = responses.message() => renewed(unrequested)?, // end of the stream
            }
            let request = requests.keep_alive().await;
            request.map_err(|error| failed(RENEWAL, error))?;
            renewed(within(ttl / 3, RENEWAL, responses.message()).await?)?;
            // Renewals succeed although the key was deleted: the lease still exists.
            if self.read_revision().await? == 0 {
                return Err(Error::registry(format!("{} was deleted", self.key)));
            }
        }
    }
}

fn renewed(
    response: Result<Option<LeaseKeepAliveResponse>, etcd_client::Error>,
) -> Result<(), Error> {
    match response.map_err(|error| failed(RENEWAL, error))? {
        Some(lease) if lease.ttl() > 0 => Ok(()),
        Some(_) => Err(Error::registry("the lease has expired")), // a TTL of 0
        None => Err(Error::registry("the stream of renewals ended")),
    }
}

impl Registrar for LeaseRegistrar {
    async fn maintain(&mut self, status: &RegistrationStatus) -> Error {
        match self.try_maintain(status).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Revokes its own leases, which removes the key with them. Deleting the key could remove a new
    /// owner's.
    async fn deregister(self) -> Result<(), Error> {
        for lease in self.leases {
            let revoke = |mut c: Client| async move {
                match c.lease_revoke(lease).await {
                    Err(etcd_client::Error::GRpcStatus(status))
                        if i32::from(status.code()) == NOT_FOUND =>
                    {
                        Ok(()) // it has expired
                    }
                    revoked => revoked.map(drop),
                }
            };
            self.etcd.call("revoke lease", revoke).await?;
        }
        Ok(())
    }
}
