//! What a node is in ZooKeeper, and what happens to it with its session.
#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::time::Duration;

use testing::relay::Relay;
use testing::scene::Scene;
use testing::server::Server;
use testing::{Directory, PATIENCE, eventually, zookeeper};
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, Error as ZkError, Stat};

/// Opens a session as another client would.
async fn client(zookeeper: &Server) -> Client {
    Client::connect(&zookeeper.address()).await.unwrap()
}

async fn stat(client: &Client, path: &str) -> Option<Stat> {
    client.check_stat(path).await.unwrap()
}

#[tokio::test]
async fn a_node_is_an_ephemeral_znode_under_the_prefix() {
    let zookeeper = zookeeper::start().await;
    let client = client(&zookeeper).await;
    for (rest, prefix) in [("", "/services"), ("/demo/a", "/demo/a"), ("/", "")] {
        let url = format!("{}{rest}", zookeeper.address());
        let scene = Scene::new(zookeeper.registry_at(&url));
        let node = scene.join_with(1, "version=v1").await;
        scene.lists(&["1 version=v1"]).await;
        let path = format!("{prefix}/{}/10.0.0.1:1", scene.service);
        let (data, stat) = client.get_data(&path).await.unwrap();
        let service = &scene.service;
        let json = format!(
            r#"{{"ServiceName":"{service}","IP":"10.0.0.1","Port":1,"Tags":{{"version":"v1"}}}}"#
        );
        assert_eq!(String::from_utf8(data).unwrap(), json);
        assert_ne!(stat.ephemeral_owner, 0);
        node.deregister().await.unwrap();
        assert!(self::stat(&client, &path).await.is_none());
    }
}

#[tokio::test]
async fn a_deleted_znode_is_restored() {
    let zookeeper = zookeeper::start().await;
    let scene = Scene::new(zookeeper.registry());
    let _node = scene.join(1).await;
    let client = client(&zookeeper).await;
    let path = format!("/services/{}/10.0.0.1:1", scene.service);
    let first = stat(&client, &path).await.unwrap().czxid;
    client.delete(&path, None).await.unwrap();
    let another = async || stat(&client, &path).await.is_some_and(|s| s.czxid != first);
    eventually("it is there again", PATIENCE, another).await;
    scene.lists(&["1"]).await;
}

#[tokio::test]
async fn nodes_register_with_an_empty_zookeeper() {
    let mut zookeeper = zookeeper::start().await;
    let scene = Scene::new(zookeeper.registry()).with_ttl(Duration::from_secs(10));
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
    zookeeper.replace().await;
    let client = client(&zookeeper).await;
    let path = format!("/services/{}/10.0.0.1:1", scene.service);
    let back = async || stat(&client, &path).await.is_some();
    eventually(
        "it is there before its time is over",
        Duration::from_secs(6),
        back,
    )
    .await;
    scene.lists_within(PATIENCE * 2, &["1"]).await;
    let _two = scene.join(2).await;
    scene.lists(&["1", "2"]).await;
}

/// A dropped registration does not close its session: the server deletes the znode.
#[tokio::test]
async fn a_node_stays_for_its_session_timeout() {
    let zookeeper = zookeeper::start().await;
    let scene = Scene::new(zookeeper.registry()).with_ttl(Duration::from_secs(3));
    let node = scene.join(1).await;
    let client = client(&zookeeper).await;
    let path = format!("/services/{}/10.0.0.1:1", scene.service);
    drop(node);
    assert!(stat(&client, &path).await.is_some());
    let gone = async || stat(&client, &path).await.is_none();
    eventually("its session is over", Duration::from_secs(5), gone).await;
}

#[tokio::test]
async fn a_frozen_zookeeper_is_detected() {
    let zookeeper = zookeeper::start().await;
    let relay = Relay::to(zookeeper.address()).await;
    let scene = Scene::new(zookeeper.registry_at(relay.address()));
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
    relay.fall_silent();
    let noticed = async || scene.stale_for().is_some();
    eventually("it is away", Duration::from_secs(9), noticed).await;
    relay.heal();
    let elsewhere = scene.seen_through(zookeeper.registry());
    let _two = elsewhere.join(2).await;
    scene.lists_within(PATIENCE * 2, &["1", "2"]).await;
}

#[tokio::test]
async fn malformed_entries_are_counted_and_ignored() {
    let zookeeper = zookeeper::start().await;
    let scene = Scene::new(zookeeper.registry());
    let _good = scene.join(1).await;
    scene.lists(&["1"]).await;
    let client = client(&zookeeper).await;
    let service = format!("/services/{}", scene.service);
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for (name, value) in [("10.0.0.1:2", "no JSON"), ("any", "{}")] {
        let path = format!("{service}/{name}");
        client
            .create(&path, value.as_bytes(), &persistent)
            .await
            .unwrap();
    }
    let below = format!("{service}/any/child");
    client.create(&below, b"", &persistent).await.unwrap();
    let counted = async || scene.view().skipped() == 2;
    eventually("both are counted, in events", PATIENCE, counted).await;
    let added = scene.seen_through(zookeeper.registry());
    added.lists(&["1"]).await;
    assert_eq!(added.view().skipped(), 2, "and in a snapshot");
}

#[tokio::test]
async fn a_users_node_is_readable_and_not_writable_by_others() {
    let zookeeper = zookeeper::start().await;
    let users = zookeeper.registry_at(&format!("greeter:p%40ss@{}", zookeeper.address()));
    let scene = Scene::new(users.clone());
    let _one = scene.join(1).await;
    scene.seen_through(zookeeper.registry()).lists(&["1"]).await;
    let client = client(&zookeeper).await;
    let service = format!("/services/{}", scene.service);
    let (one, two) = (format!("{service}/10.0.0.1:1"), format!("{service}/2"));
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let refused = [
        client.delete(&one, None).await,
        client.set_data(&one, b"", None).await.map(drop),
        client.create(&two, b"", &ephemeral).await.map(drop),
        client
            .set_acl(&service, &Acls::anyone_all(), None)
            .await
            .map(drop),
    ];
    assert_eq!(refused, [(); 4].map(|()| Err(ZkError::NoAuth)));
    let again = scene.seen_through(users);
    let _successor = again.join_with(1, "version=v2").await;
    scene.lists(&["1 version=v2"]).await;
}

/// A user is a name and a password together: another password is another user.
#[tokio::test]
async fn a_password_is_read_from_its_file_for_each_session() {
    let zookeeper = zookeeper::start().await;
    let owner = format!("greeter:p%40ss@{}", zookeeper.address());
    let scene = Scene::new(zookeeper.registry_at(&owner));
    let _one = scene.join(1).await;
    let directory = Directory::new().unwrap();
    let file = directory.file("password");
    fs::write(&file, "s3cret\n").unwrap();
    let url = format!(
        "greeter@{}?password-file={}",
        zookeeper.address(),
        file.display()
    );
    let stranger = scene.seen_through(zookeeper.registry_at(&url));
    let two = stranger.register(stranger.node(2));
    let refused = timeout(Duration::from_secs(1), two.registered()).await;
    assert!(refused.is_err());
    fs::write(&file, "p@ss\n").unwrap();
    stranger.lists(&["1", "2"]).await;
    two.deregister().await.unwrap();
    stranger.lists(&["1"]).await;
}
