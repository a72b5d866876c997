//! The program: its flags, its signals, its exit codes, its log.

use std::net::TcpListener;

use crate::support::{Program, Wire, help, run, run_in, until};

#[actix_web::test]
async fn a_bad_flag_is_refused_in_one_line_that_says_what_is_allowed() {
    for (flag, value, allowed) in [
        ("--listen", "localhost:80", "such as 0.0.0.0:8080"),
        ("--listen", "8080", "such as 0.0.0.0:8080"),
        ("--admin-listen", "127.0.0.1", "such as 0.0.0.0:8080"),
        ("--registry", "nacos://c", "etcd://host"),
        ("--route", "greeter", "PREFIX=SERVICE"),
        ("--route", "greeter=greeter", "begin with a slash"),
        ("--route", "/a=", "1 to 63 letters"),
        ("--route", "/a=b.c", "1 to 63 letters"),
        ("--route", "/a=b?c", "key=value"),
        ("--route", "/../a=b", "whole segments"),
        ("--route", "/a%20=b", "letters, digits"),
        ("--allow", "10.0.0.0/33", "such as 10.0.0.0/8"),
        ("--allow", "localhost", "such as 10.0.0.0/8"),
        ("--trust", "10.0.0.0/33", "such as 10.0.0.0/8"),
        ("--trust", "any", "such as 10.0.0.0/8"),
        ("--balancer", "fastest", "round-robin, random"),
        ("--admin-host", "a:80", "such as gateway.example.com"),
        ("--admin-host", "", "such as gateway.example.com"),
        ("--timeout", "10", "from 1ms to 1day"),
        ("--timeout", "0s", "from 1ms to 1day"),
        ("--connect-timeout", "2days", "from 1ms to 1day"),
        ("--idle-timeout", "-1s", "from 1ms to 1day"),
        ("--head-timeout", "0s", "from 1ms to 1day"),
        ("--client-timeout", "10", "from 1ms to 1day"),
        ("--keep-alive", "-1s", "from 1ms to 1day"),
        ("--max-body", "10MB", "such as 1048576 or 64MiB"),
        ("--max-body", "99999999999GiB", "such as 1048576 or 64MiB"),
        ("--max-connections", "0", "1 to 1000000"),
        ("--max-in-flight", "many", "1 to 1000000"),
        ("--shutdown-timeout", "soon", "from 1ms to 1day"),
        ("--drain", "11m", "from 0s to 10m"),
        ("--held-bodies", "10MB", "such as 1048576 or 64MiB"),
        ("--attempts", "0", "1 to 100"),
        ("--attempts", "many", "1 to 100"),
        ("--workers", "0", "1 to 512"),
        ("--workers", "513", "1 to 512"),
        ("--log-format", "xml", "expected text or json"),
        ("--colour", "red", "--help"),
    ] {
        let (code, text) = run(&[&format!("{flag}={value}")]).await;
        assert_eq!(code, 2, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("error: ") && text.contains(flag), "{text}");
        assert!(text.contains(allowed), "{text}");
    }
}

#[actix_web::test]
async fn a_bad_environment_variable_is_refused_like_the_flag() {
    for variable in [
        "LISTEN",
        "ADMIN_LISTEN",
        "ADMIN_HOST",
        "REGISTRY",
        "ROUTE",
        "ALLOW",
        "TRUST",
        "BALANCER",
        "TIMEOUT",
        "CONNECT_TIMEOUT",
        "HEAD_TIMEOUT",
        "CLIENT_TIMEOUT",
        "KEEP_ALIVE",
        "MAX_BODY",
        "MAX_CONNECTIONS",
        "MAX_IN_FLIGHT",
        "IDLE_TIMEOUT",
        "SHUTDOWN_TIMEOUT",
        "DRAIN",
        "HELD_BODIES",
        "REUSE_PORT",
        "ATTEMPTS",
        "WORKERS",
        "ACCESS_LOG",
        "LOG_FORMAT",
    ] {
        let (code, text) = run_in(&[(variable, "?")], &[]).await;
        assert_eq!((code, text.lines().count()), (2, 1), "{variable}: {text}");
        let flag = variable.to_lowercase().replace('_', "-");
        assert!(text.contains(&format!("--{flag}")), "{variable}: {text}");
    }
}

