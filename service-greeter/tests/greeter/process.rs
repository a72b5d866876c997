use std::time::{Duration, Instant};

use awc::Client;
use testing::http::Wire;
use testing::program::Running;
use testing::within_limit;
use tokio::net::TcpSocket;

use crate::program::{greeter, listens, run, start};

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--registry", "memory:"];

#[actix_web::test]
async fn a_bad_flag_is_refused_in_one_line_that_says_what_is_allowed() {
    let many_tags: Vec<_> = (0..33).map(|n| format!("{n}=x")).collect();
    for (flag, value, allowed) in [
        ("--listen", "localhost:80", "such as 0.0.0.0:8080"),
        ("--advertise", "greeter", "HOST:PORT"),
        ("--advertise", "0.0.0.0:80", "nobody can connect"),
        ("--advertise", "10.0.0.256:80", "HOST:PORT"),
        ("--registry", "nacos://c", "etcd://host"),
        ("--service", "a.b", "1 to 63 letters"),
        ("--tag", "version", "key=value"),
        ("--tag", "weight=0", "1 to 1000"),
        ("--tag", "weight=1001", "1 to 1000"),
        ("--tag", &many_tags.join(","), "more than 32 tags"),
        ("--ttl", "1s", "2s to 1h"),
        ("--ttl", "61m", "2s to 1h"),
        ("--ttl", "10", "such as 10s"),
        ("--drain", "11m", "0s to 10m"),
        ("--workers", "0", "1 to 512"),
        ("--log-format", "xml", "expected text or json"),
        ("--colour", "red", "--help"),
    ] {
        let (code, text) = run(&[flag, value]).await;
        assert_eq!(code, 2, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("error: ") && text.contains(flag), "{text}");
        assert!(text.contains(allowed), "{text}");
    }
}

#[actix_web::test]
async fn the_password_of_a_registry_is_never_told() {
    let url = "etcd://root:s3cret@127.0.0.1:1"; // where nobody listens
    for flags in [
        &["--registry", "etcd://root:s3cret@a:b"][..],
        &["--registry", "etcd://root:7/s3cret@a"],
        &["--registry", "root:s3cret"],
        &["--advertise", "root:s3cret@a"],
        &["--service", url],
        &[url],
    ] {
        let (code, text) = run(flags).await;
        assert!(code == 2 && !text.contains("s3cret"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let help = greeter(&[("REGISTRY", url)]).help().await;
    assert!(
        help.contains("[env: REGISTRY]") && !help.contains("s3cret"),
        "{help}"
    );
    let mut program = start(&FREE[..2], &[("REGISTRY", url), ("RUST_LOG", "debug")]);
    let warning = program.says("not registered").await;
    assert!(
        warning.contains("refused") && !warning.contains("s3cret"),
        "{warning}"
    );
}

#[actix_web::test]
async fn a_port_in_use_ends_the_start_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = run(&["--registry", "memory:", "--listen", &address]).await;
    assert_eq!(code, 1);
    assert_eq!(
        text,
        format!("error: cannot listen on {address}: Address already in use (os error 98)\n")
    );
}

#[actix_web::test]
async fn every_flag_is_an_environment_variable() {
    let environment = [
        ("LISTEN", "127.0.0.1:0"),
        ("ADVERTISE", "127.0.0.9:1234"),
        ("REGISTRY", "memory:"),
        ("SERVICE", "hello"),
        ("TAG", "version=v7,region=cn"),
        ("TTL", "1h"),
        ("DRAIN", "123s"),
        ("WORKERS", "1"),
        ("LOG_FORMAT", "text"),
    ];
    let mut program = start(&[], &environment);
    program
        .says("registered service=hello address=127.0.0.9:1234 tags=region=cn,version=v7")
        .await;
    program.signal("TERM").await;
    program.says("draining signal=SIGTERM time=123s").await;
}

#[actix_web::test]
async fn sigterm_lets_requests_in_flight_finish_and_the_exit_code_is_0() {
    let mut program = start(&FREE, &[("DRAIN", "100ms")]);
    let mut wire = Wire::connect(listens(&mut program).await).await;
    wire.send("GET /stream?n=2&ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    wire.read_to("chunk 1").await;
    let asked = Instant::now();
    program.signal("TERM").await;
    assert!(
        wire.read_to_close()
            .await
            .ends_with("chunk 2 of 2\n\r\n0\r\n\r\n")
    );
    program.says("stopped").await;
    assert_eq!(program.ends().await.code(), Some(0));
    // The request, and the second in which the server looks whether there are any left.
    assert!(
        asked.elapsed() < Duration::from_millis(1500 + 1000 + 1000),
        "{:?}",
        asked.elapsed()
    );
}

#[actix_web::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("TERM", "INT", 130),
        ("INT", "INT", 130),
    ] {
        let mut program = start(&FREE, &[("DRAIN", "10m")]);
        listens(&mut program).await;
        program.signal(first).await;
        program.says(&format!("draining signal=SIG{first}")).await;
        program.signal(second).await;
        assert_eq!(program.ends().await.code(), Some(code));
    }
}

#[actix_web::test]
async fn healthcheck_is_0_while_the_instance_serves_and_1_when_it_does_not() {
    let mut program = start(
        &["--listen", "0.0.0.0:0", "--registry", "memory:"],
        &[("DRAIN", "10m")],
    );
    let address = listens(&mut program).await.to_string();
    let check = ["healthcheck", "--listen", &address];
    assert_eq!(run(&check).await, (0, String::new()));

    program.signal("TERM").await;
    program.says("draining").await;
    let loopback = address.replace("0.0.0.0", "127.0.0.1");
    let line = format!("error: {loopback} answers 503 Service Unavailable\n");
    assert_eq!(run(&check).await, (1, line));

    program.signal("TERM").await;
    program.ends().await;
    let (code, line) = run(&check).await;
    assert_eq!((code, line.lines().count()), (1, 1));
    assert!(
        line.starts_with(&format!("error: no answer from {loopback}: ")),
        "{line}"
    );
}

#[actix_web::test]
async fn healthcheck_needs_a_real_port_and_does_not_wait_for_ever() {
    let (code, line) = run(&["healthcheck"]).await;
    assert_eq!(code, 1);
    assert_eq!(
        line,
        "error: cannot ask an instance at port 0: set --listen to its real port\n"
    );

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, line) = run(&["healthcheck", "--listen", &address]).await;
    assert_eq!(
        (code, line),
        (1, format!("error: no answer from {address} within 2s\n"))
    );
}

