//! The contract of a registry, as scenarios that each of them passes. For a new registry add one function
//! and one line, at the end of this file.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;
use std::time::Duration;

use discovery::{
    DiscoveryClient, Error, NodeRegistry, Registration, ServiceNode, SnapshotStream, Tags,
};
use futures_util::future::{FutureExt, join, join_all};
use futures_util::stream::StreamExt;
use testing::gate::Gate;
use testing::scene::{Scene, spelled};
use testing::{PATIENCE, eventually};
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

async fn nodes_are_resolved_in_turn(scene: Scene) {
    let _nodes = join_all([1, 2, 3].map(|port| scene.join(port))).await;
    scene.lists(&["1", "2", "3"]).await;
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(scene.resolve().await);
    }
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
}

async fn added_nodes_replace_removed_ones(scene: Scene) {
    let (one, _two) = (scene.join(1).await, scene.join(2).await);
    scene.lists(&["1", "2"]).await;
    one.deregister().await.expect("the registry confirms it");
    let _three = scene.join(3).await;
    scene.lists(&["2", "3"]).await;
    let chosen = [scene.resolve().await, scene.resolve().await];
    assert!(chosen == [2, 3] || chosen == [3, 2], "{chosen:?}");
}

async fn a_watch_may_begin_before_its_service_exists(scene: Scene) {
    scene.lists(&[]).await;
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
}

async fn tags_narrow_the_choice(scene: Scene) {
    let _v1 = scene.join_with(1, "version=v1").await;
    let _v2 = scene.join_with(2, "version=v2,region=cn").await;
    let both = ["1 version=v1", "2 region=cn,version=v2"];
    scene.lists(&both).await;
    for _ in 0..3 {
        let chosen = scene.resolve_with("version=v2").await.unwrap();
        assert_eq!(chosen.address.port(), 2);
    }
}

async fn a_service_without_a_match_has_no_instance(scene: Scene) {
    let none = scene.resolve_with("").await;
    assert!(matches!(none, Err(Error::NoInstance { .. })), "{none:?}");
    let _v1 = scene.join_with(1, "version=v1").await;
    scene.lists(&["1 version=v1"]).await;
    let none = scene.resolve_with("version=v2").await;
    assert!(matches!(none, Err(Error::NoInstance { .. })), "{none:?}");
}

async fn an_ipv6_node_is_found(scene: Scene) {
    let address = "[2001:db8::1]:8080".parse().unwrap();
    let _node = scene.register(ServiceNode::new(scene.service.clone(), address));
    scene.lists(&["8080"]).await;
    let chosen = scene.resolve_with("").await.unwrap();
    assert_eq!(chosen.address, address);
}

async fn a_watch_ignores_other_services(scene: Scene) {
    let mut lists = scene.registry.watch(&scene.service);
    assert_eq!(next(&mut lists).await, [""; 0]);
    let other = format!("{}2", scene.service).parse().unwrap();
    let other = scene.register(ServiceNode::new(other, ([10, 0, 0, 1], 2).into()));
    let registered = timeout(PATIENCE, other.registered()).await;
    registered.expect("the other service's node is registered");
    let _one = scene.join(1).await;
    assert_eq!(next(&mut lists).await, ["1"], "nothing came between");
}

async fn changed_tags_replace_the_entry(scene: Scene) {
    let _v1 = scene.join_with(1, "version=v1").await;
    scene.lists(&["1 version=v1"]).await;
    let _v2 = scene.join_with(1, "version=v2").await;
    scene.lists(&["1 version=v2"]).await;
}

async fn late_deregistering_spares_the_new_owner(scene: Scene) {
    let old = scene.join_with(1, "version=v1").await;
    let _new = scene.join_with(1, "version=v2").await;
    let mut lists = scene.registry.watch(&scene.service);
    assert_eq!(next(&mut lists).await, ["1 version=v2"]);
    old.deregister().await.expect("the registry confirms it");
    let _other = scene.join(2).await;
    let list = next(&mut lists).await;
    assert_eq!(list, ["1 version=v2", "2"], "nothing came between");
}

async fn a_dead_node_is_removed_after_its_ttl(scene: Scene) {
    let (ttl, granularity) = (Duration::from_secs(2), Duration::from_secs(1));
    let scene = scene.with_ttl(ttl);
    let (dead, _living) = (scene.join(1).await, scene.join(2).await);
    scene.lists(&["1", "2"]).await;
    drop(dead);
    scene.lists_within(ttl + granularity, &["2"]).await;
}

