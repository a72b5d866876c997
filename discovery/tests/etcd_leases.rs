//! A registration and its lease in etcd: nothing that happens to key or lease ends a registration,
//! and a registration takes nothing away from others.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use discovery::Registration;
use testing::etcd::{Etcd, registry};
use testing::relay::Relay;
use testing::scene::Scene;
use testing::{PATIENCE, eventually};
use tokio::time::{sleep, timeout};

/// TTL of the nodes.
const TTL: Duration = Duration::from_secs(3);

/// Waits until its only lease is renewed.
async fn renews(etcd: &Etcd) {
    let (lease, client) = (etcd.leases().await[0], etcd.client().await);
    let left = async || {
        let answer = client.clone().lease_time_to_live(lease, None).await;
        answer.unwrap().ttl()
    };
    let granted = left().await;
    eventually("time passes", PATIENCE, async || left().await < granted - 1).await;
    eventually("it is renewed", PATIENCE, async || {
        left().await >= granted - 1
    })
    .await;
}

#[tokio::test]
async fn a_revoked_lease_is_replaced_within_the_ttl() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry()).with_ttl(TTL);
    let _nodes = (scene.join(1).await, scene.join(2).await);
    etcd.revoke_all_leases().await;
    let back = async || etcd.keys().await.len() == 2;
    eventually("the keys are back", TTL, back).await;
    scene.lists(&["1", "2"]).await;
}

#[tokio::test]
async fn a_deleted_key_is_restored_within_the_ttl() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry()).with_ttl(TTL);
    let _nodes = (scene.join(1).await, scene.join(2).await);
    etcd.delete("/services/").await;
    let back = async || etcd.keys().await.len() == 2;
    eventually("the keys are back", TTL, back).await;
    scene.lists(&["1", "2"]).await;
}

#[tokio::test]
async fn deregistering_works_without_a_lease() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry());
    let node = scene.join(1).await;
    etcd.revoke_all_leases().await;
    node.deregister().await.unwrap();
    assert!(etcd.keys().await.is_empty());
}

/// Registers a node whose second put was lost: its key is under the first lease, and it has another one.
async fn between_two_leases() -> (Etcd, Relay, Scene, Registration) {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let scene = Scene::new(registry(relay.address())).with_ttl(3 * TTL);
    let node = scene.join(1).await;
    renews(&etcd).await;
    relay.lose_nodes();
    let two = async || etcd.leases().await.len() > 1;
    eventually("it has another lease", PATIENCE, two).await;
    (etcd, relay, scene, node)
}

#[tokio::test]
async fn a_lost_put_keeps_the_key() {
    let (etcd, relay, _scene, node) = between_two_leases().await;
    let (created, written) = (etcd.created().await, etcd.written().await);
    relay.heal();
    let registered = timeout(PATIENCE, node.registered()).await;
    registered.expect("it is registered again in time");
    assert_ne!(etcd.written().await, written);
    assert_eq!(etcd.created().await, created, "it was never gone");
}

#[tokio::test]
async fn deregistering_after_a_lost_put_is_complete() {
    let (etcd, _relay, _scene, node) = between_two_leases().await;
    node.deregister().await.unwrap();
    assert!(etcd.keys().await.is_empty());
}

#[tokio::test]
async fn a_key_returns_after_its_new_owner() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.address()).await;
    let late = Scene::new(registry(relay.address())).with_ttl(TTL);
    let here = late.seen_through(etcd.registry());
    let old = late.join_with(1, "version=v1").await;
    relay.cut();
    let new = here.join_with(1, "version=v2").await;
    relay.heal();
    eventually("the late one knows", PATIENCE, async || {
        !old.is_registered()
    })
    .await;
    let written = etcd.written().await;
    sleep(Duration::from_secs(5)).await; // it retries every two seconds
    assert_eq!(etcd.written().await, written);
    here.lists(&["1 version=v2"]).await;
    new.deregister().await.unwrap();
    here.lists(&["1 version=v1"]).await;
}
