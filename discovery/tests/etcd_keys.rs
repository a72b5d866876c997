//! Keys and values in etcd: those of this crate, and those of other programs.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use futures_util::future::join_all;
use testing::etcd::{Etcd, registry};
use testing::relay::Relay;
use testing::scene::Scene;
use testing::{PATIENCE, eventually, free_port};

trait Entries {
    fn value(&self, port: u16, more: &str) -> String;
    async fn lists_as_many_as(&self, count: usize);
}

impl Entries for Scene {
    /// Returns the value that another program would write for the node 10.0.0.1 with this port.
    fn value(&self, port: u16, more: &str) -> String {
        let service = &self.service;
        format!(r#"{{"ServiceName":"{service}","IP":"10.0.0.1","Port":{port}{more}}}"#)
    }

    async fn lists_as_many_as(&self, count: usize) {
        let listed = || Some(self.client.view(&self.service)?.endpoints().len());
        let so_many = async || listed() == Some(count);
        eventually(&format!("{count} nodes are listed"), PATIENCE, so_many).await;
    }
}

#[tokio::test]
async fn a_node_is_a_key_under_the_prefix() {
    let etcd = Etcd::start().await;
    for (path, prefix) in [("", "/services/"), ("/demo", "/demo/"), ("/", "")] {
        let scene = Scene::new(registry(&format!("{}{path}", etcd.address())));
        let one = scene.join(1).await;
        scene.lists(&["1"]).await;
        assert_eq!(
            etcd.keys().await,
            [format!("{prefix}{}/10.0.0.1:1", scene.service)]
        );
        one.deregister().await.unwrap();
    }
}

#[tokio::test]
async fn deregistering_returns_after_the_removal() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry());
    for port in 1..=10 {
        let node = scene.join(port).await;
        node.deregister().await.unwrap();
        assert!(etcd.keys().await.is_empty());
    }
}

#[tokio::test]
async fn nodes_of_the_articles_programs_are_found() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(registry(&format!("{}/", etcd.address())));
    for (port, more) in [
        (1, r#","Tags":null"#),
        (2, r#","Tags":{"version":"v2"}"#),
        (3, r#","Weight":3"#),
    ] {
        let key = format!("{}/10.0.0.1:{port}", scene.service);
        etcd.put(&key, scene.value(port, more)).await;
    }
    scene.lists(&["1", "2 version=v2", "3"]).await;
}

#[tokio::test]
async fn malformed_entries_are_counted_and_ignored() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry());
    let prefix = format!("/services/{}/", scene.service);
    let put = async |key: &str, value: String| etcd.put(&format!("{prefix}{key}"), value).await;
    let _good = scene.join(1).await;
    put("10.0.0.1:2", "no JSON".into()).await;
    put("10.0.0.1:3", scene.value(4, "")).await;
    scene.lists(&["1"]).await; // both the snapshot and the events have malformed entries
    put("10.0.0.1:0", scene.value(0, "")).await;
    put("..", scene.value(5, "")).await;
    put("", scene.value(6, "")).await;
    put("10.0.0.1:7", "x".repeat(1 << 20)).await;
    put("10.0.0.1:8", scene.value(8, r#","Tags":["version"]"#)).await;
    etcd.put(
        &format!("/services/{}2/10.0.0.1:9", scene.service),
        scene.value(9, ""),
    )
    .await;
    let _newcomer = scene.join(10).await;
    scene.lists(&["1", "10"]).await;
    assert_eq!(scene.view().skipped(), 7);
    put("10.0.0.1:2", scene.value(2, "")).await;
    scene.lists(&["1", "2", "10"]).await;
    assert_eq!(scene.view().skipped(), 6);
}

/// Five clients, since each starts with a random endpoint.
async fn nodes_come_and_go_at(endpoints: &str) {
    let comes_and_goes = async |scene: Scene| {
        let one = scene.join(1).await;
        scene.lists(&["1"]).await;
        one.deregister().await.unwrap();
    };
    let scenes = (0..5).map(|_| Scene::new(registry(endpoints)));
    join_all(scenes.map(comes_and_goes)).await;
}

#[tokio::test]
async fn one_endpoint_of_several_suffices() {
    let etcd = Etcd::start().await;
    let (dead, living) = ([free_port(), free_port()], etcd.address());
    nodes_come_and_go_at(&format!(
        "127.0.0.1:{},127.0.0.1:{},{living}",
        dead[0], dead[1]
    ))
    .await;
    assert!(etcd.keys().await.is_empty());
}

#[tokio::test]
async fn a_silent_endpoint_costs_one_timeout() {
    let etcd = Etcd::start().await;
    let silent = Relay::to(etcd.address()).await;
    silent.fall_silent();
    nodes_come_and_go_at(&format!("{},{}", silent.address(), etcd.address())).await;
    assert!(etcd.keys().await.is_empty());
}

/// gRPC's default limit of a message, 4 MiB, is less than this snapshot has.
#[tokio::test]
async fn ten_thousand_nodes_are_one_snapshot() {
    let etcd = Etcd::start().await;
    let scene = Scene::new(etcd.registry());
    let prefix = format!("/services/{}/10.0.0.1:", scene.service);
    let padding = format!(r#","Padding":"{}""#, "x".repeat(500));
    let node = |port| (format!("{prefix}{port}"), scene.value(port, &padding));
    etcd.put_all((1..=5_000).map(node)).await;
    scene.lists_as_many_as(5_000).await;
    etcd.put_all((5_001..=10_000).map(node)).await;
    scene.lists_as_many_as(10_000).await;
    let newcomer = scene.seen_through(etcd.registry());
    newcomer.lists_as_many_as(10_000).await;
    etcd.delete(&format!("{prefix}1")).await; // 10 to 19 and so on, too
    scene.lists_as_many_as(8_888).await;
}
