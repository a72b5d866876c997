//! A service of this workspace as a process, whose log is a file.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{sleep, timeout};

use crate::try_until;

/// A service that runs. It is killed on drop.
pub struct Process {
    /// The address where it listens.
    pub address: SocketAddr,
    log: PathBuf,
    child: Child,
    /// Its standard error, if that is a pipe.
    unread: Option<Lines<BufReader<Receiver>>>,
}

impl Process {
    /// Starts a program of this workspace, and waits until it listens.
    pub async fn start(
        log: &Path,
        program: &str,
        flags: &[&str],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let mut command = command(program, flags, environment)?;
        command.stdout(output.try_clone()?).stderr(output);
        Self::spawned(log, program, command).await
    }

    /// Starts a program whose standard output is not its log.
    pub async fn start_writing(
        log: &Path,
        output: File,
        program: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = command(program, flags, &[])?;
        command.stdout(output).stderr(File::create(log)?);
        Self::spawned(log, program, command).await
    }

    /// Starts a program whose standard error is a pipe. The pipe is read up to the line with its address,
    /// and no further.
    pub async fn start_unread(log: &Path, program: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = command(program, flags, &[])?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("a pipe")?;
        let receiver = Receiver::from_owned_fd(stderr.into())?;
        let mut process = Self {
            address: ([0, 0, 0, 0], 0).into(),
            log: log.to_owned(),
            child,
            unread: Some(BufReader::new(receiver).lines()),
        };
        let line = process.read_on("listening address=").await?;
        fs::write(log, line)?;
        let address = process.listening("address").context("an address")?;
        process.address = address.parse()?;
        Ok(process)
    }

    /// Reads on in the pipe, up to the line with these words.
    pub async fn read_on(&mut self, words: &str) -> anyhow::Result<String> {
        let lines = self.unread.as_mut().context("a pipe that is not read")?;
        let found = async {
            loop {
                let line = lines.next_line().await?;
                let line = line.with_context(|| format!("no line has {words:?}"))?;
                if line.contains(words) {
                    return anyhow::Ok(line);
                }
            }
        };
        timeout(Duration::from_secs(15), found)
            .await
            .with_context(|| format!("not within 15 s: {words:?}"))?
    }

    /// Starts a program with a limit of ulimit(1), such as `-Sn 1024`.
    pub async fn limited(
        log: &Path,
        program: &str,
        flags: &[&str],
        ulimit: &str,
    ) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let mut command = limited(program, flags, ulimit)?;
        command.env("RUST_LOG", "info,actix_server=warn");
        command.stdout(output.try_clone()?).stderr(output);
        Self::spawned(log, program, command).await
    }

    /// Spawns a program, and waits until it listens.
    async fn spawned(log: &Path, program: &str, mut command: Command) -> anyhow::Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("starting {program}: cargo build --release makes it"))?;
        let mut process = Self {
            address: ([0, 0, 0, 0], 0).into(),
            log: log.to_owned(),
            child,
            unread: None,
        };
        let says = || async { Ok(process.listening("address").is_some()) };
        let what = format!("{program} listening");
        try_until(&what, Duration::from_secs(15), says).await?;
        let address = process.listening("address").context("an address")?;
        process.address = address.parse()?;
        Ok(process)
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns a value of the log line with its address, which is text or JSON.
    fn listening(&self, key: &str) -> Option<String> {
        let log = fs::read_to_string(&self.log).ok()?;
        let line = log.lines().find(|line| line.contains("listening"))?;
        if let Ok(record) = serde_json::from_str::<Value>(line) {
            return record[key].as_str().map(str::to_owned);
        }
        let mut words = line.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.map(str::to_owned)
    }

    /// Returns the address of its admin port.
    pub fn admin(&self) -> anyhow::Result<String> {
        self.listening("admin").context("the admin port in the log")
    }

    /// Returns its log.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Returns true if its log contains these words.
    pub fn logged(&self, words: &str) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(&self.log)?.contains(words))
    }

    /// Returns the warnings and errors in its log.
    pub fn warnings(&self) -> anyhow::Result<Vec<String>> {
        let log = fs::read_to_string(&self.log)?;
        ensure!(log.contains(" INFO "), "a log with levels");
        let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        Ok(log.lines().filter(is_warning).map(str::to_owned).collect())
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        ensure!(sent.success(), "kill {signal} {id}");
        Ok(())
    }

    /// Sends SIGTERM, waits for its end and returns its exit code.
    pub async fn leave(self) -> anyhow::Result<Option<i32>> {
        self.end_by("-TERM").await
    }

    /// Sends a signal, waits for its end and returns its exit code.
    pub async fn end_by(mut self, signal: &str) -> anyhow::Result<Option<i32>> {
        self.signal(signal)?;
        let deadline = Duration::from_secs(40);
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status.code());
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(deadline, ended).await.context("it does not end")?
    }
}

/// Returns the command of a program of this workspace.
fn command(
    program: &str,
    flags: &[&str],
    environment: &[(String, String)],
) -> anyhow::Result<Command> {
    let mut command = Command::new(path(program)?);
    command
        .args(flags)
        .env("RUST_LOG", "info,actix_server=warn")
        .envs(environment.iter().cloned());
    Ok(command)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the path of a program of this workspace: next to the one that runs, or one directory up,
/// since Cargo puts tests and examples below the programs.
fn path(program: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let mut directories = here.ancestors().skip(1).take(2);
    let found = directories.find(|directory| directory.join(program).is_file());
    let found = found.with_context(|| format!("no {program} beside {}", here.display()))?;
    Ok(found.join(program))
}

/// Returns the command of a program of this workspace with a limit of ulimit(1).
pub fn limited(program: &str, flags: &[&str], ulimit: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("sh");
    let script = format!("ulimit {ulimit} && exec \"$0\" \"$@\"");
    command
        .args(["-c", &script])
        .arg(path(program)?)
        .args(flags);
    Ok(command)
}
