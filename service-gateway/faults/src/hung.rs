//! Nodes that accept requests and respond late, never, or only to health checks.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode};
use actix_web::rt::time::sleep;
use anyhow::Context;
use serde_json::Value;
use testing::etcd::Etcd;
use testing::try_until;

use crate::Verdict;
use crate::node::Node;
use crate::running::Running;
use crate::system::System;

const SECOND: Duration = Duration::from_secs(1);

/// The hung node is ejected; no GET fails, and no POST that begins 10 s after.
pub(crate) async fn hung() -> anyhow::Result<Verdict> {
    let (system, nodes) = hung_one_of_three().await?;
    let (gets, posts) = (system.gets(300), system.posts(30));
    sleep(SECOND).await;
    nodes[0].set.hang(true);
    let began = Instant::now();
    system
        .until_state(&nodes[0].address, "ejected")
        .await
        .context("the hung node is not ejected")?;
    let ejected = began.elapsed();
    sleep(SECOND * 10 - ejected.min(SECOND * 9)).await;
    let (later_gets, later_posts) = (system.gets(300), system.posts(30));
    let (gets, posts) = (gets.end().await?, posts.end().await?);
    sleep((SECOND * 30).saturating_sub(began.elapsed())).await;
    let (later_gets, later_posts) = (later_gets.end().await?, later_posts.end().await?);
    let counted = failures_of(&system, &nodes[0].address).await?;
    let failed_later = later_gets.failed() + later_posts.failed();
    let held = gets.failed() == 0
        && posts.failed() <= 40
        && failed_later == 0
        && ejected <= SECOND * 3
        && counted >= 5;
    Ok(Verdict::new(held)
        .counted(&gets)
        .counted(&posts)
        .counted(&later_gets)
        .counted(&later_posts)
        .note(format!(
            "ejected after {:.1} s, with {counted} failures of its own",
            ejected.as_secs_f64()
        )))
}

/// The same with requests that no one may hedge, before a gateway that sends no health checks: at most
/// those fail that it took until the first timeouts.
pub(crate) async fn hung_posts() -> anyhow::Result<Verdict> {
    let (nodes, _) = Node::several::<3>()?;
    let flags = ["--timeout", "2s", "--probe-path", "off"];
    let system = around(&nodes, &flags).await?;
    let posts = system.posts(30);
    sleep(SECOND).await;
    nodes[0].set.hang(true);
    system.until_state(&nodes[0].address, "ejected").await?;
    sleep(SECOND * 20).await;
    nodes[0].set.hang(false);
    let posts = posts.end().await?;
    // 10 a second until the timeout, and one for each half-open probe.
    Ok(Verdict::new(posts.failed() <= 35).counted(&posts))
}

/// It is back within 15 s.
pub(crate) async fn hung_then_well() -> anyhow::Result<Verdict> {
    let (system, nodes) = hung_one_of_three().await?;
    let (gets, posts) = (system.gets(300), system.posts(30));
    sleep(SECOND).await;
    nodes[0].set.hang(true);
    sleep(SECOND * 30).await;
    nodes[0].set.hang(false);
    let began = Instant::now();
    let address = nodes[0].address;
    system.until_state(&address, "up").await?;
    let back = began.elapsed();
    sleep(SECOND * 10).await; // requests from before time out meanwhile
    let state = system.states().await?[&address.to_string()].clone();
    let (gets, posts) = (gets.end().await?, posts.end().await?);
    let held = gets.failed() == 0 && posts.failed() <= 40 && back <= SECOND * 15 && state == "up";
    Ok(Verdict::new(held)
        .counted(&gets)
        .counted(&posts)
        .note(format!("up again after {:.1} s", back.as_secs_f64())))
}

/// Nothing is ejected, nothing is executed more than twice, and nothing is hedged once it is clear that
/// all are slow.
pub(crate) async fn slow_for_all() -> anyhow::Result<Verdict> {
    let (nodes, _) = Node::several::<3>()?;
    nodes.iter().for_each(|node| node.set.delay(SECOND * 4));
    let system = around(&nodes, &[]).await?;
    let gets = system.gets(20);
    let known = || async { Ok(gets.count() >= 100) };
    try_until("100 responses", SECOND * 30, known).await?;
    sleep(SECOND * 5).await; // those that were sent before have been hedged
    let before = system.metric("gateway_hedges_total").await?;
    sleep(SECOND * 12).await;
    let hedges = system.metric("gateway_hedges_total").await? - before;
    let not_up = not_up(&system).await?;
    let gets = gets.end().await?;
    let most = most_executed(&nodes);
    let held = gets.failed() == 0 && hedges < 0.5 && most <= 2 && not_up == 0;
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!(
            "{before} hedged until all were known to be slow, {hedges} later"
        ))
        .note(format!("one request executed {most} times at most"))
        .note(format!("{not_up} ejected")))
}

