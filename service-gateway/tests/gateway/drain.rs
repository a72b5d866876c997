//! The end of a gateway: its drain period, its successor, the signals that start it.

use crate::support::{Gateway, Program, Upstream, Wire, run, until};

/// Whether the admin port's page is of this status.
async fn has_status(program: &Program, path: &str, status: u16) -> bool {
    let answer = Wire::connect(program.admin).await.get(path).await;
    answer.status() == status
}

#[actix_web::test]
async fn a_draining_gateway_serves_but_closes_each_connection() {
    let mut program = Program::start(&["--drain", "10m"]).await;
    let mut before = Wire::connect(program.address).await;
    assert!(!before.get("/").await.closes());
    until("readiness", async || {
        has_status(&program, "/ready", 200).await
    })
    .await;
    program.signal("TERM").await;
    program.says("draining signal=SIGTERM time=600s").await;

    let after = Wire::connect(program.address).await;
    for mut client in [before, after] {
        let answer = client.get("/").await;
        answer.is_refused(404, "no_route", 0);
        assert!(answer.closes());
        client.ends().await;
    }
    assert!(has_status(&program, "/ready", 503).await);
    assert!(has_status(&program, "/health", 200).await);
    program.signal("TERM").await;
    assert_eq!(program.ends().await.code(), Some(143));
}

#[actix_web::test]
async fn an_idle_connection_does_not_delay_the_end() {
    let upstream = Upstream::saying("hi").await;
    let mut gateway = Gateway::with("--shutdown-timeout 1h", &[&upstream]).await;
    let mut idle = gateway.connect().await;
    idle.get("/").await.is_ok("hi");
    gateway.stop();
    idle.ends().await;
    drop(idle);
    gateway.ended().await;
}

#[actix_web::test]
async fn a_successor_can_listen_on_shared_ports_only() {
    let mut shared = Program::start(&["--reuse-port"]).await;
    let (address, admin) = (shared.address.to_string(), shared.admin.to_string());
    let flags = ["--listen", &address, "--admin-listen", &admin];
    let (code, line) = run(&[&flags[..], &["--registry", "memory:"]].concat()).await;
    assert!(
        code == 1 && line.contains("Address already in use"),
        "{line}"
    );

    let successor = Program::start(&[&flags[..], &["--reuse-port"]].concat()).await;
    assert_eq!(successor.address, shared.address);
    shared.signal("TERM").await;
    assert_eq!(shared.ends().await.code(), Some(0));
    let mut client = Wire::connect(successor.address).await;
    client.get("/").await.is_refused(404, "no_route", 0);
    assert!(has_status(&successor, "/health", 200).await);
}

#[actix_web::test]
async fn signals_that_mean_nothing_are_ignored() {
    let mut program = Program::start(&[]).await;
    for signal in ["USR1", "USR2", "ALRM"] {
        program.signal(signal).await;
        program
            .says(&format!("signal ignored signal=SIG{signal}"))
            .await;
    }
    assert!(has_status(&program, "/health", 200).await);
    program.signal("HUP").await;
    assert_eq!(program.ends().await.code(), Some(0));
}
