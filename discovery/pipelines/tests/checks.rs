//! The checks themselves: against a server that is right, and against servers that are not.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pipelines::{FaultKind, Node, Options, Summary, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Counts the faults of a server that sends the same bytes over each connection, and ends it.
async fn faults_of(response: &'static str) -> Summary {
    let listener = TcpListener::bind(LOCALHOST).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(response.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let options = Options {
        requests: 500,
        keep_going: true,
        limit: Duration::from_secs(5),
        ..Options::default()
    };
    let summary = run(address, options).await.unwrap();
    serving.abort();
    summary
}

#[tokio::test]
async fn a_node_has_no_fault() {
    let node = Node::start(LOCALHOST).await.unwrap();
    let options = Options {
        requests: 10_000,
        seed: pipelines::seed(),
        ..Options::default()
    };
    let summary = run(node.address, options)
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(summary.responses + summary.unprocessed, summary.requests);
    assert!(summary.unprocessed * 3 < summary.requests, "{summary:?}");
    assert_eq!(node.forbidden(), 0);
}

#[tokio::test]
async fn a_seed_determines_the_requests() {
    let node = Node::start(LOCALHOST).await.unwrap();
    let summary = async |seed| {
        let options = Options {
            requests: 500,
            seed,
            ..Options::default()
        };
        let summary = run(node.address, options).await.unwrap();
        (summary.connections, summary.requests, summary.responses)
    };
    assert_eq!(summary(1).await, summary(1).await);
    assert_ne!(summary(1).await, summary(2).await);
}

#[tokio::test]
async fn missing_responses_are_a_fault() {
    let summary = faults_of("").await;
    let faults: Vec<_> = summary.faults.into_keys().map(|fault| fault.0).collect();
    assert_eq!(faults, [FaultKind::LostResponse]);
}

#[tokio::test]
async fn the_same_response_to_all_is_a_fault() {
    let response = "HTTP/1.1 200 OK\r\nx-id: 1\r\ncontent-length: 0\r\n\r\n";
    let summary = faults_of(response).await;
    let faults: Vec<_> = summary.faults.keys().map(|fault| fault.0).collect();
    assert!(faults.contains(&FaultKind::WrongData), "{faults:?}");
    let failure = &summary.failures[0];
    assert!(
        failure.to_string().contains("not the id of the request"),
        "{failure}"
    );
}