/// What is not safe is executed once, and in its order.
pub(crate) async fn unsafe_hedge() -> anyhow::Result<Verdict> {
    let (nodes, store) = Node::several::<3>()?;
    let system = around(&nodes, &[]).await?;
    let late = SECOND * 3 / 2;
    nodes[0].set.delay(late);
    let (mut failed, mut left) = (0, BTreeSet::new());
    for round in 0..6 {
        // Of two in a row, one meets the slow node first.
        for (number, body) in ["first", "second", "third"].into_iter().enumerate() {
            let id = format!("{round}-{number}");
            failed += usize::from(send(&system, Method::PUT, &id, body).await? != 200);
        }
        sleep(late).await; // what would be executed late is executed now
        left.insert(store.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
    nodes.iter().for_each(|node| node.set.delay(late));
    for round in 0..3 {
        failed += usize::from(send(&system, Method::DELETE, &format!("{round}"), "").await? != 200);
    }
    let most = most_executed(&nodes);
    let in_order = left.iter().eq(["third"]);
    Ok(Verdict::new(failed == 0 && most == 1 && in_order)
        .note(format!("21 requests, {failed} failed"))
        .note(format!("one executed {most} times at most"))
        .note(format!("the store ended with {left:?}")))
}

/// A service whose nodes hang takes no retries from another one.
pub(crate) async fn budget_apart() -> anyhow::Result<Verdict> {
    let (hung, _) = Node::several::<2>()?;
    hung.iter().for_each(|node| node.set.hang(true));
    let flags = ["--route", "/greeter=greeter,/reports=reports"];
    let system = System::around(Etcd::start().await, &["v1", "v1", "v1"], &flags).await?;
    system.until_known(3).await?;
    for node in &hung {
        let (ip, port) = (node.address.ip(), node.address.port());
        let value = format!(r#"{{"ServiceName":"reports","IP":"{ip}","Port":{port},"Tags":null}}"#);
        let key = format!("/services/reports/{}", node.address);
        system.server.put(&key, value).await;
    }
    let mut load = system.load(250, Method::GET, "");
    load.url = format!("http://{}/reports/all", system.gateway.address).parse()?;
    load.in_flight = 4096;
    let reports = Running::begin(load);
    let spent = || async { Ok(system.metric("gateway_budget_refusals_total").await? > 100.0) };
    try_until("the end of the other budget", SECOND * 30, spent).await?;
    let gets = system.gets(100);
    sleep(SECOND).await;
    system.greeters[0].signal("-STOP")?;
    sleep(SECOND * 12).await; // longer than a request waits
    system.greeters[0].signal("-CONT")?;
    let (gets, reports) = (gets.end().await?, reports.end().await?);
    Ok(Verdict::new(gets.failed() == 0)
        .counted(&gets)
        .note(format!("the other service: {} failed", reports.failed())))
}

/// A drained node gets nothing after a restart on its address, with other tags, and when its lease was
/// revoked, until it is undrained.
pub(crate) async fn drained_stays() -> anyhow::Result<Verdict> {
    let flags = ["--admin-actions"];
    let mut system = System::around(Etcd::start().await, &["v1", "v1"], &flags).await?;
    system.until_known(2).await?;
    let gets = system.gets(200);
    let drained = system.greeters[0].address.to_string();
    act(&system, &drained, "drain").await?;
    sleep(SECOND / 2).await; // what was on its way ends
    let before = gets.answers_of(&drained);
    system.server.revoke_all_leases().await;
    system.until_listed(&drained).await?;
    sleep(SECOND).await;
    for version in ["v1", "v2"] {
        system.greeters.remove(0).leave().await?;
        let gone = || async { Ok(!system.states().await?.contains_key(&drained)) };
        try_until("the node to leave", SECOND * 10, gone).await?;
        system.add_at(&drained, version).await?;
        let index = system.greeters.len() - 1;
        system.greeters.swap(0, index);
        system.until_listed(&drained).await?;
        sleep(SECOND).await;
    }
    let state = system.states().await?.get(&drained).cloned();
    let received = gets.answers_of(&drained) - before;
    act(&system, &drained, "release").await?;
    let responds = || async { Ok(gets.answers_of(&drained) > before + received) };
    try_until("responses once it is undrained", SECOND * 5, responds).await?;
    let gets = gets.end().await?;
    let held = gets.failed() == 0 && received == 0 && state.as_deref() == Some("draining");
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!("{received} requests while it was drained")))
}

/// A node whose `/health` fails for ever returns by a request; one line of the log has the reason.
pub(crate) async fn health_liar() -> anyhow::Result<Verdict> {
    let (nodes, _) = Node::several::<3>()?;
    let liar = &nodes[0];
    liar.set.report_health(StatusCode::SERVICE_UNAVAILABLE);
    let system = around(&nodes, &[]).await?;
    let gets = system.gets(100);
    sleep(SECOND).await;
    liar.set.respond_with(StatusCode::INTERNAL_SERVER_ERROR);
    system.until_state(&liar.address, "ejected").await?;
    sleep(SECOND * 5).await; // half-open probes fail, at no client's cost
    liar.set.respond_with(StatusCode::OK);
    let began = Instant::now();
    system.until_state(&liar.address, "up").await?;
    let back = began.elapsed();
    let gets = gets.end().await?;
    let log = system.gateway.log()?;
    let is_of_check = |line: &&str| line.contains("health check");
    let warnings = log.lines().filter(is_of_check).count();
    let held = gets.failed() <= 5 && warnings == 1 && back <= SECOND * 10;
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!("up again after {:.1} s", back.as_secs_f64()))
        .note(format!("{warnings} warnings")))
}