#[actix_web::test]
async fn the_password_of_a_registry_is_never_told() {
    let url = "etcd://root:s3cret@127.0.0.1:1";
    for flags in [
        &["--registry", "etcd://root:s3cret@127.0.0.1:b"][..],
        &["--registri", url],
        &["--registry=memory:", url],
        &[url],
        &["--registry", "etcd://root:7/s3cret@127.0.0.1"],
        &["--registry", "etcd://root:s3cret"],
        &["--registry", "root:s3cret"],
        &["--listen", url],
        &["--route", url],
        &["--allow", "etcd:/root:s3cret@a"],
        &["--balancer", "root:s3cret@a"],
    ] {
        let (code, text) = run(flags).await;
        assert!(code == 2 && !text.contains("s3cret"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let help = help(&[("REGISTRY", url)]).await;
    assert!(
        help.contains("[env: REGISTRY]") && !help.contains("s3cret"),
        "{help}"
    );
}

#[actix_web::test]
async fn two_routes_with_one_prefix_are_refused() {
    let (code, text) = run(&["--route", "/a=one", "--route", "/a/=two"]).await;
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    assert!(text.contains("--route") && text.contains("/a"), "{text}");
}

#[actix_web::test]
async fn a_port_in_use_ends_the_start_with_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [
        ("--listen", "--admin-listen"),
        ("--admin-listen", "--listen"),
    ] {
        let flags = [
            "--registry",
            "memory:",
            flag,
            &address,
            other,
            "127.0.0.1:0",
        ];
        let (code, text) = run(&flags).await;
        assert_eq!(code, 1);
        let line =
            format!("error: cannot listen on {address}: Address already in use (os error 98)\n");
        assert_eq!(text, line);
    }
}

/// A connection with a request whose body the gateway has begun to receive.
async fn request_in_flight(program: &Program) -> Wire {
    let mut client = Wire::connect(program.address).await;
    client
        .send("PUT /greeter HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\npart")
        .await;
    until("the request", async || {
        let mut admin = Wire::connect(program.admin).await;
        let page = admin.get("/metrics").await;
        page.text().contains("gateway_requests_in_flight 1\n")
    })
    .await;
    client
}

#[actix_web::test]
async fn a_signal_lets_the_requests_in_flight_finish_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let mut program = Program::start(&[]).await;
        let mut client = request_in_flight(&program).await;
        program.signal(signal).await;
        program
            .says(&format!("draining signal=SIG{signal} time=0ns"))
            .await;
        program.says("finishing requests in flight").await;
        client.send("part").await;
        client.answer("PUT").await.is_refused(503, "no_instance", 0);
        client.ends().await;
        program.says("stopped").await;
        assert_eq!(program.ends().await.code(), Some(0));
    }
}

#[actix_web::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("TERM", "INT", 130),
        ("INT", "INT", 130),
        ("HUP", "HUP", 129),
        ("HUP", "QUIT", 131),
    ] {
        let mut program = Program::start(&["--timeout", "1h", "--shutdown-timeout", "1h"]).await;
        let _client = request_in_flight(&program).await;
        program.signal(first).await;
        program.says("draining").await;
        program.signal(second).await;
        assert_eq!(program.ends().await.code(), Some(code));
    }
}

#[actix_web::test]
async fn healthcheck_is_0_while_it_serves_or_drains_and_1_when_it_does_not() {
    let flags = ["--timeout", "1h", "--shutdown-timeout", "1h"];
    let mut program = Program::start(&flags).await;
    let admin = program.admin.to_string();
    let check = ["healthcheck", "--admin-listen", &admin];
    assert_eq!(run(&check).await, (0, String::new()));
    let anywhere = admin.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(
        run(&["healthcheck", "--admin-listen", &anywhere]).await.0,
        0
    );

    let _client = request_in_flight(&program).await;
    program.signal("TERM").await;
    program.says("finishing").await;
    assert_eq!(run(&check).await, (0, String::new()));

    program.signal("TERM").await;
    program.ends().await;
    let (code, line) = run(&check).await;
    assert_eq!((code, line.lines().count()), (1, 1));
    assert!(
        line.starts_with(&format!("error: no answer from {admin}: ")),
        "{line}"
    );
}

#[actix_web::test]
async fn healthcheck_needs_a_real_port_and_does_not_wait_for_ever() {
    let (code, line) = run(&["healthcheck", "--admin-listen", "127.0.0.1:0"]).await;
    let expected = "error: cannot ask an instance at port 0: set --admin-listen to its real port\n";
    assert_eq!((code, line.as_str()), (1, expected));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, line) = run(&["healthcheck", "--admin-listen", &address]).await;
    assert_eq!(
        (code, line),
        (1, format!("error: no answer from {address} within 2s\n"))
    );
}

#[actix_web::test]
async fn its_log_has_a_line_for_each_change_and_none_for_bad_clients() {
    let mut program = Program::start(&["--route", "/a=b?version=v1"]).await;
    program
        .says("initial snapshot received service=b nodes=0")
        .await;
    for nonsense in [
        "GET / HTTP/1.1\r\n\r\n",
        "\0\0\0\r\n\r\n",
        "GET http://x HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = Wire::connect(program.address).await;
        client.send(nonsense).await;
        client.answer("GET").await;
    }
    let mut client = Wire::connect(program.address).await;
    client.post("/greeter", "body").await;
    drop(client);
    program.signal("TERM").await;
    let rest = program.last_words().await;
    assert_eq!(rest.len(), 3, "{rest:#?}");
    for (line, text) in rest.iter().zip(["draining", "finishing", "stopped"]) {
        assert!(line.contains("INFO") && line.contains(text), "{line}");
    }
}

#[actix_web::test]
async fn every_flag_has_a_line_of_help() {
    let help = help(&[]).await;
    let words: Vec<_> = help.split_whitespace().collect();
    let unwrapped = words.join(" ");
    for flag in [
        "--listen",
        "--admin-listen",
        "--admin-host",
        "--registry",
        "--route",
        "--allow",
        "--balancer",
        "--timeout",
        "--connect-timeout",
        "--head-timeout",
        "--client-timeout",
        "--keep-alive",
        "--max-body",
        "--max-connections",
        "--max-in-flight",
        "--idle-timeout",
        "--attempts",
        "--shutdown-timeout",
        "--drain",
        "--held-bodies",
        "--workers",
        "--log-format",
    ] {
        let line = help
            .lines()
            .find(|line| line.trim_start().starts_with(flag));
        assert!(
            line.is_some_and(|line| line.contains('<')),
            "{flag} in {help}"
        );
        let variable = flag
            .trim_start_matches('-')
            .to_uppercase()
            .replace('-', "_");
        assert!(
            unwrapped.contains(&format!("[env: {variable}")),
            "{variable}"
        );
    }
}
