//! Faults that a real etcd does not produce on demand, from a scripted fake: lost and late responses,
//! streams that stop without an end, in any order.
//!
//! A schedule that fails prints its seed. `SEED=… cargo test --test etcd_double` runs it alone; the
//! interleaving of tasks differs a little from run to run.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use discovery::{DiscoveryClient, Registration, ServiceNode, SnapshotStream};
use fastrand::Rng;
use futures_util::future::join_all;
use futures_util::stream::StreamExt;
use testing::etcd::registry;
use testing::scene::{Scene, spelled};
use testing::scripted_etcd::{Call, End, Outcome, ScriptedEtcd, State};
use testing::{PATIENCE, eventually};
use tokio::time::{Instant, sleep, timeout};

/// TTL of the nodes.
const TTL: Duration = Duration::from_secs(2);

/// Maximum time until a silent watch is detected: 8 s, with a margin.
const DETECTION_LIMIT: Duration = Duration::from_secs(10);

/// Number of schedules that run at a time.
const SCHEDULES: usize = 12;
/// Number of steps of each.
const STEPS: usize = 30;

/// Maximum number of checks after the fake behaves again. They last for 25 s: renewals may fail after 5 s,
/// a silent watch is detected after 8 s, requests without a response after 2 s each, and a backoff takes up
/// to 2 s. Checks are counted instead of seconds because a busy machine delays both them and renewals.
const MAX_CHECKS: usize = 500;
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Ports of the nodes.
const PORTS: std::ops::RangeInclusive<u16> = 1..=6;

async fn scene() -> (ScriptedEtcd, Scene) {
    let double = ScriptedEtcd::start().await;
    let scene = Scene::new(registry(&double.address())).with_ttl(TTL);
    (double, scene)
}

trait Entry {
    fn key(&self, port: u16) -> Vec<u8>;
    fn value(&self, port: u16, version: &str) -> Vec<u8>;
}

impl Entry for Scene {
    fn key(&self, port: u16) -> Vec<u8> {
        format!("/services/{}/10.0.0.1:{port}", self.service).into()
    }

    fn value(&self, port: u16, version: &str) -> Vec<u8> {
        let tags = format!("version={version}").parse().unwrap();
        self.node(port).with_tags(tags).to_json().into()
    }
}

/// Returns the ports of the next snapshot of a watch, or its error.
async fn next(lists: &mut SnapshotStream) -> Result<Vec<u16>, String> {
    let next = timeout(PATIENCE, lists.next()).await;
    let list = next.expect("in time").expect("a watch does not end");
    let port = |node: &std::sync::Arc<ServiceNode>| node.address.port();
    list.map(|list| list.nodes().iter().map(port).collect())
        .map_err(|error| error.to_string())
}

/// The other etcd would accept a watch from the revision of the snapshot, and send no event until it gets
/// that far.
#[tokio::test]
async fn a_watch_of_another_etcd_is_an_error() {
    let (double, scene) = scene().await;
    let put = |state: &mut State, port| state.put(&scene.key(port), &scene.value(port, "v1"), 0);
    double.change(|state| put(state, 1)).unwrap();
    let mut lists = scene.registry.watch(&scene.service);
    assert_eq!(next(&mut lists).await.unwrap(), [1]);
    double.replace();
    double.change(|state| put(state, 2)).unwrap();
    let error = next(&mut lists).await.unwrap_err();
    assert!(error.contains("another etcd"), "{error}");
    assert_eq!(next(&mut lists).await.unwrap(), [2]);
}

