//! Which registration of a registry object owns a znode.
//!
//! All registrations of the same TTL share a session, so the [ephemeral owner][1] of a znode does not
//! distinguish them. The invariant: at most one registration per path, the last one that seized it.
//!
//! [1]: https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html#sc_zkStatStructure

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Numbers of the registrations, by the path of their znodes.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, u64>>);

/// The right of one registration to a path. Dropping it gives the path up.
pub(super) struct Claim {
    claims: Arc<Claims>,
    path: String,
    number: u64,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Creates a claim that is not taken yet.
    pub(super) fn new(claims: Arc<Claims>, path: String) -> Self {
        let number = fastrand::u64(..);
        Self {
            claims,
            path,
            number,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Takes the path, also if another registration has it.
    pub(super) fn seize(&self) {
        self.claims.lock().insert(self.path.clone(), self.number);
    }

    /// Takes the path unless another registration has it. Returns true if this claim has it.
    pub(super) fn take(&self) -> bool {
        let mut claims = self.claims.lock();
        *claims.entry(self.path.clone()).or_insert(self.number) == self.number
    }

    pub(super) fn is_own(&self) -> bool {
        self.claims.lock().get(&self.path) == Some(&self.number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        if claims.get(&self.path) == Some(&self.number) {
            claims.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_seizure_owns_a_path() {
        let claims = Arc::new(Claims::default());
        let [old, new] = [(); 2].map(|()| Claim::new(claims.clone(), "/a".into()));
        old.seize();
        new.seize();
        assert!(!old.is_own() && !old.take() && new.is_own() && new.take());
        drop(old);
        assert!(new.is_own(), "the old claim gave up nothing");
        let other = Claim::new(claims.clone(), "/b".into());
        assert!(other.take());
        drop(new);
        drop(other);
        assert!(claims.lock().is_empty());
    }
}
