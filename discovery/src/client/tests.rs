use std::time::Instant;

use tokio::time::timeout;

use super::*;
use crate::{Ejection, MemoryRegistry, Registration, ServiceNode};

/// Returns a client of the service `a` with these nodes, which stay as long as their registrations.
async fn client_of(nodes: &[(&str, &str)]) -> (DiscoveryClient, Vec<Registration>) {
    let registry = MemoryRegistry::default();
    let mut registrations = Vec::new();
    for (address, tags) in nodes {
        let node = ServiceNode::new(a(), address.parse().unwrap());
        let node = node.with_tags(tags.parse().unwrap());
        let registration = registry.register(node, Duration::from_secs(10));
        registration.registered().await;
        registrations.push(registration);
    }
    (DiscoveryClient::new(Arc::new(registry)), registrations)
}

fn a() -> ServiceName {
    "a".parse().unwrap()
}

#[tokio::test]
async fn forbidden_addresses_are_skipped_and_counted() {
    let (client, _nodes) = client_of(&[
        ("10.0.0.1:80", ""),
        ("10.0.0.2:80", ""),
        ("169.254.169.254:80", ""),
        ("11.0.0.1:80", ""),
    ])
    .await;
    let allowed = |address: SocketAddr| address.ip() != std::net::IpAddr::from([11, 0, 0, 1]);
    let client = client.with_allowed(allowed);
    client.resolve(&a(), &Tags::new()).await.unwrap();
    let view = client.view(&a()).unwrap();
    let known: Vec<_> = view
        .endpoints()
        .iter()
        .map(|e| e.address.to_string())
        .collect();
    assert_eq!(known, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(view.skipped(), 2);
}

#[tokio::test]
async fn the_balancer_chooses() {
    let (client, _nodes) = client_of(&[("10.0.0.1:80", "weight=3"), ("10.0.0.2:80", "")]).await;
    let client = client.with_balancer(Balancer::Weighted);
    let mut firsts = 0;
    for _ in 0..40 {
        let chosen = client.resolve(&a(), &Tags::new()).await.unwrap();
        firsts += usize::from(chosen.authority() == "10.0.0.1:80");
    }
    assert_eq!(firsts, 30);
}

/// With a resolver of its own, every request would begin with the first node.
#[tokio::test]
async fn resolvers_are_shared_up_to_a_maximum() {
    let (client, _nodes) = client_of(&[]).await;
    let resolver = |number: usize| {
        let tags = format!("number={number}").parse().unwrap();
        client.resolver(&a(), &tags)
    };
    let first = resolver(1);
    for number in 2..=MAX_RESOLVERS {
        resolver(number);
    }
    assert!(Arc::ptr_eq(&first, &resolver(1)));
    resolver(MAX_RESOLVERS + 1);
    assert!(!Arc::ptr_eq(&first, &resolver(1)), "the map was cleared");
}

/// With one counter for both, one node of each would get everything.
#[tokio::test]
async fn services_do_not_share_a_round_robin() {
    let registry = MemoryRegistry::default();
    let mut registrations = Vec::new();
    let names = ["a", "b"].map(|name| name.parse::<ServiceName>().unwrap());
    for name in &names {
        for port in [1, 2] {
            let node = ServiceNode::new(name.clone(), ([10, 0, 0, 1], port).into());
            let registration = registry.register(node, Duration::from_secs(10));
            registration.registered().await;
            registrations.push(registration);
        }
    }
    let client = DiscoveryClient::new(Arc::new(registry));
    for turn in [1, 2, 1, 2] {
        for name in &names {
            let chosen = client.resolve(name, &Tags::new()).await.unwrap();
            assert_eq!(chosen.address.port(), turn, "{name:?}");
        }
    }
}

#[tokio::test]
async fn an_added_node_is_resolved() {
    let (client, _nodes) = client_of(&[("10.0.0.1:80", "")]).await;
    let resolver = client.resolver(&a(), &Tags::new());
    resolver.ready().await.unwrap();
    let resolve = || resolver.resolve(None).unwrap().address.ip();
    assert_eq!(resolve(), resolve());
    let mut changes = client.changes(&a());
    let added = ServiceNode::new(a(), ([10, 0, 0, 2], 80).into());
    let _added = client.registry.register(added, Duration::from_secs(10));
    let changed = timeout(Duration::from_secs(10), changes.changed()).await;
    changed.expect("a change in time").unwrap();
    assert_ne!(resolve(), resolve());
}

#[tokio::test]
async fn an_ejected_node_is_not_chosen() {
    let (client, _nodes) = client_of(&[("10.0.0.1:80", ""), ("10.0.0.2:80", "")]).await;
    let resolve = async || client.resolve(&a(), &Tags::new()).await.unwrap();
    let one = resolve().await;
    let two = resolve().await;
    one.eject(Ejection::Failing);
    assert_eq!(resolve().await.address, two.address);
    assert_eq!(resolve().await.address, two.address);
    one.uneject(Instant::now());
    two.eject(Ejection::Silent);
    assert_eq!(resolve().await.address, one.address);
    assert_eq!(resolve().await.address, one.address);
    let view = client.view(&a()).unwrap();
    let ejections = Ejection::ALL.map(|why| view.ejections(why));
    assert_eq!(ejections, [0, 1, 1, 0]);
}

#[tokio::test]
async fn a_retry_prefers_nodes_that_have_succeeded() {
    let nodes = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|address| (address, ""));
    let (client, _nodes) = client_of(&nodes).await;
    let resolver = client.resolver(&a(), &Tags::new());
    resolver.ready().await.unwrap();
    let view = client.view(&a()).unwrap();
    let [one, two, three] = view.endpoints().as_ref() else {
        panic!("there are three");
    };
    let resolve = || resolver.resolve_other(None, |node| node.address != one.address);
    let turns = || [resolve(), resolve()].map(|chosen| chosen.unwrap().address);
    assert_eq!(turns(), [two.address, three.address], "none has succeeded");
    InFlight::new(two.clone()).responded(true);
    assert_eq!(turns(), [two.address; 2]);
    two.eject(Ejection::Failing);
    let last = resolver.resolve_other(None, |node| node.address == two.address);
    assert!(last.is_ok(), "an ejected node is better than none");
}