#[actix_web::test]
async fn without_its_registry_it_serves_and_says_what_is_missing() {
    // Bound, but nobody listens: the port is refused and stays ours.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = refusing.local_addr().unwrap();
    for (registry, complaint) in [
        (format!("etcd://{closed}"), "not registered, retrying"),
        // A name that cannot be looked up yet, as when containers start together.
        (
            "etcd://etcd.invalid".into(),
            "own address not known, serving unregistered until it is",
        ),
    ] {
        let flags = [
            "--listen",
            "0.0.0.0:0",
            "--drain",
            "0s",
            "--registry",
            &registry,
        ];
        let mut program = start(&flags, &[]);
        let port = listens(&mut program).await.port();
        program.says(complaint).await;
        let url = format!("http://127.0.0.1:{port}/greet/Ada");
        let response = within_limit("a greeting", Client::new().get(url).send())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        program.signal("TERM").await;
        assert_eq!(program.ends().await.code(), Some(0));
    }
}

/// A greeter without its registry whose log nothing reads, after more requests than its pipe and its
/// queue take lines.
async fn unread(closed: &TcpSocket) -> Running {
    let url = format!("etcd://{}", closed.local_addr().unwrap());
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--drain",
        "0s",
        "--registry",
        &url,
    ];
    let mut program = start(&flags, &[("RUST_LOG", "debug")]);
    let address = listens(&mut program).await;
    let mut wire = Wire::connect(address).await;
    for _ in 0..1300 {
        let target = format!("/nope/{}", "x".repeat(4000));
        wire.send(&format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        wire.read_to("\"status\":404").await;
    }
    let url = format!("http://{address}/metrics");
    let mut metrics = within_limit("metrics", Client::new().get(url).send())
        .await
        .unwrap();
    let text = String::from_utf8(metrics.body().await.unwrap().to_vec()).unwrap();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("greeter_log_lines_dropped_total "));
    assert!(value.unwrap().parse::<u64>().unwrap() > 0, "{text}");
    program
}

fn refusing() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap(); // bound, and nothing listens
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

#[actix_web::test]
async fn an_unread_log_delays_neither_requests_nor_the_end() {
    let closed = refusing();
    let mut program = unread(&closed).await;
    program.signal("TERM").await;
    assert_eq!(program.ends().await.code(), Some(0));
}

#[actix_web::test]
async fn a_log_that_is_read_again_reports_dropped_lines() {
    let closed = refusing();
    let mut program = unread(&closed).await;
    let line = program.says("output is written again").await;
    assert!(line.contains("output=log lines_dropped="), "{line}");
}

#[actix_web::test]
async fn a_json_log_is_one_object_for_each_line() {
    let tag = "version=\u{202e}v1"; // which is no control character, and turns a line round
    let flags = [&FREE[..], &["--log-format", "json", "--tag", tag]].concat();
    let mut program = start(&flags, &[]);
    let line = program.says("\"registered\"").await;
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["tags"], tag);
    assert_eq!(record["level"], "INFO");
    assert!(!line.contains('\u{202e}'), "{line:?}");
}
