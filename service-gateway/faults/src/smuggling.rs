//! Requests that two readers could read in two ways.

use testing::http::{Message, Upstream, requests};

use crate::Verdict;
use crate::system::System;

const SECOND: &str = "GET /second HTTP/1.1";

/// What can be read in two ways is refused, and nothing of it reaches a node; what is odd, and clear,
/// reaches it as it was meant.
pub(crate) async fn smuggling() -> anyhow::Result<Verdict> {
    let node = Upstream::saying("hi").await;
    let system = System::routing("/=greeter", &[], &[(&node, "v1")]).await?;
    let (refused, mut wrong) = (to_be_refused(), Vec::new());
    for (status, request) in &refused {
        node.forget();
        let got = requests::status_of(system.connect().await, request.as_bytes()).await;
        let reached = node.requests();
        if got != *status || reached.len() > 1 || reached.iter().any(|r| r.start != SECOND) {
            wrong.push(format!("{got} for {request:.99?}, reached: {reached:?}"));
        }
    }
    for (request, start, body) in requests::CLEAR {
        node.forget();
        let got = requests::status_of(system.connect().await, request.as_bytes()).await;
        let mut reached = node.requests();
        reached.retain(|request| request.start != SECOND);
        let meant = |r: &Message| r.start == start && r.body == body.as_bytes();
        if got != 200 || reached.len() != 1 || !reached.iter().all(meant) {
            wrong.push(format!("{got} for {request:.99?}, reached: {reached:?}"));
        }
    }
    Ok(Verdict::new(wrong.is_empty()).listing(&wrong).note(format!(
        "{} to be refused and {} to be passed on, {} done otherwise",
        refused.len(),
        requests::CLEAR.len(),
        wrong.len()
    )))
}

/// Requests, and the status that each is refused with.
fn to_be_refused() -> Vec<(u16, String)> {
    let bad = [
        requests::unclear_framing(),
        requests::BROKEN_HEADS.map(str::to_owned).into(),
        requests::NO_PATHS.map(str::to_owned).into(),
        requests::leading_elsewhere(),
        requests::no_hosts(),
        requests::UPGRADES_WITH_A_BODY.map(str::to_owned).into(),
    ];
    let bad = bad.concat().into_iter().map(|request| (400, request));
    let large = requests::large_heads().map(|request| (431, request));
    let long = requests::long_targets().map(|request| (414, request));
    let others = requests::NOT_FOR_GATEWAYS.map(|request| (501, request.to_owned()));
    bad.chain(large).chain(long).chain(others).collect()
}
