//! Connections to nodes that are kept for the next request, and end at the wrong moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::support::{Gateway, Upstream};

/// A node that closes every connection right after so many answers, without saying so before, and
/// counts how often it executed the request for each path.
async fn closing_after(
    answers: usize,
    executed: &Rc<RefCell<BTreeMap<String, usize>>>,
) -> Upstream {
    let executed = executed.clone();
    Upstream::new(move |mut peer| {
        let executed = executed.clone();
        async move {
            for _ in 0..answers {
                let Some(request) = peer.wire_request().await else {
                    return;
                };
                let path = request.start.split(' ').nth(1).unwrap().to_owned();
                let length = path.len();
                *executed.borrow_mut().entry(path.clone()).or_default() += 1;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
                if peer.try_send(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[actix_web::test]
async fn no_get_fails_when_the_only_node_closes_its_connections() {
    for answers in [1, 2, 7] {
        let executed = Rc::default();
        let upstream = closing_after(answers, &executed).await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        for n in 0..2000 {
            let target = format!("/{n}");
            client.get(&target).await.is_ok(&target);
        }
        assert!(upstream.connections() >= 2000 / answers);
    }
}

#[actix_web::test]
async fn no_post_is_executed_twice_when_nodes_close_their_connections() {
    for answers in [1, 3] {
        let executed = Rc::default();
        let upstream = closing_after(answers, &executed).await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        let mut failed = 0;
        for n in 0..1500 {
            let target = format!("/{n}");
            let answer = client.post(&target, "x").await;
            match answer.status() {
                200 => answer.is_ok(&target),
                _ => {
                    answer.is_refused(502, "bad_upstream", 1);
                    failed += 1;
                }
            }
        }
        let executed = executed.borrow();
        assert!(executed.values().all(|count| *count == 1));
        assert!(executed.len() + failed >= 1500);
    }
}

/// The first connection answers once and then waits for the next request to close without an
/// answer: that is what a node's idle timeout looks like that ends just then.
async fn closing_at_the_second_request() -> (Upstream, Rc<Cell<bool>>) {
    let patient = Rc::new(Cell::new(false));
    let switch = patient.clone();
    let upstream = Upstream::new(move |mut peer| {
        let patient = switch.clone();
        async move {
            let mut first = true;
            while peer.request().await.is_some() && (first || patient.get()) {
                first = false;
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    .await;
            }
        }
    })
    .await;
    (upstream, patient)
}

#[actix_web::test]
async fn a_kept_connection_that_ends_is_no_fault_of_the_node() {
    for method in ["GET", "PUT", "DELETE"] {
        let (upstream, _) = closing_at_the_second_request().await;
        let gateway = Gateway::of(&[&upstream]).await;
        let mut client = gateway.connect().await;
        for _ in 0..5 {
            client.send_with_body(method, "/", "body").await;
            client.answer(method).await.is_ok("hi");
        }
        assert!(
            upstream
                .requests()
                .iter()
                .all(|request| request.text() == "body")
        );
        assert_eq!(upstream.connections(), 5);
        assert_eq!(
            gateway.service().await["instances"][0]["ejected"],
            serde_json::Value::Null
        );
    }
}

#[actix_web::test]
async fn a_post_on_a_kept_connection_that_ends_is_reported() {
    let (upstream, patient) = closing_at_the_second_request().await;
    let gateway = Gateway::of(&[&upstream]).await;
    let mut client = gateway.connect().await;
    client.post("/", "x").await.is_ok("hi");
    client
        .post("/", "x")
        .await
        .is_refused(502, "bad_upstream", 1);
    assert_eq!(upstream.count(), 2);
    patient.set(true);
    client.post("/", "x").await.is_ok("hi");
}

#[actix_web::test]
async fn a_new_connection_that_ends_is_the_nodes_fault() {
    let upstream = Upstream::closing_after("").await;
    let gateway = Gateway::of(&[&upstream]).await;
    gateway.get("/").await.is_refused(502, "bad_upstream", 1);
    assert_eq!(upstream.count(), 1);
}

#[actix_web::test]
async fn connections_to_nodes_are_kept_for_the_next_request_of_anybody() {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for _ in 0..20 {
        gateway.get("/").await.is_ok("hi");
    }
    assert_eq!(upstream.connections(), 1);
}
