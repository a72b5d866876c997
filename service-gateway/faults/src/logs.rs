//! Outputs of the programs that block or fail, and log lines that others would like to write.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use testing::Directory;
use testing::process::Process;
use testing::try_until;

use crate::Verdict;
use crate::system::{System, entry};

const SECOND: Duration = Duration::from_secs(1);

const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A gateway on the registry of this system, whose log nothing reads.
async fn unread_gateway(system: &System, directory: &Directory) -> anyhow::Result<Process> {
    let registry = format!("etcd://{}", system.registry);
    let flags = [&["--registry", &registry][..], &ANY_PORTS].concat();
    Process::start_unread(&directory.file("unread.log"), "service-gateway", &flags).await
}

/// Nothing reads the gateway's log, and every snapshot has more to write to it than its pipe takes.
pub(crate) async fn blocked_log() -> anyhow::Result<Verdict> {
    const ROUNDS: u32 = 3;
    let mut system = System::start(&["v1", "v1", "v1"]).await?;
    let directory = Directory::new()?;
    system.gateway = unread_gateway(&system, &directory).await?;
    system.until_known(3).await?;
    let gets = system.gets(200);
    for round in 0..ROUNDS {
        let padding = "x".repeat(200);
        let keys = (0..500).map(|n| format!("/services/greeter/{round}-{n}-{padding}"));
        system
            .server
            .put_all(keys.map(|key| (key, "no JSON".to_owned())))
            .await;
    }
    let skipped = || async {
        let skipped = r#"gateway_registry_skipped_entries{service="greeter"}"#;
        Ok(system.metric(skipped).await? as u32 == 500 * ROUNDS)
    };
    try_until("the malformed entries to be counted", SECOND * 5, skipped).await?;
    let ready = system.admin("/ready").await?.0;
    let began = Instant::now();
    let added = system.add("v1").await?.address.to_string();
    let answers = || async { Ok(gets.answers_of(&added) > 0) };
    try_until("the added node to get requests", SECOND * 5, answers).await?;
    let joined = began.elapsed();
    let died = Instant::now();
    system.greeters.drain(..2); // kill -9
    let is_gone = || async { Ok(system.states().await?.len() == 2) };
    try_until("the dead nodes to be gone", SECOND * 15, is_gone).await?;
    let gone = died.elapsed();
    let gets = gets.end().await?;
    let dropped = || async { system.metric("gateway_log_lines_dropped_total").await };
    let counted = dropped().await?;
    let line = system.gateway.read_on("output is written again").await?;
    let reported = line.contains(&format!("lines_dropped={counted}"));

    // Another one, whose log is blocked at its end.
    system.gateway = unread_gateway(&system, &directory).await?;
    system.until_known(2).await?;
    let began = Instant::now();
    let Process { address, .. } = system.gateway;
    let code = system.gateway.leave().await?;
    let ended = began.elapsed();
    let held = gets.failed() == 0
        && ready == 200
        && counted > 0.0
        && reported
        && code == Some(0)
        && ended <= SECOND * 5;
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!(
            "/ready {ready}, {counted} lines dropped, reported: {reported}"
        ))
        .note(format!(
            "a node joined after {:.1} s, two dead ones gone after {:.1} s",
            joined.as_secs_f64(),
            gone.as_secs_f64()
        ))
        .note(format!(
            "{address} ended {:.1} s after SIGTERM, exit code {code:?}",
            ended.as_secs_f64()
        )))
}

/// What others write must not look like a line of the log, nor move a terminal's cursor.
pub(crate) async fn log_forging() -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::new(true);
    for format in ["text", "json"] {
        let wrong = forged(format).await?;
        verdict.held = Some(verdict.held == Some(true) && wrong.is_empty());
        verdict = verdict
            .listing(&wrong)
            .note(format!("{format}: {} lines wrong", wrong.len()));
    }
    Ok(verdict)
}

