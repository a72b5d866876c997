//! Faults of an etcd and of the network, and how registrations and clients survive them.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use discovery::{Error, Registration, ServiceName, SnapshotStream, Tags};
use futures_util::stream::StreamExt;
use testing::etcd::{Etcd, registry};
use testing::relay::Relay;
use testing::scene::Scene;
use testing::{PATIENCE, eventually};
use tokio::time::{Instant, sleep_until, timeout};

/// TTL of the nodes.
const TTL: Duration = Duration::from_secs(3);

/// Maximum time until a client detects that its view is stale.
const NOTICED: Duration = Duration::from_secs(9);

/// Maximum time from the end of a fault until everything is as before.
const HEALED: Duration = Duration::from_secs(5);

trait Outage {
    async fn notices(&self);
    async fn heals(&self, nodes: &[Registration; 2]);
}

impl Outage for Scene {
    async fn notices(&self) {
        let stale = async || self.stale_for().is_some();
        eventually("the client notices", NOTICED, stale).await;
    }

    /// Requires that the nodes 1 and 2 are registered and found again, and that another one can be added.
    async fn heals(&self, nodes: &[Registration; 2]) {
        let registered = async || nodes.iter().all(Registration::is_registered);
        eventually("all are registered again", HEALED, registered).await;
        self.lists_within(HEALED, &["1", "2"]).await;
        let three = self.join(3).await;
        self.lists_within(HEALED, &["1", "2", "3"]).await;
        three.deregister().await.unwrap();
        self.lists_within(HEALED, &["1", "2"]).await;
    }
}

#[tokio::test]
async fn nodes_are_found_once_etcd_starts() {
    let mut etcd = Etcd::not_yet();
    let scene = Scene::new(etcd.registry());
    let node = scene.register(scene.node(1));
    let early = scene.client.resolve(&scene.service, &Tags::new()).await;
    assert!(matches!(early, Err(Error::NotReady { .. })));
    assert!(!node.is_registered());
    etcd.run().await;
    timeout(HEALED, node.registered())
        .await
        .expect("registered in time");
    scene.lists_within(HEALED, &["1"]).await;
}

#[tokio::test]
async fn nodes_stay_known_while_etcd_is_down() {
    let (mut etcd, ttl) = (Etcd::start().await, Duration::from_secs(2));
    let scene = Scene::new(etcd.registry()).with_ttl(ttl);
    let nodes = [scene.join(1).await, scene.join(2).await];
    scene.lists(&["1", "2"]).await;
    let (created, back) = (etcd.created().await, Instant::now() + 4 * ttl);
    etcd.kill();
    scene.notices().await;
    sleep_until(back).await;
    let turns = [scene.resolve().await, scene.resolve().await];
    assert!(turns == [1, 2] || turns == [2, 1], "{turns:?}");
    etcd.run().await;
    scene.heals(&nodes).await;
    let new_leases_only = async || etcd.leases().await.len() == 2;
    eventually("the old leases end", PATIENCE, new_leases_only).await;
    assert_eq!(etcd.created().await, created, "no key was ever gone");
}

#[tokio::test]
async fn nodes_register_with_an_empty_etcd() {
    let mut etcd = Etcd::start().await;
    for _ in 0..50 {
        etcd.put("far", "ahead").await; // of the other's first revisions
    }
    let scene = Scene::new(etcd.registry()).with_ttl(TTL);
    let nodes = [scene.join(1).await, scene.join(2).await];
    scene.lists(&["1", "2"]).await;
    etcd.replace().await;
    let back = async || etcd.keys().await.len() == 2;
    eventually("the keys are back", TTL + Duration::from_secs(3), back).await;
    scene.heals(&nodes).await;
}

#[tokio::test]
async fn a_frozen_etcd_is_detected() {
    let (etcd, ttl) = (Etcd::start().await, Duration::from_secs(2));
    let scene = Scene::new(etcd.registry()).with_ttl(ttl);
    let nodes = [scene.join(1).await, scene.join(2).await];
    scene.lists(&["1", "2"]).await;
    let thaw = Instant::now() + 3 * ttl;
    etcd.freeze();
    scene.notices().await;
    sleep_until(thaw).await;
    assert_eq!(scene.view().endpoints().len(), 2);
    etcd.thaw();
    scene.heals(&nodes).await;
}

#[tokio::test]
async fn a_half_open_connection_is_detected() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let scene = Scene::new(registry(relay.address())).with_ttl(TTL);
    let nodes = [scene.join(1).await, scene.join(2).await];
    scene.lists(&["1", "2"]).await;
    let heal = Instant::now() + Duration::from_secs(10);
    relay.fall_silent();
    scene.notices().await;
    sleep_until(heal).await; // by now there is a second connection, half-open as the first
    assert_eq!(scene.view().endpoints().len(), 2);
    relay.heal();
    scene.heals(&nodes).await;
}

