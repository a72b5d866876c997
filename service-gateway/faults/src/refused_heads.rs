//! Heads that the gateway's parser refuses.

use std::time::Duration;

use serde_json::Value;
use testing::etcd::Etcd;
use testing::http::{Message, Wire, requests};
use testing::try_until;

use crate::Verdict;
use crate::system::System;

/// Each refused head is answered with a request id, counted, and in the access log with that id, be it
/// the first on its connection or a later one.
pub(crate) async fn refused_heads() -> anyhow::Result<Verdict> {
    let system = System::around(Etcd::start().await, &["v1"], &["--access-log"]).await?;
    system.until_known(1).await?;
    let (heads, mut wrong, mut ids) = (heads(), Vec::new(), Vec::new());
    for (status, head) in &heads {
        for requests_before in [0, 2] {
            let mut client = system.connect().await;
            for _ in 0..requests_before {
                client.get("/greeter/greet/Ada").await;
            }
            let answer = answered(&mut client, head).await;
            if answer.status() != *status {
                wrong.push(format!("{} for {head:.99?}", answer.status()));
            }
            match answer.header("x-request-id") {
                Some(id) => ids.push((*status, id.to_owned())),
                None => wrong.push(format!("no request id for {head:.99?}")),
            }
        }
    }
    let logged = || async { Ok(unlogged(&system, &ids)? == 0) };
    let logged = try_until("the access log", Duration::from_secs(5), logged).await;
    let counted = counted(&system).await?;
    let sent = 2 * heads.len();
    let held = wrong.is_empty() && logged.is_ok() && counted == sent;
    Ok(Verdict::new(held).listing(&wrong).note(format!(
        "{sent} heads, {} answered otherwise, {counted} counted, {} missing in the access log",
        wrong.len(),
        sent - ids.len() + unlogged(&system, &ids)?
    )))
}

/// Heads, and the status that each is refused with.
fn heads() -> Vec<(u16, String)> {
    let broken = requests::BROKEN_HEADS.map(|head| (400, head.to_owned()));
    let large = requests::large_heads().map(|head| (431, head));
    let long = requests::long_targets().map(|head| (414, head));
    [&broken[..], &large, &long].concat()
}

async fn answered(client: &mut Wire, head: &str) -> Message {
    // Of a head that is too large not all is read before the response.
    let _ = client.try_send(head).await;
    client.answer("GET").await
}

/// How many of these responses the access log does not have.
fn unlogged(system: &System, ids: &[(u16, String)]) -> anyhow::Result<usize> {
    let log = system.gateway.log()?;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines.collect();
    let is_logged = |(status, id): &&(u16, String)| {
        let is_it = |line: &Value| line["request_id"] == **id && line["status"] == *status;
        lines.iter().any(is_it)
    };
    Ok(ids.len() - ids.iter().filter(is_logged).count())
}

/// How many of them the metrics have.
async fn counted(system: &System) -> anyhow::Result<usize> {
    let mut sum = 0.0;
    for reason in ["bad_request", "head_too_large", "target_too_long"] {
        let name = format!("gateway_refusals_total{{reason=\"{reason}\"}}");
        sum += system.metric(&name).await.unwrap_or_default();
    }
    Ok(sum as usize)
}
