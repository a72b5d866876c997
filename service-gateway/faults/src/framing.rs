//! Where a message ends, and whose it is.

use std::rc::Rc;

use actix_web::rt;
use testing::http::{Upstream, Wire, answers, mixed};

use crate::Verdict;
use crate::system::System;

const REQUESTS: usize = 100_000;
const CONNECTIONS: usize = 16;

/// What is no answer is a 502, and of all the others nobody gets somebody else's.
pub(crate) async fn framing() -> anyhow::Result<Verdict> {
    let odd = [
        mixed::node().await,
        mixed::node().await,
        mixed::node().await,
    ];
    let broken = [answers::none(), answers::unclear()].concat();
    let count = broken.len();
    let node = Upstream::answering_by_number(broken).await;
    let nodes = [
        (&odd[0], "odd"),
        (&odd[1], "odd"),
        (&odd[2], "odd"),
        (&node, "broken"),
    ];
    let routes = "/odd=greeter?version=odd,/broken=greeter?version=broken,/=greeter?version=v1";
    let system = Rc::new(System::routing(routes, &["v1", "v1"], &nodes).await?);
    let mut refused = 0;
    let mut client = system.connect().await;
    for n in 0..count {
        let answer = client.post(&format!("/broken/{n}"), "x").await;
        refused += usize::from(answer.status() == 502);
        let greeted = greet(&mut client, &n.to_string()).await;
        greeted.map_err(anyhow::Error::msg)?; // the connection goes on in order
    }
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|client| rt::spawn(ask(system.clone(), client)))
        .collect();
    let (mut lost, mut wrong) = (0, Vec::new());
    for client in clients {
        let (its_lost, its_wrong) = client.await?;
        lost += its_lost;
        wrong.extend(its_wrong);
    }
    let held = refused == count && wrong.is_empty() && lost <= REQUESTS / 1000;
    Ok(Verdict::new(held)
        .listing(&wrong)
        .note(format!("{refused} of {count} broken answers are a 502"))
        .note(format!(
            "{REQUESTS} mixed requests, {} wrong answers, {lost} lost with a kept connection and told so",
            wrong.len()
        )))
}

/// One client's share, over a connection of its own. Every fourth goes to a greeter. Returns how
/// many were not answered by a node and told so, and what came in place of right answers.
async fn ask(system: Rc<System>, client: usize) -> (usize, Vec<String>) {
    let mut wire = system.connect().await;
    let (mut lost, mut wrong) = (0, Vec::new());
    for number in 0..REQUESTS / CONNECTIONS {
        let id = format!("{client}-{number}");
        let answered = match number % 4 {
            0 => greet(&mut wire, &id).await,
            _ => mixed::ask(&mut wire, "/odd", number * 7 + client, &id).await,
        };
        match answered {
            Ok(answered) => lost += usize::from(!answered),
            Err(error) => wrong.push(error),
        }
    }
    (lost, wrong)
}

async fn greet(client: &mut Wire, id: &str) -> Result<bool, String> {
    let answer = client.get(&format!("/greet/{id}")).await;
    let greeting = format!("Hello, {id}!");
    match answer.status() == 200 && answer.json()["message"] == greeting.as_str() {
        true => Ok(true),
        false => Err(format!("not a greeting for {id}: {answer:?}")),
    }
}
