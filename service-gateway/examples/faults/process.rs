//! A service of this workspace, as a process of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actix_web::rt::time::{sleep, timeout};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;

/// A service that runs.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    child: Child,
    /// Its standard error, if that is a pipe that nothing reads.
    unread: Option<Lines<BufReader<Receiver>>>,
}

impl Process {
    /// Starts a program of this workspace, and waits until it says where it listens.
    pub(crate) async fn start(
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

    /// Starts a program whose standard output goes elsewhere than its log.
    pub(crate) async fn start_writing(
        log: &Path,
        output: File,
        program: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = command(program, flags, &[])?;
        command.stdout(output).stderr(File::create(log)?);
        Self::spawned(log, program, command).await
    }

    /// Starts a program whose standard error is a pipe. The pipe is read up to the line that says where
    /// the program listens, and no further.
    pub(crate) async fn start_unread(
        log: &Path,
        program: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
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

    /// Reads the pipe that was unread up to the line in which these words are.
    pub(crate) async fn read_on(&mut self, words: &str) -> anyhow::Result<String> {
        let lines = self.unread.as_mut().context("a pipe that is not read")?;
        let found = async {
            loop {
                let line = lines.next_line().await?;
                let line = line.with_context(|| format!("it never said {words:?}"))?;
                if line.contains(words) {
                    return anyhow::Ok(line);
                }
            }
        };
        timeout(Duration::from_secs(15), found)
            .await
            .with_context(|| format!("waited in vain for {words:?}"))?
    }

    /// Starts a program within what ulimit(1) sets: `-Sn 1024`, say.
    pub(crate) async fn limited(
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

    /// Spawns a program, and waits until it says where it listens.
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
        until(
            Duration::from_secs(15),
            &format!("{program} listening"),
            says,
        )
        .await?;
        let address = process.listening("address").context("an address")?;
        process.address = address.parse()?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A value of the line that says where it listens, as text or as JSON.
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

    pub(crate) fn admin(&self) -> anyhow::Result<String> {
        self.listening("admin")
            .context("the gateway says where its admin port is")
    }

    /// Everything that it wrote to its log.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Whether its log has these words.
    pub(crate) fn logged(&self, words: &str) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(&self.log)?.contains(words))
    }

    /// The warnings and errors in its log.
    pub(crate) fn warnings(&self) -> anyhow::Result<Vec<String>> {
        let log = fs::read_to_string(&self.log)?;
        ensure!(log.contains(" INFO "), "a log with levels");
        let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        Ok(log.lines().filter(is_warning).map(str::to_owned).collect())
    }

    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        ensure!(sent.success(), "kill {signal} {id}");
        Ok(())
    }

    /// SIGTERM; returns its exit code when it is over.
    pub(crate) async fn leave(self) -> anyhow::Result<Option<i32>> {
        self.end_by("-TERM").await
    }

    /// Sends a signal, and returns its exit code when it is over.
    pub(crate) async fn end_by(mut self, signal: &str) -> anyhow::Result<Option<i32>> {
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

/// A program of this workspace, ready to be spawned.
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
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program of this workspace is.
fn path(program: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let programs = here.parent().and_then(Path::parent);
    Ok(programs.context("a place for programs")?.join(program))
}

/// A program of this workspace within these limits.
pub(crate) fn limited(program: &str, flags: &[&str], ulimit: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("sh");
    let script = format!("ulimit {ulimit} && exec \"$0\" \"$@\"");
    command
        .args(["-c", &script])
        .arg(path(program)?)
        .args(flags);
    Ok(command)
}

/// Waits until something holds.
pub(crate) async fn until<F>(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let waiting = async {
        while !holds().await? {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    match timeout(limit, waiting).await {
        Ok(result) => result,
        Err(_) => bail!("waited {limit:?} in vain for {what}"),
    }
}