async fn many_changes_end_in_the_right_snapshot(scene: Scene) {
    let mut nodes = join_all((1..=200).map(|port| scene.join(port))).await;
    let removals = nodes
        .split_off(100)
        .into_iter()
        .map(Registration::deregister);
    let additions = (301..=350).map(|port| scene.join(port));
    let (left, _added) = join(join_all(removals), join_all(additions)).await;
    assert!(left.iter().all(Result::is_ok), "{left:?}");
    let ports = (1..=100).chain(301..=350).map(|port| port.to_string());
    let ports: Vec<_> = ports.collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    scene.lists(&ports).await;
}

async fn a_slow_consumer_gets_few_snapshots(scene: Scene) {
    let mut lists = scene.registry.watch(&scene.service);
    assert_eq!(next(&mut lists).await, [""; 0]);
    let _first = scene.join(1).await;
    assert_eq!(next(&mut lists).await, ["1"]);
    let _others = join_all((2..=100).map(|port| scene.join(port))).await;
    let mut count = 1;
    while next(&mut lists).await.len() < 100 {
        count += 1;
    }
    assert!(count <= 10, "{count} snapshots for 99 changes");
}

async fn a_later_snapshot_has_a_larger_revision(scene: Scene) {
    let mut lists = scene.registry.watch(&scene.service);
    let mut revision = 0;
    let mut later = async || {
        let list = timeout(PATIENCE, lists.next()).await;
        let list = list.expect("there is a snapshot in time").unwrap().unwrap();
        let before = std::mem::replace(&mut revision, list.revision());
        assert!(revision >= before, "{revision} after {before}");
        revision > before
    };
    later().await;
    let one = scene.join(1).await;
    assert!(later().await, "one joined");
    one.deregister().await.expect("the registry confirms it");
    assert!(later().await, "one left");
}

async fn concurrent_callers_share_one_watch(scene: Scene) {
    let gate = Gate::open(scene.registry);
    let scene = Scene::new(gate.clone());
    let _one = scene.join(1).await;
    join_all((0..100).map(|_| scene.resolve())).await;
    assert_eq!(gate.watches_begun(), 1);
}

async fn a_watch_outlives_its_first_caller(scene: Scene) {
    let gate = Gate::shut(scene.registry);
    let scene = Scene::new(gate.clone());
    let _one = scene.join(1).await;
    let given_up = scene.resolve().now_or_never();
    assert_eq!(given_up, None, "no snapshot has come through");
    gate.let_through();
    scene.lists(&["1"]).await;
    let _two = scene.join(2).await;
    scene.lists(&["1", "2"]).await;
    assert_eq!(gate.watches_begun(), 1);
}

async fn a_watch_outlives_its_first_callers_runtime(scene: Scene) {
    let _one = scene.join(1).await;
    let scene = Arc::new(scene);
    let caller = scene.clone();
    let elsewhere = move || Runtime::new().unwrap().block_on(caller.resolve());
    assert_eq!(spawn_blocking(elsewhere).await.unwrap(), 1);
    let _two = scene.join(2).await;
    scene.lists(&["1", "2"]).await;
}

async fn a_registry_outlives_its_first_runtime(scene: Scene) {
    let scene = Arc::new(scene);
    let first = scene.clone();
    let used = async move { first.join(1).await.deregister().await };
    let elsewhere = || Runtime::new().unwrap().block_on(used);
    spawn_blocking(elsewhere).await.unwrap().unwrap();
    let _two = scene.join(2).await;
    scene.lists(&["2"]).await;
}

async fn watches_end_with_client_and_resolvers(scene: Scene) {
    let gate = Gate::open(scene.registry);
    let scene = Scene::new(gate.clone());
    let (resolver, node) = (scene.resolver(), scene.node(1));
    drop(scene.client);
    let _one = scene.registry.register(node, PATIENCE);
    let told = async || resolver.resolve(None).is_ok();
    eventually("who resolves is still told", PATIENCE, told).await;
    drop(resolver);
    let ended = async || gate.watches() == 0;
    eventually("no watch goes on", PATIENCE, ended).await;
}

async fn resolving_waits_for_the_initial_snapshot(scene: Scene) {
    let gate = Gate::shut(scene.registry);
    let limit = Duration::from_millis(50);
    let hasty = DiscoveryClient::new(gate.clone()).with_initial_snapshot_timeout(limit);
    let early = hasty.resolve(&scene.service, &Tags::new()).await;
    assert!(
        matches!(early, Err(Error::NotReady { waited, .. }) if waited == limit),
        "{early:?}"
    );
    let scene = Scene::new(gate.clone());
    let _one = scene.join(1).await;
    let (chosen, ()) = join(scene.resolve(), async { gate.let_through() }).await;
    assert_eq!(chosen, 1);
}

