//! What the tests of the registries share: a service to watch, a server to break, and patience.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{sleep, timeout};

#[cfg(feature = "tls")]
pub(crate) mod certificates;
#[cfg(feature = "consul")]
pub(crate) mod consul;
#[cfg(feature = "etcd")]
pub(crate) mod double;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod gate;
pub(crate) mod relay;
pub(crate) mod scene;
pub(crate) mod server;
#[cfg(feature = "zookeeper")]
pub(crate) mod zookeeper;

/// How long anything may take that has no limit of its own. Only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something is so.
///
/// # Panics
/// When it is not within the limit.
pub(crate) async fn eventually(what: &str, limit: Duration, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let done = timeout(limit, wait).await;
    assert!(done.is_ok(), "not within {limit:?}: {what}");
}

/// An empty directory, gone when this is dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let name = format!("discovery-{}-{:x}", std::process::id(), fastrand::u64(..));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // litter is no reason to panic while panicking
    }
}