#[tokio::test]
async fn unconfirmed_nodes_are_eligible_until_unreachable() {
    let (client, nodes) = client_of(&[("10.0.0.1:80", ""), ("10.0.0.2:80", "")]).await;
    let resolve = async || client.resolve(&a(), &Tags::new()).await;
    let first = resolve().await.unwrap();
    let unconfirmed = || {
        let view = client.view(&a()).unwrap();
        let unconfirmed = view.endpoints().iter().filter(|e| e.is_unconfirmed());
        unconfirmed.count()
    };
    assert_eq!(unconfirmed(), 0);
    let mut changes = client.changes(&a());
    let mut becomes = async |count| {
        while unconfirmed() != count {
            let changed = timeout(Duration::from_secs(10), changes.changed()).await;
            changed.expect("a change in time").unwrap();
        }
    };
    drop(nodes);
    becomes(2).await;
    let second = resolve().await.unwrap();
    first.eject(Ejection::Unreachable);
    assert!(Arc::ptr_eq(&resolve().await.unwrap(), &second));
    second.eject(Ejection::Unreachable);
    assert!(matches!(resolve().await, Err(Error::NoInstance { .. })));

    let node = ServiceNode::new(a(), first.address);
    let _again = client.registry.register(node, Duration::from_secs(10));
    becomes(1).await;
    assert!(Arc::ptr_eq(&resolve().await.unwrap(), &first));
}

#[tokio::test]
async fn unconfirmed_nodes_expire() {
    let (client, nodes) = client_of(&[("10.0.0.1:80", ""), ("10.0.0.2:80", "")]).await;
    let client = client.with_removal_protection(Duration::from_millis(50));
    client.resolve(&a(), &Tags::new()).await.unwrap();
    let mut changes = client.changes(&a());
    drop(nodes);
    let gone = async {
        while !client.view(&a()).unwrap().endpoints().is_empty() {
            changes.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(5), gone)
        .await
        .expect("in time");
}

#[tokio::test]
async fn drained_nodes_are_never_chosen() {
    let (client, _nodes) = client_of(&[("10.0.0.1:80", ""), ("10.0.0.2:80", "")]).await;
    let resolve = async || client.resolve(&a(), &Tags::new()).await;
    resolve().await.unwrap();
    let endpoints = client.view(&a()).unwrap().endpoints().clone();
    endpoints[0].drain();
    for _ in 0..4 {
        assert_eq!(resolve().await.unwrap().address, endpoints[1].address);
    }
    endpoints[1].drain();
    assert!(matches!(resolve().await, Err(Error::NoInstance { .. })));
    endpoints[0].undrain();
    assert_eq!(resolve().await.unwrap().address, endpoints[0].address);
}