async fn a_retry_gets_another_node(scene: Scene) {
    let _nodes = join_all([1, 2, 3].map(|port| scene.join(port))).await;
    scene.lists(&["1", "2", "3"]).await;
    let resolver = scene.resolver();
    let mut tried = Vec::new();
    for _ in 0..3 {
        let chosen = resolver.resolve_other(None, |node| !tried.contains(&node.address));
        tried.push(chosen.unwrap().address);
    }
    let none = resolver.resolve_other(None, |node| !tried.contains(&node.address));
    assert!(matches!(none, Err(Error::NoInstance { .. })));
}

async fn excluded_nodes_leave_even_shares(scene: Scene) {
    let _nodes = join_all([1, 2, 3].map(|port| scene.join(port))).await;
    scene.lists(&["1", "2", "3"]).await;
    let resolver = scene.resolver();
    let resolve = || resolver.resolve_other(None, |node| node.address.port() != 2);
    let ports = (0..30).map(|_| resolve().unwrap().address.port());
    assert_eq!(ports.filter(|port| *port == 1).count(), 15);
}

/// Returns the next snapshot of a watch, as a [`Scene`] spells nodes.
async fn next(lists: &mut SnapshotStream) -> Vec<String> {
    let list = timeout(PATIENCE, lists.next()).await;
    let list = list.expect("there is a snapshot in time").unwrap().unwrap();
    list.nodes().iter().map(|node| spelled(node)).collect()
}

/// Makes every scenario a test for one registry: `memory::tags_narrow_the_choice` and so on.
macro_rules! contract {
    ($registry:ident) => {
        mod $registry {
            tests! { $registry:
                nodes_are_resolved_in_turn
                added_nodes_replace_removed_ones
                a_watch_may_begin_before_its_service_exists
                tags_narrow_the_choice
                a_service_without_a_match_has_no_instance
                an_ipv6_node_is_found
                a_watch_ignores_other_services
                changed_tags_replace_the_entry
                late_deregistering_spares_the_new_owner
                a_dead_node_is_removed_after_its_ttl
                many_changes_end_in_the_right_snapshot
                a_slow_consumer_gets_few_snapshots
                a_later_snapshot_has_a_larger_revision
                concurrent_callers_share_one_watch
                a_watch_outlives_its_first_caller
                a_watch_outlives_its_first_callers_runtime
                a_registry_outlives_its_first_runtime
                watches_end_with_client_and_resolvers
                resolving_waits_for_the_initial_snapshot
                a_retry_gets_another_node
                excluded_nodes_leave_even_shares
            }
        }
    };
}

macro_rules! tests {
    ($registry:ident: $($scenario:ident)*) => { $(
        #[tokio::test]
        async fn $scenario() {
            let (registry, _server) = super::$registry().await;
            super::$scenario(super::Scene::new(registry)).await;
        }
    )* };
}

/// Creates a registry, with the value that has to live as long as it is used.
async fn memory() -> (Arc<dyn NodeRegistry>, ()) {
    let url = "memory:".parse().unwrap();
    (discovery::connect(&url).unwrap(), ())
}

async fn file() -> (Arc<dyn NodeRegistry>, testing::Directory) {
    let directory = testing::Directory::new().unwrap();
    let registry = file_registry::FileRegistry(directory.path().to_owned());
    (Arc::new(registry), directory)
}

#[cfg(feature = "etcd")]
async fn etcd() -> (Arc<dyn NodeRegistry>, testing::etcd::Etcd) {
    let server = testing::etcd::Etcd::start().await;
    (server.registry(), server)
}

#[cfg(feature = "consul")]
async fn consul() -> (Arc<dyn NodeRegistry>, testing::server::Server) {
    let server = testing::consul::start().await;
    (server.registry(), server)
}

#[cfg(feature = "zookeeper")]
async fn zookeeper() -> (Arc<dyn NodeRegistry>, testing::server::Server) {
    let server = testing::zookeeper::start().await;
    (server.registry(), server)
}

contract!(memory);
contract!(file);
#[cfg(feature = "consul")]
contract!(consul);
#[cfg(feature = "zookeeper")]
contract!(zookeeper);
#[cfg(feature = "etcd")]
contract!(etcd);
