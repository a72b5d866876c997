use std::net::SocketAddr;
use std::process::Stdio;

use testing::program::{Program, Running};

/// The greeter with environment variables.
pub(crate) fn greeter<'a>(variables: &'a [(&'a str, &'a str)]) -> Program<'a> {
    let path = env!("CARGO_BIN_EXE_service-greeter");
    Program { path, variables }
}

/// Runs the program to its end. Returns its exit code and what it wrote to standard error.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String) {
    greeter(&[]).run(arguments).await
}

/// Starts it with environment variables.
pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    greeter(variables).start(arguments, Stdio::inherit())
}

/// Waits until it listens. The port is its own; the address may be that of all interfaces.
pub(crate) async fn listens(program: &mut Running) -> SocketAddr {
    let line = program.says("listening address=").await;
    line.rsplit('=').next().unwrap().parse().unwrap()
}
