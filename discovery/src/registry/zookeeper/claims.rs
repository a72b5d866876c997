//! Which registration of this registry object has a znode. All of them share a session, so the
//! session that a znode belongs to does not say it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The registrations by the path of their znodes, each with a number of its own.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, u64>>);

/// The right of one registration to a path, given up when this is dropped.
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
    /// A claim that was not taken yet.
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

    /// Takes the path unless another registration has it. Returns whether it is ours.
    pub(super) fn take(&self) -> bool {
        let mut claims = self.claims.lock();
        *claims.entry(self.path.clone()).or_insert(self.number) == self.number
    }

    pub(super) fn is_ours(&self) -> bool {
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
    fn a_path_belongs_to_the_last_that_seized_it() {
        let claims = Arc::new(Claims::default());
        let [old, new] = [(); 2].map(|()| Claim::new(claims.clone(), "/a".into()));
        old.seize();
        new.seize();
        assert!(!old.is_ours() && !old.take() && new.is_ours() && new.take());
        drop(old);
        assert!(new.is_ours(), "the old claim gave up nothing");
        let other = Claim::new(claims.clone(), "/b".into());
        assert!(other.take());
        drop(new);
        drop(other);
        assert!(claims.lock().is_empty());
    }
}