/// The lines of a gateway's log and access log that are not what the gateway writes itself.
async fn forged(format: &str) -> anyhow::Result<Vec<String>> {
    const HOSTILE: &str = "a\n[2026-01-01T00:00:00Z ERROR x] forged\r\u{1b}[31m\u{7f}\u{85}\u{9b}2J\u{2028}\u{202e}\"}\\";
    let environment = [
        ("RUST_LOG", "debug,h2=info,hyper=info,tonic=info,tower=info"),
        ("LOG_FORMAT", format),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let server = testing::etcd::Etcd::start().await;
    let registry = server.address();
    let flags = ["--access-log"];
    let system = System::within(environment.to_vec(), server, &registry, &["v1"], &flags).await?;
    let key = format!("/services/greeter/{HOSTILE}");
    system.server.put(&key, HOSTILE).await;
    let tags = serde_json::json!({HOSTILE: HOSTILE, "version": HOSTILE});
    let (key, value) = entry("127.0.0.1:1", &tags.to_string());
    system.server.put(&key, value).await;
    system.until_known(2).await?;
    for target in [
        "/greeter/\u{85}\u{9b}\u{2028}\u{202e}",
        "/\u{7f}\u{9b}2J",
        "/greeter/%0a%1b",
    ] {
        let field = "\u{9b}31m\u{85}\u{202e}";
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: {field}\r\n\
             traceparent: {field}\r\nuser-agent: {field}\r\n\r\n"
        );
        let mut client = system.connect().await;
        client.send(head).await;
        client.rest().await; // a response of the greeter, or 400
    }
    let written = || async { system.gateway.logged("\"duration_ms\"") };
    try_until("a line of the access log", SECOND * 5, written).await?;
    let log = system.gateway.log()?;
    ensure!(
        log.contains("ignoring malformed registry entry"),
        "the hostile key is in no line"
    );
    let is_sound = |line: &&str| {
        let is_control =
            |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
        let is_own = match format {
            "text" if line.starts_with('[') => !line.contains("] forged") || line.contains(r"\n["),
            _ => serde_json::from_str::<Value>(line).is_ok(),
        };
        is_own && !line.chars().any(is_control)
    };
    Ok(log
        .split('\n')
        .filter(|line| !line.is_empty() && !is_sound(line))
        .map(str::to_owned)
        .collect())
}

/// A small file system in memory, gone with its owner.
struct SmallFileSystem<'a>(&'a Path);

impl<'a> SmallFileSystem<'a> {
    /// `None` if this process may not mount.
    fn mount(path: &'a Path, bytes: usize) -> io::Result<Option<Self>> {
        fs::create_dir(path)?;
        let mut mount = Command::new("mount");
        let size = format!("size={bytes}");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path);
        Ok(mount.output()?.status.success().then_some(Self(path)))
    }
}

impl Drop for SmallFileSystem<'_> {
    fn drop(&mut self) {
        // Lazily: the gateway may still have its file open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("  {} stays mounted", self.0.display());
        }
    }
}

/// The access log's file system is full; requests go on, and so does the log when there is room again.
pub(crate) async fn access_log_full() -> anyhow::Result<Verdict> {
    const BYTES: usize = 8 << 20;
    let directory = Directory::new()?;
    let path = directory.file("small");
    let Some(_mounted) = SmallFileSystem::mount(&path, BYTES)? else {
        return Ok(Verdict::left_out("needs the right to mount a tmpfs"));
    };
    let (log, filler) = (path.join("access.log"), path.join("filler"));
    fs::write(&filler, vec![0; BYTES - (32 << 10)])?;
    let mut system = System::start(&["v1", "v1"]).await?;
    let registry = format!("etcd://{}", system.registry);
    let flags = [&["--registry", &registry, "--access-log"][..], &ANY_PORTS].concat();
    let output = File::create(&log)?;
    let messages = directory.file("gateway.log");
    system.gateway = Process::start_writing(&messages, output, "service-gateway", &flags).await?;
    system.until_known(2).await?;
    let gets = system.gets(300);
    let dropped = || async { system.metric("gateway_access_log_dropped_total").await };
    let drops = || async { Ok(dropped().await? >= 100.0) };
    try_until("lines to be dropped", SECOND * 30, drops).await?;
    fs::remove_file(&filler)?;
    let goes_on = || async { system.gateway.logged("output is written again") };
    try_until("the log to go on", SECOND * 15, goes_on).await?;
    let gets = gets.end().await?;
    let requests = gets.answered() + gets.failed();
    let lines =
        || -> io::Result<_> { Ok(fs::read(&log)?.split(|byte| *byte == b'\n').count() - 1) };
    let lost = dropped().await? as u64;
    system.gateway.leave().await?; // which writes the last lines
    let text = fs::read_to_string(&log)?;
    let broken = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_err())
        .count();
    let messages = fs::read_to_string(&messages)?;
    let [begins, ends] = ["output cannot be written", "output is written again"]
        .map(|words| messages.matches(words).count());
    let reported = messages.contains(&format!("lines_dropped={lost}"));
    let held = gets.failed() == 0
        && lines()? as u64 + lost == requests
        && broken == 0
        && begins == 1
        && ends == 1
        && reported;
    Ok(Verdict::new(held)
        .counted(&gets)
        .note(format!(
            "{} lines written, {broken} broken, {lost} lost and counted",
            lines()?
        ))
        .note(format!(
            "{begins} warnings at the beginning, {ends} at the end"
        )))
}