/// One message with all of this would exceed the maximum size.
#[tokio::test]
async fn large_histories_are_fragmented() {
    let (double, scene) = scene().await;
    let mut lists = scene.registry.watch(&scene.service);
    assert!(next(&mut lists).await.unwrap().is_empty());
    let junk = vec![0; 1 << 20];
    double.change(|state| {
        for _ in 0..65 {
            state.put(&scene.key(1), &junk, 0).unwrap();
        }
        let value = scene.value(2, "v1");
        state.put(&scene.key(2), &value, 0).unwrap();
    });
    loop {
        match next(&mut lists).await {
            Ok(list) if list == [2] => return,
            Ok(_) => {}
            Err(error) => assert!(!error.contains("too large"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_dropped_registration_leaves_its_key_to_the_lease() {
    let (double, scene) = scene().await;
    let node = scene.join(1).await;
    let dropped = Instant::now();
    drop(node);
    let gone = async || double.look(|state| state.keys.is_empty());
    eventually("its key is gone", TTL + TTL, gone).await;
    assert!(dropped.elapsed() > TTL / 2, "it was not deregistered");
}

#[tokio::test]
async fn a_deleted_key_is_restored_despite_renewals() {
    let (double, scene) = scene().await;
    let node = scene.join(1).await;
    double.change(|state| state.delete(&scene.key(1)));
    let back = async || double.look(|state| state.keys.len()) == 1;
    eventually("the key is restored", TTL + TTL, back).await;
    eventually("it is registered", PATIENCE, async || node.is_registered()).await;
}

#[tokio::test]
async fn a_new_owners_key_is_left_alone() {
    let (double, scene) = scene().await;
    let node = scene.join(1).await;
    let other = scene.value(1, "v2");
    let put = |state: &mut State| state.put(&scene.key(1), &other, 0);
    double.change(put).unwrap();
    eventually("it is noticed", TTL, async || !node.is_registered()).await;
    let leases = || double.look(|state| state.leases.keys().copied().collect::<Vec<_>>());
    let before = leases();
    let time_for_a_try = Instant::now() + TTL + TTL;
    let changed = async || double.look(|state| state.keys[&scene.key(1)].value != other);
    while Instant::now() < time_for_a_try {
        assert!(!changed().await, "the new owner's key was overwritten");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(leases().len() <= before.len(), "no unused lease");
    double.change(|state| state.delete(&scene.key(1)));
    timeout(PATIENCE, node.registered()).await.unwrap();
}

#[tokio::test]
async fn a_failed_request_is_retried_at_once() {
    let (double, scene) = scene().await;
    for call in [Call::Range, Call::Grant, Call::Txn] {
        double.script().call(call, Outcome::Refused);
    }
    let mut lists = scene.registry.watch(&scene.service);
    assert!(next(&mut lists).await.unwrap().is_empty());
    let node = scene.register(scene.node(1));
    timeout(PATIENCE, node.registered()).await.unwrap();
    let granted = double.look(|state| state.leases.len());
    assert_eq!(granted, 1, "it did not start over");
    assert!(double.script().is_done());
}

/// A range read for every change of 10 000 nodes would keep etcd busy.
#[tokio::test]
async fn changes_need_no_further_range_read() {
    let (double, scene) = scene().await;
    let mut lists = scene.registry.watch(&scene.service);
    assert!(next(&mut lists).await.unwrap().is_empty());
    double.script().call(Call::Range, Outcome::Refused); // the next snapshot
    for port in 1..=3 {
        let value = scene.value(port, "v1");
        let put = |state: &mut State| state.put(&scene.key(port), &value, 0);
        double.change(put).unwrap();
        let all: Vec<_> = (1..=port).collect();
        assert_eq!(next(&mut lists).await.unwrap(), all);
    }
    assert!(!double.script().is_done(), "a snapshot was taken");
}

/// The watch starts at the snapshot's own revision: an event of it is sent again, and changes nothing.
#[tokio::test]
async fn progress_keeps_a_quiet_watch_alive() {
    let (double, scene) = scene().await;
    let put = |state: &mut State| state.put(&scene.key(1), &scene.value(1, "v1"), 0);
    double.change(put).unwrap();
    let mut lists = scene.registry.watch(&scene.service);
    assert_eq!(next(&mut lists).await.unwrap(), [1]);
    let item = timeout(DETECTION_LIMIT, lists.next()).await;
    assert!(item.is_err(), "{item:?}");
    double.replace();
    double.script().watch(End::Silent, 1); // after it was created
    assert!(next(&mut lists).await.is_err(), "the stream ended");
    assert!(next(&mut lists).await.unwrap().is_empty());
    let silent = timeout(DETECTION_LIMIT, lists.next())
        .await
        .unwrap()
        .unwrap();
    let error = silent.unwrap_err().to_string();
    assert!(error.contains("silent"), "{error}");
}

/// A cancelled watch is announced in its last message only: nothing follows.
#[tokio::test]
async fn a_cancelled_watch_restarts_at_once() {
    let (double, scene) = scene().await;
    let mut lists = scene.registry.watch(&scene.service);
    assert!(next(&mut lists).await.unwrap().is_empty());
    double.script().watch(End::Withdrawn, 1); // after it was created
    let value = scene.value(1, "v1");
    let put = |state: &mut State| state.put(&scene.key(1), &value, 0);
    double.change(put).unwrap();
    let error = timeout(TTL, next(&mut lists)).await.unwrap().unwrap_err();
    assert!(error.contains("cancelled"), "{error}");
    assert_eq!(next(&mut lists).await.unwrap(), [1]);
}

#[tokio::test]
async fn lost_renewals_lead_to_another_lease() {
    let (double, scene) = scene().await;
    let scene = scene.with_ttl(3 * TTL);
    double.script().renewals(End::Silent, 1); // after the one that opens it
    let _node = scene.join(1).await;
    let entry = || double.look(|state| state.keys.get(&scene.key(1)).cloned().unwrap());
    let before = entry();
    let moved = async || entry().lease != before.lease;
    eventually("it is under another lease", PATIENCE, moved).await;
    assert_eq!(
        entry().create_revision,
        before.create_revision,
        "never gone"
    );
}

/// Registers a node that needs another lease, with the outcomes of two attempts to put its key under it.
async fn with_another_lease(attempts: [Outcome; 2]) -> (ScriptedEtcd, Scene, Registration, i64) {
    let (double, scene) = scene().await;
    let scene = scene.with_ttl(3 * TTL); // the backoff takes up to 3 s
    let node = scene.join(1).await;
    let created = double.look(|state| state.keys[&scene.key(1)].create_revision);
    let fails = [Outcome::Refused; 2].map(|outcome| (Call::Range, outcome));
    let attempts = attempts.map(|outcome| (Call::Txn, outcome));
    for (call, outcome) in fails.into_iter().chain(attempts) {
        double.script().call(call, outcome);
    }
    eventually("both attempts", PATIENCE, async || {
        double.script().is_done()
    })
    .await;
    (double, scene, node, created)
}

/// The second attempt finds the key changed, by the first one, whose response was lost.
const LOST: [Outcome; 2] = [Outcome::Lost, Outcome::Done];

#[tokio::test]
async fn an_unconfirmed_put_keeps_the_key() {
    for attempts in [LOST, [Outcome::Refused; 2]] {
        let (double, scene, node, created) = with_another_lease(attempts).await;
        timeout(PATIENCE, node.registered()).await.unwrap();
        let still = double.look(|state| state.keys[&scene.key(1)].create_revision);
        assert_eq!(still, created, "it was never gone: {attempts:?}");
    }
}

#[tokio::test]
async fn deregistering_removes_an_unconfirmed_put() {
    for attempts in [LOST, [Outcome::Refused; 2]] {
        let (double, _scene, node, _) = with_another_lease(attempts).await;
        node.deregister().await.unwrap();
        assert!(double.look(|state| state.keys.is_empty()), "{attempts:?}");
    }
}

#[tokio::test]
async fn deregistering_fails_without_a_revocation() {
    let (double, scene) = scene().await;
    let scene = scene.with_ttl(Duration::from_secs(3600)); // it does not expire during the test
    let node = scene.join(1).await;
    for _ in 0..2 {
        double.script().call(Call::Revoke, Outcome::Refused); // there is a second attempt
    }
    assert!(node.deregister().await.is_err());
    assert!(double.look(|state| state.keys.contains_key(&scene.key(1))));
}

#[tokio::test]
async fn a_key_changed_after_a_read_is_not_overwritten() {
    let (double, scene) = scene().await;
    let node = scene.join(1).await;
    let late = Outcome::Late(Duration::from_millis(500));
    for outcome in [Outcome::Refused, Outcome::Refused, late] {
        double.script().call(Call::Range, outcome);
    }
    eventually("it read the key again", PATIENCE, async || {
        double.script().is_done()
    })
    .await;
    let other = scene.value(1, "v2");
    let put = |state: &mut State| state.put(&scene.key(1), &other, 0);
    double.change(put).unwrap();
    sleep(TTL).await; // it retries meanwhile
    assert!(double.look(|state| state.keys[&scene.key(1)].value == other));
    assert!(!node.is_registered());
}

#[tokio::test]
async fn random_faults_end_in_the_right_state() {
    let given = std::env::var("SEED").ok();
    let given = given.map(|seed| vec![seed.parse().expect("SEED is a number")]);
    let seeds = given.unwrap_or_else(|| {
        std::iter::repeat_with(|| fastrand::u64(..))
            .take(SCHEDULES)
            .collect()
    });
    join_all(seeds.into_iter().map(run)).await;
}

/// Nodes that are added and removed, a fake that fails, and other clients that change its keys.
struct Schedule {
    seed: u64,
    random: Rng,
    double: ScriptedEtcd,
    scene: Scene,
    /// Registrations by port, with their values in the registry: no two are equal.
    kept: BTreeMap<u16, (String, Registration)>,
    joined: usize,
}

async fn run(seed: u64) {
    let (double, mut scene) = scene().await;
    // Unconfirmed nodes are dropped well within the limit.
    scene.client = DiscoveryClient::new(scene.registry.clone()).with_removal_protection(TTL);
    let random = Rng::with_seed(seed);
    let mut schedule = Schedule {
        seed,
        random,
        double,
        scene,
        kept: BTreeMap::new(),
        joined: 0,
    };
    schedule.scene.client.view(&schedule.scene.service); // it is watched from now on
    schedule.double.misbehave(seed);
    for _ in 0..STEPS {
        schedule.step().await;
        sleep(Duration::from_millis(schedule.random.u64(0..250))).await;
    }
    schedule.double.behave();
    schedule.settles().await;
}

impl Schedule {
    async fn step(&mut self) {
        let port = self.random.u16(PORTS);
        let key = self.scene.key(port);
        match self.random.u8(0..16) {
            0..=4 => self.join(port),
            5..=6 => self.leave(port).await,
            7 => drop(self.kept.remove(&port)), // its process died
            8 => self.double.change(|state| state.delete(&key)),
            9 => self.write(&key, &self.scene.value(port, "theirs")),
            10 => self.write(&key, b"junk"),
            11 => self.write(&self.scene.key(0), b"junk"),
            12..=13 => self.revoke(),
            14 => self.double.change(State::compact),
            // Once: a third etcd could reach the revision of the second and not be distinguishable.
            _ if self.double.look(|state| state.replaced) == 0 => self.double.replace(),
            _ => {}
        }
    }

    fn join(&mut self, port: u16) {
        self.joined += 1;
        let version = format!("version=v{}", self.joined);
        let node = self.scene.node(port).with_tags(version.parse().unwrap());
        let scene = &self.scene;
        let join = || (node.to_json(), scene.register(node));
        self.kept.entry(port).or_insert_with(join);
    }

    async fn leave(&mut self, port: u16) {
        let Some((value, node)) = self.kept.remove(&port) else {
            return;
        };
        let confirmed = node.deregister().await.is_ok();
        let key = self.scene.key(port);
        let is_its =
            |state: &State| state.keys.get(&key).map(|kv| &*kv.value) == Some(value.as_bytes());
        let listed = self.double.look(is_its);
        assert!(
            !(listed && confirmed),
            "seed {}: {port} left and is still there",
            self.seed
        );
    }

    /// Writes a key without a lease, as another client would.
    fn write(&self, key: &[u8], value: &[u8]) {
        let written = self.double.change(|state| state.put(key, value, 0));
        written.expect("no lease is needed");
    }

    fn revoke(&mut self) {
        let random = &mut self.random;
        self.double.change(|state| {
            let leases: Vec<_> = state.leases.keys().copied().collect();
            if let Some(lease) = random.choice(leases) {
                state.revoke(lease).expect("it was there");
            }
        });
    }

    async fn settles(&self) {
        // The key of another owner is left alone as long as it exists.
        for port in self.kept.keys() {
            let key = self.scene.key(*port);
            self.double.change(|state| match state.keys.get(&key) {
                Some(kv) if kv.lease == 0 => state.delete(&key),
                _ => {}
            });
        }
        let mut checks = 0;
        while let Err(wrong) = self.is_right() {
            checks += 1;
            assert!(checks < MAX_CHECKS, "seed {}: {wrong}", self.seed);
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Checks that each node is registered once under a valid lease, and that the client has the nodes of the
    /// fake.
    fn is_right(&self) -> Result<(), String> {
        for (port, (value, node)) in &self.kept {
            let key = self.scene.key(*port);
            let is_kept = |state: &State| {
                let kv = state.keys.get(&key);
                kv.is_some_and(|kv| {
                    state.leases.contains_key(&kv.lease) && kv.value == value.as_bytes()
                })
            };
            if !self.double.look(is_kept) || !node.is_registered() {
                return Err(format!("{port} is not kept, {node:?}"));
            }
        }
        let leases = self.double.look(|state| state.leases.len());
        if leases != self.kept.len() {
            return Err(format!("{leases} leases for {} nodes", self.kept.len()));
        }
        let (nodes, junk) = self.double.look(readable);
        let view = self
            .scene
            .client
            .view(&self.scene.service)
            .ok_or("no view")?;
        let seen: Vec<_> = view
            .endpoints()
            .iter()
            .map(|endpoint| spelled(endpoint))
            .collect();
        if seen == nodes && view.skipped() == junk && view.stale_for().is_none() {
            Ok(())
        } else {
            Err(format!("{nodes:?} and {junk} others are seen as {view:?}"))
        }
    }
}

/// Returns the valid nodes, spelled and sorted, and the number of malformed entries.
fn readable(state: &State) -> (Vec<String>, usize) {
    let nodes = state
        .keys
        .values()
        .filter_map(|kv| ServiceNode::from_json(&kv.value).ok());
    let nodes: Vec<_> = nodes.map(|node| spelled(&node)).collect();
    let junk = state.keys.len() - nodes.len();
    (nodes, junk)
}
