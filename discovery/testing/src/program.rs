//! A program of this workspace whose log a test reads line by line.

use std::process::{ExitStatus, Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::within_limit;

/// The path of a program, given by `env!("CARGO_BIN_EXE_…")`, and its environment variables. It
/// inherits none.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// The path.
    pub path: &'a str,
    /// Environment variables.
    pub variables: &'a [(&'a str, &'a str)],
}

impl Program<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path);
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end. Returns its exit code and what it wrote to standard error.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output();
        let output = within_limit("the program's end", output).await;
        let Output { status, stderr, .. } = output.unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// Returns its help text.
    pub async fn help(&self) -> String {
        let output = self.command(&["--help"]).output();
        let output = within_limit("help", output).await;
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Starts it, with this standard output.
    pub fn start(&self, arguments: &[&str], output: Stdio) -> Running {
        let mut child = self.command(arguments).stdout(output).spawn().unwrap();
        let output = child.stdout.take();
        Running {
            log: BufReader::new(child.stderr.take().unwrap()).lines(),
            output: output.map(|output| BufReader::new(output).lines()),
            child,
        }
    }
}

/// A program that runs. It is killed on drop.
pub struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    output: Option<Lines<BufReader<ChildStdout>>>,
}

impl Running {
    /// Waits for the log line that contains `text`.
    pub async fn says(&mut self, text: &str) -> String {
        within_limit(text, async {
            loop {
                let line = self.log.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("no line has {text:?}"));
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    /// Returns all further lines of the log, up to its end.
    pub async fn last_words(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = within_limit("a line", self.log.next_line()).await.unwrap() {
            lines.push(line);
        }
        lines
    }

    /// Returns the next line of standard output.
    pub async fn writes(&mut self) -> String {
        self.next_written().await.unwrap()
    }

    /// Returns the next line of standard output, `None` after the last one.
    pub async fn next_written(&mut self) -> Option<String> {
        let line = self.output.as_mut().unwrap().next_line();
        within_limit("a line of output", line).await.unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id().unwrap());
        let sent = Command::new("sh").args(["-c", &kill]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub async fn ends(&mut self) -> ExitStatus {
        let ended = within_limit("the program's end", self.child.wait()).await;
        ended.unwrap()
    }
}
