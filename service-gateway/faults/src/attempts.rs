//! What further attempts cost, and what they must never do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use testing::free_port;
use testing::try_until;

use crate::Verdict;
use crate::stand_in::{Peer, StandIn};
use crate::system::System;

const SECOND: Duration = Duration::from_secs(1);

/// Attempts are at most 1.2 times the requests and 10 a second, however many fail.
pub(crate) async fn retry_storm() -> anyhow::Result<Verdict> {
    let began = Instant::now();
    let system = System::start(&[]).await?;
    // Connections are not kept, so that every attempt has to connect.
    let once = |mut peer: Peer| async move {
        let request = peer.request().await?;
        peer.answer(&request, "connection: close\r\n").await
    };
    let turn = Duration::from_millis(5);
    let node = |_| StandIn::on_and_off(([127, 0, 0, 1], free_port()).into(), turn, once);
    let nodes: Vec<_> = (0..4).map(node).collect();
    for node in &nodes {
        system.put_node(&node.address.to_string()).await;
    }
    system.until_known(nodes.len()).await?;
    let gets = system.gets(400);
    sleep(SECOND * 10).await;
    let gets = gets.end().await?;
    let requests = gets.answered() + gets.failed();
    let attempts = system.metric("gateway_attempts_total").await?;
    let refused = system.metric("gateway_budget_refusals_total").await?;
    let limit = 1.2 * requests as f64 + 10.0 * began.elapsed().as_secs_f64();
    Ok(Verdict::new(attempts <= limit && refused > 0.0)
        .note(format!("{requests} requests, {} failed", gets.failed()))
        .note(format!(
            "{attempts} attempts of {limit:.0} allowed, {refused} more refused"
        )))
}

/// No GET fails when kept connections end at the moment of their next use, and no POST is executed
/// twice.
pub(crate) async fn reuse_race() -> anyhow::Result<Verdict> {
    let system = System::start(&[]).await?;
    let executed = Rc::<RefCell<HashMap<String, usize>>>::default();
    let record = executed.clone();
    let node = StandIn::on(([127, 0, 0, 1], 0).into(), move |peer| {
        close_when_asked(peer, record.clone())
    })?;
    system.put_node(&node.address.to_string()).await;
    system.until_known(1).await?;
    let (gets, posts) = (system.gets(600), system.posts(100));
    let enough = || async { Ok(gets.count() >= 10_000) };
    try_until("ten thousand answers", SECOND * 60, enough).await?;
    let (gets, posts) = (gets.end().await?, posts.end().await?);
    let doubled = executed.borrow().values().filter(|n| **n > 1).count();
    let answered = executed.borrow().len() as u64 >= posts.answered();
    Ok(Verdict::new(gets.failed() == 0 && doubled == 0 && answered)
        .counted(&gets)
        .note(format!(
            "{} POSTs, {} told that they failed, {doubled} executed twice",
            posts.answered() + posts.failed(),
            posts.failed()
        )))
}

/// Answers the first request of a connection. At later ones it may close: when the first byte
/// comes, when all is executed and only the answer is missing, or just after the answer.
async fn close_when_asked(
    mut peer: Peer,
    executed: Rc<RefCell<HashMap<String, usize>>>,
) -> std::io::Result<()> {
    for is_first in std::iter::once(true).chain(std::iter::repeat(false)) {
        peer.is_asked().await?;
        let fate = if is_first { u8::MAX } else { fastrand::u8(..8) };
        if fate == 0 {
            break;
        }
        let request = peer.request().await?;
        if request.method == "POST" {
            *executed.borrow_mut().entry(request.id.clone()).or_default() += 1;
        }
        if fate == 1 {
            break;
        }
        peer.answer(&request, "").await?;
        if fate == 2 {
            break;
        }
    }
    Ok(())
}
