//! The server of a registry as a process, which tests start, break and end.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use discovery::{NodeRegistry, connect};
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

/// The limit of a start, which takes seconds, and many on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A real server of a registry with its own port and data. Its process ends and its data is removed
/// on drop.
pub struct Server {
    scheme: &'static str,
    port: u16,
    /// Returns the command that starts it in a directory, on a port.
    command: fn(&Path, u16) -> Command,
    daemon: Daemon,
}

/// A process with a directory for its data and its log. It ends and the directory is removed on drop.
pub struct Daemon {
    /// The directory of its data.
    pub directory: PathBuf,
    process: Option<Child>,
}

impl Server {
    /// Returns one that has an address, and does not run yet.
    pub fn not_yet(scheme: &'static str, command: fn(&Path, u16) -> Command) -> Self {
        let port = free_port();
        let name = format!("discovery-{scheme}-{}-{port}", std::process::id());
        Self {
            scheme,
            port,
            command,
            daemon: Daemon::not_yet(&name),
        }
    }

    /// Starts it with its data, and waits until it responds.
    pub async fn run(&mut self) {
        let mut command = (self.command)(&self.directory, self.port);
        self.start(&mut command);
        self.is_up(self.responds()).await;
    }

    async fn responds(&self) {
        let service = "unused".parse().expect("a name");
        let mut lists = self.registry().watch(&service);
        while !matches!(lists.next().await, Some(Ok(_))) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Replaces it by an empty one.
    pub async fn replace(&mut self) {
        self.lose_all();
        self.run().await;
    }

    /// Returns its address as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns it as a registry, over a new connection.
    pub fn registry(&self) -> Arc<dyn NodeRegistry> {
        self.registry_at(&self.address())
    }

    /// Returns it as a registry at another address, such as a relay's, with what may follow.
    pub fn registry_at(&self, rest: &str) -> Arc<dyn NodeRegistry> {
        let url = format!("{}://{rest}", self.scheme);
        connect(&url.parse().expect("a registry URL")).expect("it is built in")
    }
}

impl Deref for Server {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

impl Daemon {
    /// Creates its directory. It does not run yet.
    pub fn not_yet(name: &str) -> Self {
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory for the server");
        Self {
            directory,
            process: None,
        }
    }

    /// Starts it.
    pub fn start(&mut self, command: &mut Command) {
        let log = File::create(self.directory.join("log")).expect("a log for the server");
        let process = command
            .stdout(log.try_clone().expect("one log for both"))
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("the server starts"));
    }

    /// Waits until `responds` is ready.
    pub async fn is_up(&self, responds: impl Future<Output = ()>) {
        let responds = timeout(START_LIMIT, responds).await;
        assert!(responds.is_ok(), "no response: {}", self.log());
    }

    /// Sends SIGKILL and waits for its end. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Kills it and removes its data.
    pub fn lose_all(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.directory).expect("its data can be removed");
        fs::create_dir_all(&self.directory).expect("a directory for the server");
    }

    /// Sends SIGSTOP: its connections stay open, and nothing responds.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGCONT, after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        let pid = process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(
            sent.expect("kill is there").success(),
            "kill {signal} {pid}"
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory); // litter is no reason to panic while panicking
    }
}

/// Returns the path of a program: the value of `ETCD_PROGRAM`, `CONSUL_PROGRAM` and so on, which selects the
/// version to test; without it, the one that `scripts/setup.sh` installed, then one on the PATH.
pub fn program(name: &str) -> PathBuf {
    let variable = format!("{}_PROGRAM", name.to_uppercase());
    if let Some(program) = std::env::var_os(&variable) {
        let program = PathBuf::from(program);
        assert!(program.is_file(), "{variable}: no file {program:?}");
        return program;
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::iter::once(tools)
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name));
    let found = programs.find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("these tests need {name}: scripts/setup.sh --all gets it"))
}

/// Returns a port where nothing listens, below the ephemeral ports: it is still free for a server that
/// starts again.
pub fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("some port is free")
}
