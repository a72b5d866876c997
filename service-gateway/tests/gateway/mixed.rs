//! Many requests of all kinds at once: nobody gets somebody else's answer.

use std::rc::Rc;

use crate::support::{Gateway, mixed};

const CONNECTIONS: usize = 8;
const REQUESTS: usize = 1250;

#[actix_web::test]
async fn of_ten_thousand_mixed_requests_none_gets_anothers_answer() {
    let nodes = [
        mixed::node().await,
        mixed::node().await,
        mixed::node().await,
    ];
    let gateway = Rc::new(Gateway::with("--workers 2", &nodes.each_ref()).await);
    let clients = (0..CONNECTIONS).map(|client| {
        let gateway = gateway.clone();
        actix_web::rt::spawn(async move {
            let mut wire = gateway.connect().await;
            for number in 0..REQUESTS {
                let id = format!("{client}-{number}");
                mixed::ask(&mut wire, "", number * 7 + client, &id)
                    .await
                    .unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}
