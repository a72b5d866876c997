//! What a node is in Consul, and how it survives an agent that loses it.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use testing::relay::Relay;
use testing::scene::Scene;
use testing::server::Server;
use testing::{Directory, PATIENCE, consul, eventually};

/// Sends a request to the agent as another client would. Returns the response.
async fn request(consul: &Server, method: Method, path: &str, body: Value) -> Value {
    let answer = try_request(consul, method, path, body).await;
    answer.unwrap_or_else(|refused| panic!("{path}: {refused}"))
}

async fn try_request(
    consul: &Server,
    method: Method,
    path: &str,
    body: Value,
) -> Result<Value, String> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}/v1/{path}", consul.address()))
        .body(body.to_string())
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    let answer = client.request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    match status.is_success() {
        true => Ok(serde_json::from_slice(&body).unwrap_or_default()), // some have no body
        false => Err(format!("{status} {body:?}")),
    }
}

#[tokio::test]
async fn a_node_is_a_service_with_tags_as_meta() {
    let consul = consul::start().await;
    let scene = Scene::new(consul.registry());
    let node = scene.join_with(1, "version=v1,region=cn").await;
    let path = format!("health/service/{}?passing", scene.service);
    let list = request(&consul, Method::GET, &path, Value::Null).await;
    let service = &list[0]["Service"];
    assert_eq!(service["ID"], "10.0.0.1:1");
    assert_eq!(service["Address"], "10.0.0.1");
    assert_eq!(service["Port"], 1);
    assert_eq!(service["Meta"], json!({"version": "v1", "region": "cn"}));
    node.deregister().await.unwrap();
    let services = request(&consul, Method::GET, "agent/services", Value::Null).await;
    assert_eq!(services, json!({}));
}

#[tokio::test]
async fn a_deleted_check_or_service_is_restored() {
    let consul = consul::start().await;
    let scene = Scene::new(consul.registry()).with_ttl(Duration::from_secs(2));
    let _node = scene.join(1).await;
    let checks = async || request(&consul, Method::GET, "agent/checks", Value::Null).await;
    let ids = async || -> Vec<String> {
        let checks = checks().await;
        checks.as_object().unwrap().keys().cloned().collect()
    };
    let first = ids().await;
    let path = format!("agent/check/deregister/{}", first[0]);
    request(&consul, Method::PUT, &path, Value::Null).await;
    eventually("the check is restored", PATIENCE, async || {
        ids().await == first
    })
    .await;
    let path = "agent/service/deregister/10.0.0.1:1";
    request(&consul, Method::PUT, path, Value::Null).await;
    eventually("the service is restored", PATIENCE, async || {
        ids().await == first
    })
    .await;
    scene.lists(&["1"]).await;
}

/// Registering again does not reset a check that Consul has and that fails.
#[tokio::test]
async fn a_node_returns_after_more_than_its_ttl() {
    let consul = consul::start().await;
    let relay = Relay::to(consul.address()).await;
    let ttl = Duration::from_secs(2);
    let scene = Scene::new(consul.registry_at(relay.address())).with_ttl(ttl);
    let _one = scene.join(1).await;
    let path = format!("health/service/{}?passing", scene.service);
    let listed = async || {
        let list = request(&consul, Method::GET, &path, Value::Null).await;
        list.as_array().is_some_and(|list| !list.is_empty())
    };
    assert!(listed().await);
    relay.fall_silent();
    eventually("it is off the list", PATIENCE, async || !listed().await).await;
    relay.heal();
    eventually("it is on it again", PATIENCE, listed).await;
}

/// Its index starts over, far below that of the blocking query.
#[tokio::test]
async fn nodes_register_with_an_empty_consul() {
    let mut consul = consul::start().await;
    let scene = Scene::new(consul.registry());
    let _one = scene.join(1).await;
    for port in 2..20 {
        scene.join(port).await.deregister().await.unwrap();
    }
    scene.lists(&["1"]).await;
    consul.replace().await;
    scene.lists_within(PATIENCE * 2, &["1"]).await;
    let _two = scene.join(2).await;
    scene.lists(&["1", "2"]).await;
}

#[tokio::test]
async fn a_frozen_agent_is_detected() {
    let consul = consul::start().await;
    let scene = Scene::new(consul.registry());
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
    consul.freeze();
    let noticed = async || scene.stale_for().is_some();
    eventually("it is away", Duration::from_secs(9), noticed).await;
    consul.thaw();
    scene.lists(&["1"]).await;
}

#[tokio::test]
async fn services_that_are_no_nodes_are_counted() {
    let consul = consul::start().await;
    let scene = Scene::new(consul.registry());
    let _good = scene.join(1).await;
    for (id, address, port) in [
        ("a", "10.0.0.1", 2),
        ("b", "greeter.local", 3),
        ("c", "10.0.0.1", 0),
    ] {
        let service =
            json!({"ID": id, "Name": scene.service.as_str(), "Address": address, "Port": port});
        request(&consul, Method::PUT, "agent/service/register", service).await;
    }
    scene.lists(&["1", "2"]).await;
    let counted = async || scene.view().skipped() == 2;
    eventually("both others are counted", PATIENCE, counted).await;
}

#[tokio::test]
async fn a_token_is_read_for_each_request() {
    let consul = consul::start_with_acl().await;
    let made = std::cell::RefCell::new(Value::Null);
    let bootstrapped = async || {
        let first = try_request(&consul, Method::PUT, "acl/bootstrap", json!({})).await;
        first.map(|first| made.replace(first)).is_ok()
    };
    eventually("there is a first token", PATIENCE, bootstrapped).await;
    let directory = Directory::new().unwrap();
    let file = directory.file("token");
    fs::write(&file, "no token\n").unwrap();
    let rest = format!("{}?token-file={}", consul.address(), file.display());
    let scene = Scene::new(consul.registry_at(&rest));
    let node = scene.register(scene.node(1));
    let first = scene.registry.watch(&scene.service).next().await.unwrap();
    let told = format!("{:?}", first.expect_err("it is not let in"));
    assert!(told.contains("403") && !told.contains("no token"), "{told}");
    assert!(!node.is_registered());
    fs::write(&file, made.borrow()["SecretID"].as_str().unwrap()).unwrap();
    scene.lists(&["1"]).await;
}
