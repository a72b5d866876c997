//! Faults of the members of an etcd cluster, and how registrations and clients survive them.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use discovery::Registration;
use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use testing::etcd::{Etcd, registry};
use testing::scene::Scene;
use testing::{eventually, free_port};

/// Maximum time until a fault is detected, another member found, and everything as before.
const LIMIT: Duration = Duration::from_secs(14);

/// Maximum time until a new client has a snapshot from the rest of a cluster.
const INITIAL_SNAPSHOT: Duration = Duration::from_secs(5);

/// The nodes 1 and 2 in a cluster of three, and several clients: each registry starts with a random
/// member.
struct Cluster {
    members: [Etcd; 3],
    scene: Scene,
    clients: Vec<Scene>,
    _nodes: [Registration; 2],
}

impl Cluster {
    async fn start() -> Self {
        let members = Etcd::cluster().await;
        let addresses = members.each_ref().map(Etcd::address).join(",");
        let scene = Scene::new(registry(&addresses));
        let client = |_| scene.seen_through(registry(&addresses));
        let cluster = Self {
            clients: (0..8).map(client).collect(),
            _nodes: [scene.join(1).await, scene.join(2).await],
            members,
            scene,
        };
        cluster.all_list(&["1", "2"]).await;
        cluster
    }

    async fn all_list(&self, nodes: &[&str]) {
        let clients = self.clients.iter();
        join_all(clients.map(|client| client.lists_within(LIMIT, nodes))).await;
    }

    async fn joins_and_leaves_are_seen(&self) {
        let three = self.scene.join(3).await;
        self.all_list(&["1", "2", "3"]).await;
        three.deregister().await.unwrap();
        self.all_list(&["1", "2"]).await;
    }

    /// Returns the numbers of the leader and of a follower.
    async fn roles(&self) -> (usize, usize) {
        for (number, etcd) in self.members.iter().enumerate() {
            let status = etcd.client().await.status().await.unwrap();
            if status.header().unwrap().member_id() == status.leader() {
                return (number, (number + 1) % 3);
            }
        }
        panic!("the cluster has no leader");
    }
}

#[tokio::test]
async fn registrations_survive_the_leader() {
    let mut cluster = Cluster::start().await;
    let (leader, follower) = cluster.roles().await;
    let created = cluster.members[follower].created().await;
    cluster.members[leader].kill();
    cluster.joins_and_leaves_are_seen().await;
    assert_eq!(cluster.members[follower].created().await, created);
}

#[tokio::test]
async fn a_frozen_follower_is_left_for_another_member() {
    let cluster = Cluster::start().await;
    let (_, follower) = cluster.roles().await;
    cluster.members[follower].freeze();
    cluster.joins_and_leaves_are_seen().await;
}

#[tokio::test]
async fn nodes_stay_known_without_a_quorum() {
    let mut cluster = Cluster::start().await;
    let [_, two, three] = &mut cluster.members;
    two.kill();
    three.kill();
    let stale = async || {
        cluster
            .clients
            .iter()
            .all(|client| client.stale_for().is_some())
    };
    eventually("all clients notice", LIMIT, stale).await;
    let known = |client: &Scene| client.view().endpoints().len() == 2;
    assert!(cluster.clients.iter().all(known));
    let [_, two, three] = &mut cluster.members;
    join(two.run(), three.run()).await;
    cluster.joins_and_leaves_are_seen().await;
}

#[tokio::test]
async fn a_new_client_reads_from_the_last_member() {
    let mut cluster = Cluster::start().await;
    let [one, two, three] = &mut cluster.members;
    let addresses = [&*one, two, three].map(Etcd::address);
    two.kill();
    three.freeze(); // detected by a timeout, whereas a dead one refuses at once
    for begin in 0..3 {
        let mut order = addresses.clone();
        order.rotate_left(begin);
        let late = cluster.scene.seen_through(registry(&order.join(",")));
        let knows = async || late.client.view(&late.service).is_some();
        eventually("an initial snapshot", INITIAL_SNAPSHOT, knows).await;
        let stale = async || late.stale_for().is_some();
        eventually("it is called stale", INITIAL_SNAPSHOT, stale).await;
        assert_eq!(late.view().endpoints().len(), 2);
        cluster.clients.push(late);
    }
    two.run().await;
    cluster.joins_and_leaves_are_seen().await;
}

#[tokio::test]
async fn a_healthy_cluster_gives_no_stale_snapshot() {
    let cluster = Cluster::start().await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let addresses = cluster.members.each_ref().map(Etcd::address).join(",");
    let registry = registry(&format!("{nobody},{addresses}"));
    let mut lists = registry.watch(&cluster.scene.service);
    let first = lists.next().await.unwrap().unwrap();
    assert_eq!(first.nodes().len(), 2);
    let three = cluster.scene.join(3).await;
    let next = lists
        .next()
        .await
        .unwrap()
        .expect("no error after a consistent snapshot");
    assert_eq!(next.nodes().len(), 3);
    three.deregister().await.unwrap();
}
