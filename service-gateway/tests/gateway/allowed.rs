//! Nodes that somebody listed at addresses where none may be.

use crate::support::{Gateway, Upstream, until};

#[actix_web::test]
async fn a_node_outside_the_allowed_networks_gets_no_connection_not_even_a_probe() {
    let (one, other) = (Upstream::saying("hi").await, Upstream::saying("hi").await);
    let flags = "--allow 127.0.0.2/32,10.0.0.0/8 --probe-path /health --probe-interval 20ms";
    let gateway = Gateway::before(flags, &[(one.address, ""), (other.address, "")]).await;
    until("both to be skipped", async || {
        gateway.service().await["registry"]["skipped_entries"] == 2
    })
    .await;
    gateway.get("/").await.is_refused(503, "no_instance", 0);
    assert_eq!((one.connections(), other.connections()), (0, 0));
}

#[actix_web::test]
async fn the_gateway_itself_is_no_node() {
    let upstream = Upstream::saying("hi").await;
    let mut gateway = Gateway::of(&[&upstream]).await;
    for address in [gateway.address, gateway.admin] {
        gateway.join("test", address, "").await;
    }
    gateway
        .join("test", "169.254.169.254:80".parse().unwrap(), "")
        .await;
    until("three to be skipped", async || {
        gateway.service().await["registry"]["skipped_entries"] == 3
    })
    .await;
    gateway.knows(1).await;
    for _ in 0..6 {
        gateway.get("/").await.is_ok("hi");
    }
}

#[actix_web::test]
async fn the_registry_is_no_node() {
    let registry = Upstream::saying("a secret").await;
    let node = Upstream::saying("hi").await;
    let flags = format!(
        "--registry etcd://{} --probe-path /health",
        registry.address
    );
    let nodes = [(registry.address, ""), (node.address, "")];
    let gateway = Gateway::before(&flags, &nodes).await;
    until("it to be skipped", async || {
        gateway.service().await["registry"]["skipped_entries"] == 1
    })
    .await;
    for _ in 0..6 {
        gateway.get("/").await.is_ok("hi");
    }
    assert_eq!(registry.connections(), 0);
}

/// The default networks contain some of these.
#[actix_web::test]
async fn a_metadata_service_is_no_node() {
    let mut gateway = Gateway::of(&[]).await;
    let addresses = [
        "100.100.100.200:80",
        "[fd00:ec2::254]:80",
        "[fd20:ce::254]:80",
        "[::ffff:100.100.100.200]:80",
        "[fd00::5efe:169.254.169.254]:80",
    ];
    for address in addresses {
        gateway.join("test", address.parse().unwrap(), "").await;
    }
    until("all to be skipped", async || {
        gateway.service().await["registry"]["skipped_entries"] == addresses.len()
    })
    .await;
    gateway.get("/").await.is_refused(503, "no_instance", 0);
}
