use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::within_limit;

/// The program, with nothing of this process's environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service-gateway"));
    command
        .args(arguments)
        .env_clear()
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the program to its end: its exit code, and what it wrote to stderr.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String) {
    run_in(&[], arguments).await
}

/// The same with environment variables.
pub(crate) async fn run_in(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let mut command = command(arguments);
    command.envs(variables.iter().copied());
    let output = within_limit("the program's end", command.output()).await;
    let Output { status, stderr, .. } = output.unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// What it says of itself, with environment variables.
pub(crate) async fn help(variables: &[(&str, &str)]) -> String {
    let mut command = command(&["--help"]);
    command.envs(variables.iter().copied());
    let output = within_limit("help", command.output()).await;
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The program, running.
pub(crate) struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    output: Option<Lines<BufReader<ChildStdout>>>,
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// One that listens on any free ports and does not drain, unless the flags say otherwise.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_with(&[], flags, Stdio::piped()).await
    }

    /// The same with environment variables, and with standard output to this place.
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
        let mut command = command(&arguments);
        let mut child = command
            .envs(variables.iter().copied())
            .stdout(output)
            .spawn()
            .unwrap();
        let output = child
            .stdout
            .take()
            .map(|output| BufReader::new(output).lines());
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = find(&mut log, "listening").await;
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
            child,
            log,
            output,
            address,
            admin,
        }
    }

    /// Waits for the line of the log in which `text` appears.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        find(&mut self.log, text).await
    }

    /// The next line on its standard output.
    pub(crate) async fn writes(&mut self) -> String {
        self.next_written().await.unwrap()
    }

    /// The same, `None` after the last one.
    pub(crate) async fn next_written(&mut self) -> Option<String> {
        let line = within_limit(
            "a line of output",
            self.output.as_mut().unwrap().next_line(),
        )
        .await;
        line.unwrap()
    }

    /// Everything else it says until its end.
    pub(crate) async fn last_words(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = within_limit("a line", self.log.next_line()).await.unwrap() {
            lines.push(line);
        }
        lines
    }

    pub(crate) async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id().unwrap());
        let sent = Command::new("sh").args(["-c", &kill]).status().await;
        assert!(sent.unwrap().success());
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let ended = within_limit("the program's end", self.child.wait()).await;
        ended.unwrap()
    }
}

async fn find(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    within_limit(text, async {
        loop {
            let line = log.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it never said {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    })
    .await
}
