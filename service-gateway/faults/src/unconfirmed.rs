//! What the registry lost, and the gateway does not believe at once.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use testing::etcd::Etcd;

use crate::Verdict;
use crate::stand_in::StandIn;
use crate::system::{System, TTL, get};

const SECOND: Duration = Duration::from_secs(1);

/// Nodes that vanish all at once, more than half of them, stay usable for one time to live, and are
/// marked; a refused connection drops them at once.
pub(crate) async fn unconfirmed() -> anyhow::Result<Verdict> {
    let flags = ["--keep-unconfirmed", &format!("{}s", TTL.as_secs())];
    let system = System::around(Etcd::start().await, &[], &flags).await?;
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(StandIn::obliging()?);
    }
    let addresses = nodes.iter().map(|node| node.address.to_string());
    system.put_nodes(addresses).await;
    system.until_known(5).await?;
    let gets = system.gets(300);
    sleep(SECOND * 2).await;

    for node in &nodes[..3] {
        let key = format!("/services/greeter/{}", node.address);
        system.server.delete(&key).await;
    }
    let vanished = Instant::now();
    for node in &nodes[..3] {
        system.until_state(&node.address, "unconfirmed").await?;
    }
    let refusing = nodes.remove(0).address;
    let refused = Instant::now();
    system.until_state(&refusing, "ejected").await?;
    let dropped = refused.elapsed();
    system.until_known(2).await?;
    let three = vanished.elapsed();
    nodes.drain(..2);

    system.server.delete("/").await;
    let vanished = Instant::now();
    for node in &nodes {
        system.until_state(&node.address, "unconfirmed").await?;
    }
    sleep(SECOND).await;
    let gets = gets.end().await?;
    nodes.clear();
    let url = system.url("/greet/Ada").to_string();
    get(&url).await?; // finds out
    let (status, problem) = get(&url).await?;
    let no_more = status == 503 && problem.contains("no_instance");
    system.until_known(0).await?;
    let all = vanished.elapsed();

    let in_time = |took| took >= TTL - SECOND / 2 && took <= TTL + SECOND;
    let held = gets.failed() == 0 && in_time(three) && in_time(all) && dropped <= SECOND && no_more;
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!(
            "3 of 5 marked, gone after {:.1} s; 2 of 2 after {:.1} s",
            three.as_secs_f64(),
            all.as_secs_f64()
        ))
        .note(format!(
            "one that refused dropped after {} ms, and {status} when all did",
            dropped.as_millis()
        )))
}