#[tokio::test]
async fn no_event_is_missed_by_a_compaction() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let far = Scene::new(registry(relay.address()));
    let near = far.seen_through(etcd.registry());
    let (one, _two) = (near.join(1).await, near.join(2).await);
    far.lists(&["1", "2"]).await;
    relay.cut();
    far.notices().await;
    one.deregister().await.unwrap();
    let _three = near.join_with(3, "version=v1").await;
    let _newer = near.join_with(3, "version=v2").await;
    etcd.compact().await;
    relay.heal();
    far.lists_within(HEALED, &["2", "3 version=v2"]).await;
}

#[tokio::test]
async fn a_compacted_watch_takes_a_new_snapshot() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry());
    let one = scene.join(1).await;
    let mut lists = scene.registry.watch(&scene.service);
    let mut next = async || timeout(PATIENCE, lists.next()).await.unwrap().unwrap();
    assert_eq!(next().await.unwrap().nodes().len(), 1);
    one.deregister().await.unwrap();
    let _two = scene.join(2).await;
    etcd.compact().await;
    let error = next().await.unwrap_err().to_string();
    assert!(error.contains("compacted"), "{error}");
    let list = next().await.unwrap();
    assert_eq!(list.nodes()[0].address.port(), 2);
}

/// Longer than two rounds of progress requests take, so that the second round is tested too.
const QUIET_PERIOD: Duration = Duration::from_secs(20);

/// Waits until a watch has its initial snapshot, then requires that no item follows: no error, and
/// no second snapshot with the same nodes.
async fn stays_quiet(name: &str, mut snapshots: SnapshotStream, nodes: usize) {
    let initial = timeout(PATIENCE, snapshots.next()).await.expect(name);
    let initial = initial.expect("a watch does not end").expect(name);
    assert_eq!(initial.nodes().len(), nodes, "{name}");
    let item = timeout(QUIET_PERIOD, snapshots.next()).await;
    assert!(item.is_err(), "{name}: {item:?}");
}

/// A watch through a relay that closed the first connection: a snapshot was taken a second time.
async fn resumed(relay: &Relay, service: &ServiceName) -> SnapshotStream {
    let mut snapshots = registry(relay.address()).watch(service);
    let initial = timeout(PATIENCE, snapshots.next()).await.unwrap().unwrap();
    initial.expect("the initial snapshot");
    relay.cut();
    let error = timeout(NOTICED, snapshots.next()).await.unwrap().unwrap();
    error.expect_err("the connection is closed");
    relay.heal();
    // An attempt that began before this may still fail.
    snapshots
        .skip_while(|item| std::future::ready(item.is_err()))
        .boxed()
}

/// On a quiet etcd the revision of the snapshot is the last one, so the watch starts where nothing
/// has happened yet. Since 3.4.38, 3.5.22 and 3.6.2 etcd responds to no progress request of a watch
/// whose start revision is in the future.
#[tokio::test]
async fn a_quiet_etcd_is_never_disconnected() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let [put, deleted, empty] = [(); 3].map(|()| Scene::new(etcd.registry()));
    let left = deleted.join(1).await;
    let _stays = deleted.join(2).await;
    let _one = put.join(1).await;
    let resumed = resumed(&relay, &put.service).await;
    let watch = |scene: &Scene| scene.registry.watch(&scene.service);
    // The last event is the put of a node, then a deletion.
    let last_put = stays_quiet("after a put", watch(&put), 1);
    let late = async {
        left.deregister().await.unwrap();
        stays_quiet("after a deletion", watch(&deleted), 1).await;
    };
    let resumed = stays_quiet("resumed", resumed, 1);
    let empty = stays_quiet("without a node", watch(&empty), 0);
    tokio::join!(last_put, late, resumed, empty);
}

/// A compaction at the snapshot's own revision leaves all that the watch needs.
#[tokio::test]
async fn a_quiet_etcd_may_be_compacted_up_to_its_last_revision() {
    for deletes_last in [false, true] {
        let etcd = Etcd::start().await;
        let scene = Scene::new(etcd.registry());
        let (one, _two) = (scene.join(1).await, scene.join(2).await);
        if deletes_last {
            one.deregister().await.unwrap();
        }
        etcd.compact().await;
        let mut snapshots = scene.registry.watch(&scene.service);
        let mut next = async || timeout(PATIENCE, snapshots.next()).await.unwrap().unwrap();
        let initial = next().await.unwrap();
        assert_eq!(initial.nodes().len(), if deletes_last { 1 } else { 2 });
        let _three = scene.join(3).await;
        let changed = next().await.unwrap(); // the watch started at the compacted revision
        assert_eq!(changed.nodes().len(), initial.nodes().len() + 1);
    }
}
