//! Connections to nodes that are kept for the next request, and end at the wrong moment.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;

use futures_util::future::join_all;
use tokio::sync::Barrier;

use crate::support::{Gateway, Upstream};

/// How often the request for each path was executed.
type Executed = Arc<Mutex<BTreeMap<String, usize>>>;

/// A node that closes every connection right after so many answers, without saying so before. It
/// has threads of its own, which last as long as the process, so that it closes when it likes.
fn closing_after(answers: usize) -> (SocketAddr, Executed) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, executed) = (listener.local_addr().unwrap(), Executed::default());
    let record = executed.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, record) = (stream.unwrap(), record.clone());
            // Whoever has gone in the meantime has no use for the answer.
            thread::spawn(move || (0..answers).try_for_each(|_| serve(&stream, &record)));
        }
    });
    (address, executed)
}

/// Answers one request with its path.
fn serve(mut stream: &TcpStream, executed: &Executed) -> std::io::Result<()> {
    let (mut reader, mut path) = (BufReader::with_capacity(1, stream), String::new());
    reader.read_line(&mut path)?;
    let mut words = path.split(' ');
    let (is_post, path) = (
        words.next() == Some("POST"),
        words.next().unwrap_or_default(),
    );
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    if is_post {
        reader.read_exact(&mut [0])?;
    }
    *executed.lock().unwrap().entry(path.to_owned()).or_default() += 1;
    let length = path.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
    stream.write_all(answer.as_bytes())
}

#[actix_web::test]
async fn no_get_fails_when_the_only_node_closes_its_connections() {
    for answers in [1, 2, 7] {
        let (address, _) = closing_after(answers);
        let gateway = Gateway::before("", &[(address, "")]).await;
        let mut client = gateway.connect().await;
        for n in 0..1500 {
            let target = format!("/{n}");
            client.get(&target).await.is_ok(&target);
        }
    }
}

#[actix_web::test]
async fn no_post_is_executed_twice_when_nodes_close_their_connections() {
    for answers in [1, 3] {
        let (address, executed) = closing_after(answers);
        let gateway = Gateway::before("", &[(address, "")]).await;
        let mut client = gateway.connect().await;
        let mut failed = 0;
        for n in 0..1000 {
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
        let executed = executed.lock().unwrap();
        assert!(executed.values().all(|count| *count == 1));
        assert!(executed.len() + failed >= 1000);
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
async fn a_request_meets_only_one_kept_connection_that_ends() {
    let (all_are_there, connections) = (Rc::new(Barrier::new(4)), Rc::new(Cell::new(0)));
    let upstream = Upstream::new(move |mut peer| {
        connections.set(connections.get() + 1);
        let is_one_of_four = connections.get() <= 4;
        let all_are_there = all_are_there.clone();
        async move {
            peer.request().await;
            if is_one_of_four {
                all_are_there.wait().await;
            }
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                .await;
            peer.request().await; // and closes
        }
    })
    .await;
    let gateway = Gateway::of(&[&upstream]).await;
    for answer in join_all((0..4).map(|_| gateway.get("/"))).await {
        answer.is_ok("hi");
    }
    let answer = gateway.get("/").await;
    answer.is_ok("hi");
    assert_eq!(answer.header("x-gateway-attempts"), Some("2"));
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
async fn a_kept_connection_that_ends_counts_as_an_attempt() {
    let (upstream, _) = closing_at_the_second_request().await;
    let gateway = Gateway::with("--attempts 1", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.get("/").await.is_ok("hi");
    client.get("/").await.is_refused(502, "bad_upstream", 1);
    let gateway = Gateway::with("--attempts 2", &[&upstream]).await;
    let mut client = gateway.connect().await;
    client.get("/").await.is_ok("hi");
    let answer = client.get("/").await;
    answer.is_ok("hi");
    assert_eq!(answer.header("x-gateway-attempts"), Some("2"));
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
