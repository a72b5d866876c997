use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::Stdio;

use serde_json::Value;
use testing::program::{self, Running};

fn gateway<'a>(variables: &'a [(&'a str, &'a str)]) -> program::Program<'a> {
    let path = env!("CARGO_BIN_EXE_service-gateway");
    program::Program { path, variables }
}

/// Runs the program to its end. Returns its exit code and what it wrote to standard error.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String) {
    run_in(&[], arguments).await
}

/// The same with environment variables.
pub(crate) async fn run_in(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    gateway(variables).run(arguments).await
}

/// Returns its help text, with environment variables.
pub(crate) async fn help(variables: &[(&str, &str)]) -> String {
    gateway(variables).help().await
}

/// The program, running.
pub(crate) struct Program {
    running: Running,
    /// The address where it takes requests.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// Starts one that listens on any free ports and does not drain, unless the flags say otherwise.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_with(&[], flags, Stdio::piped()).await
    }

    /// The same with environment variables, and with this standard output.
    pub(crate) async fn start_with(
        variables: &[(&str, &str)],
        flags: &[&str],
        output: Stdio,
    ) -> Self {
        let mut arguments = vec!["--registry", "memory:", "--workers", "1"];
        for (flag, value) in [
            ("--listen", "127.0.0.1:0"),
            ("--admin-listen", "127.0.0.1:0"),
            ("--drain", "0s"),
        ] {
            if !flags.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(flags);
        let mut running = gateway(variables).start(&arguments, output);
        let line = running.says("listening").await;
        let record = serde_json::from_str::<Value>(&line);
        let value = |key: &str| {
            let mut words = line.split(' ');
            let value = match &record {
                Ok(record) => record[key].as_str(),
                Err(_) => words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')),
            };
            value.unwrap().parse().unwrap()
        };
        let (address, admin) = (value("address"), value("admin"));
        Self {
            running,
            address,
            admin,
        }
    }
}

impl Deref for Program {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}
