use std::net::SocketAddr;

use awc::Client;
use awc::http::StatusCode;
use clap::Parser;
use service_greeter::{App, Cli};
use testing::http::Wire;
use testing::within_limit;
use tokio::net::TcpStream;

use crate::started::{Started, listed};

#[actix_web::test]
async fn it_is_listed_with_its_real_port_and_its_tags() {
    let greeter = Started::new(&["--tag", "version=v1", "--tag", "weight=5,version=v2"]);
    let nodes = listed(&greeter.registry, 1).await;
    assert_eq!(nodes[0].address, greeter.address);
    assert_eq!(nodes[0].tags.to_string(), "version=v2,weight=5");
    assert_ne!(greeter.address.port(), 0);
}

#[actix_web::test]
async fn others_are_told_the_advertised_address() {
    for (flags, ip) in [
        (["--advertise", "127.0.0.9:0"], "127.0.0.9"),
        (["--advertise", "localhost:0"], "127.0.0.1"),
        // Nobody can connect to 0.0.0.0: the way to the registry tells.
        (["--listen", "0.0.0.0:0"], "127.0.0.1"),
    ] {
        let mut flags = flags.to_vec();
        flags.extend(["--registry", "memory:"]);
        let greeter = Started::new(&flags);
        let nodes = listed(&greeter.registry, 1).await;
        assert_eq!(nodes[0].address.ip().to_string(), ip);
        assert_eq!(nodes[0].address.port(), greeter.address.port());
        let url = format!("http://127.0.0.1:{}/greet/Ada", greeter.address.port());
        let body = Client::new()
            .get(url)
            .send()
            .await
            .unwrap()
            .body()
            .await
            .unwrap();
        let instance = format!(r#""instance":"{}""#, nodes[0].address);
        assert!(
            String::from_utf8_lossy(&body).contains(&instance),
            "{body:?}"
        );
    }
}

#[actix_web::test]
async fn who_leaves_goes_on_answering_but_asks_to_connect_elsewhere() {
    let greeter = Started::new(&["--drain", "10m"]);
    let (registry, address) = (greeter.registry.clone(), greeter.address);
    let mut wire = Wire::connect(address).await;
    wire.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(wire.read_to("serving\"}").await.starts_with("HTTP/1.1 200"));
    listed(&registry, 1).await;
    let ended = greeter.stop();
    listed(&registry, 0).await;

    wire.send("GET /greet/Ada HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let last = wire.read_to_close().await;
    assert!(
        last.starts_with("HTTP/1.1 200") && last.contains("connection: close"),
        "{last}"
    );

    let url = format!("http://{address}/health");
    let health = Client::new().get(url).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.headers().get("connection").unwrap(), "close");
    assert!(!ended.is_finished());
    ended.abort();
}

#[actix_web::test]
async fn a_request_in_flight_is_finished_and_then_the_port_is_closed() {
    let greeter = Started::new(&["--drain", "0s"]);
    let address = greeter.address;
    let mut wire = Wire::connect(address).await;
    wire.send("GET /stream?n=2&ms=700 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    wire.read_to("chunk 1").await;
    let ended = greeter.stop();
    assert!(
        wire.read_to_close()
            .await
            .ends_with("chunk 2 of 2\n\r\n0\r\n\r\n")
    );
    within_limit("the end", ended).await.unwrap().unwrap();
    TcpStream::connect(address).await.unwrap_err();
}

#[actix_web::test]
async fn neither_idle_connections_nor_clients_that_have_gone_hold_up_the_end() {
    let greeter = Started::new(&["--drain", "0s"]);
    let (mut idle, mut gone) = (
        Wire::connect(greeter.address).await,
        Wire::connect(greeter.address).await,
    );
    idle.send("GET /status/204 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    idle.read_to("\r\n\r\n").await;
    gone.send("GET /stream?n=2&ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    gone.read_to("chunk 1").await;
    drop(gone);
    within_limit("the end", greeter.stop())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(idle.read_to_close().await, "");
}

#[actix_web::test]
async fn who_is_killed_closes_the_port_and_is_not_kept_in_the_registry() {
    let greeter = Started::new(&[]);
    let (registry, address) = (greeter.registry.clone(), greeter.address);
    listed(&registry, 1).await;
    greeter.kill().await;
    listed(&registry, 0).await;
    TcpStream::connect(address).await.unwrap_err();
}

#[actix_web::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();
    let flags = [
        "service-greeter",
        "--registry",
        "memory:",
        "--listen",
        &address.to_string(),
    ];
    let error = App::start(Cli::parse_from(flags).config).err().unwrap();
    assert!(format!("{error:#}").starts_with(&format!("cannot listen on {address}: Address")));
}
