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