async fn hung_one_of_three() -> anyhow::Result<(System, [Node; 3])> {
    let (nodes, _) = Node::several()?;
    let system = around(&nodes, &[]).await?;
    Ok((system, nodes))
}

/// A gateway before these nodes.
async fn around(nodes: &[Node], flags: &[&str]) -> anyhow::Result<System> {
    let system = System::around(Etcd::start().await, &[], flags).await?;
    for node in nodes {
        system.put_node(&node.address.to_string()).await;
    }
    system.until_known(nodes.len()).await?;
    Ok(system)
}

async fn not_up(system: &System) -> anyhow::Result<usize> {
    let states = system.states().await?;
    Ok(states.values().filter(|state| *state != "up").count())
}

/// The failures that the gateway counts for a node.
async fn failures_of(system: &System, node: &SocketAddr) -> anyhow::Result<u64> {
    let page: Value = serde_json::from_str(&system.admin("/api/instances").await?.1)?;
    let instances = page["services"][0]["instances"].as_array();
    let node = node.to_string();
    let mut instances = instances.context("a list of instances")?.iter();
    let instance = instances.find(|instance| instance["instance"] == node.as_str());
    let failures = instance.and_then(|instance| instance["failures"].as_u64());
    failures.context("the node's failures")
}

/// How often the request was executed that was executed most often.
fn most_executed(nodes: &[Node]) -> usize {
    let mut sums: HashMap<String, usize> = HashMap::new();
    for (request, count) in nodes.iter().flat_map(|node| node.set.executions()) {
        *sums.entry(request).or_default() += count;
    }
    sums.into_values().max().unwrap_or_default()
}

/// Sends one request and returns the status of its response.
async fn send(system: &System, method: Method, id: &str, body: &str) -> anyhow::Result<u16> {
    let client = awc::Client::builder().timeout(SECOND * 15).finish();
    let request = client.request(method, system.url("/item"));
    let request = request.insert_header(("x-request-id", id.to_owned()));
    let response = request.send_body(body.to_owned()).await;
    let response = response.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(response.status().as_u16())
}

/// Drains or undrains a node as the dashboard does.
async fn act(system: &System, node: &str, action: &str) -> anyhow::Result<()> {
    let page = system.admin("/").await?.1;
    let token = page.split("name=\"admin-token\" content=\"").nth(1);
    let token = token.and_then(|rest| rest.split('"').next());
    let token = token.context("the token on the page")?;
    let admin = system.gateway.admin()?;
    let url = format!("http://{admin}/api/services/greeter/instances/{node}/{action}");
    let request = awc::Client::new().post(url);
    let request = request.insert_header(("x-admin-token", token)).send();
    let response = request.await.map_err(|error| anyhow::anyhow!("{error}"))?;
    anyhow::ensure!(response.status() == 204, "{action}: {}", response.status());
    Ok(())
}
