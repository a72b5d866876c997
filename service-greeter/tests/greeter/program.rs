use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::started::within_limit;

/// The program, with nothing of this process's environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service-greeter"));
    command
        .args(arguments)
        .env_clear()
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the program to its end: its exit code, and what it wrote to stderr.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } =
        within_limit("the program's end", command(arguments).output())
            .await
            .unwrap();
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
}

impl Program {
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(arguments)
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    /// Waits for the line of the log in which `text` appears.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        within_limit(text, async {
            loop {
                let line = self.log.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it never said {text:?}"));
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    /// Waits until it listens. The port is its own; the address may be that of all interfaces.
    pub(crate) async fn listens(&mut self) -> SocketAddr {
        let line = self.says("listening address=").await;
        line.rsplit('=').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id().unwrap());
        let sent = Command::new("sh")
            .args(["-c", &kill])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        within_limit("the program's end", self.child.wait())
            .await
            .unwrap()
    }
}
