//! A service of this workspace, as a process of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use actix_web::rt::time::{sleep, timeout};
use anyhow::{Context, bail, ensure};

/// A service that runs.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program of this workspace, and waits until it says where it listens.
    pub(crate) async fn start(
        log: &Path,
        program: &str,
        flags: &[&str],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let programs = here
            .parent()
            .and_then(Path::parent)
            .context("a place for programs")?;
        let output = File::create(log)?;
        let child = Command::new(programs.join(program))
            .args(flags)
            .env("RUST_LOG", "info,actix_server=warn")
            .envs(environment.iter().cloned())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {program}: cargo build --release makes it"))?;
        let mut process = Self {
            address: ([0, 0, 0, 0], 0).into(),
            log: log.to_owned(),
            child,
        };
        let says = || async { Ok(process.said("listening address=").is_some()) };
        until(
            Duration::from_secs(15),
            &format!("{program} listening"),
            says,
        )
        .await?;
        let address = process.said("listening address=").context("an address")?;
        process.address = address.parse()?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What its log says behind these words, where it does.
    fn said(&self, words: &str) -> Option<String> {
        let log = fs::read_to_string(&self.log).ok()?;
        let rest = log.split(words).nth(1)?;
        rest.split_whitespace().next().map(str::to_owned)
    }

    pub(crate) fn admin(&self) -> anyhow::Result<String> {
        self.said(" admin=")
            .context("the gateway says where its admin port is")
    }

    /// Whether its log has these words.
    pub(crate) fn logged(&self, words: &str) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(&self.log)?.contains(words))
    }

    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        ensure!(sent.success(), "kill {signal} {id}");
        Ok(())
    }

    /// SIGTERM; returns its exit code when it is over.
    pub(crate) async fn leave(mut self) -> anyhow::Result<Option<i32>> {
        self.signal("-TERM")?;
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

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
