//! A line for each request, if wanted: JSON, on standard output.
//!
//! Workers never wait for whoever reads it. What is to be written goes through a bounded channel to
//! one thread that formats and writes; what finds the channel full is dropped, and counted.

#![allow(
    clippy::disallowed_types,
    reason = "a line's time is for those who read it, and nothing is decided by it"
)]

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use log::warn;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

/// Lines that may wait to be written: a fifth of a second of heavy load.
const WAITING: usize = 4096;

/// The longest path that is written, in bytes. What is cut off has `…` in its place.
const LONGEST_PATH: usize = 1024;

/// How long the end waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Takes what is to be written.
pub(crate) struct AccessLog {
    lines: SyncSender<Option<Line>>,
    dropped: AtomicU64,
    /// Ends when the thread does. A std mutex: locked once, at the end.
    written: Mutex<Receiver<()>>,
}

/// One request, as it is written. Never its query, headers or bodies: there are secrets in them.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When the request came.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// `None` if no route takes the path.
    pub(crate) service: Option<String>,
    /// `None` if the gateway answered itself.
    pub(crate) instance: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) attempts: u32,
    /// Until the end of the answer's body.
    #[serde(serialize_with = "milliseconds", rename = "duration_ms")]
    pub(crate) duration: Duration,
    /// Of the answer's body, as far as the client took it.
    pub(crate) bytes: u64,
    pub(crate) request_id: String,
    pub(crate) trace_id: String,
}

/// The body of an answer, which writes the line when it has been sent, or given up.
pub(crate) struct Logged {
    body: BoxBody,
    log: Arc<AccessLog>,
    began: Instant,
    line: Option<Line>,
}

impl AccessLog {
    /// Begins to write to `output`. The thread ends when all who could log have gone, or when
    /// nobody takes its lines.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, to_write) = sync_channel(WAITING);
        let (end, written) = sync_channel(0);
        let write_all = move || {
            if let Err(error) = write(&to_write, BufWriter::new(output)) {
                warn!(error:%; "no further access log: what comes is dropped");
            }
            drop(end);
        };
        let thread = thread::Builder::new().name("access-log".into());
        thread.spawn(write_all)?;
        Ok(Self {
            lines,
            dropped: AtomicU64::new(0),
            written: Mutex::new(written),
        })
    }

    /// How many lines were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for what was logged so far to be written, but not for long. It is the last that is.
    pub(crate) fn end(&self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.lines.try_send(None);
        if asked.is_ok() && written.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            warn!("the last lines of the access log were not taken in time");
        }
    }

    fn write(&self, line: Line) {
        match self.lines.try_send(Some(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Writes until `None` comes. What is there already is written together.
fn write(lines: &Receiver<Option<Line>>, mut output: impl Write) -> io::Result<()> {
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            let Some(line) = line else {
                return output.flush();
            };
            serde_json::to_writer(&mut output, &line)?;
            output.write_all(b"\n")?;
            next = lines.try_recv().ok();
        }
        output.flush()?;
    }
    Ok(())
}

/// When a request came that took so long up to now.
pub(crate) fn came(before: Duration) -> SystemTime {
    SystemTime::now() - before
}

/// A path, or as much of it as is worth a line.
pub(crate) fn shortened(path: &str) -> String {
    let mut ends = (0..=LONGEST_PATH.min(path.len())).rev();
    let end = ends.find(|end| path.is_char_boundary(*end));
    let end = end.unwrap_or_default();
    let dots = if end < path.len() { "…" } else { "" };
    [&path[..end], dots].concat()
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

impl Logged {
    pub(crate) fn new(body: BoxBody, log: Arc<AccessLog>, began: Instant, line: Line) -> Self {
        Self {
            body,
            log,
            began,
            line: Some(line),
        }
    }
}

impl MessageBody for Logged {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = ready!(Pin::new(&mut self.body).poll_next(cx));
        if let (Some(Ok(bytes)), Some(line)) = (&piece, &mut self.line) {
            line.bytes += bytes.len() as u64;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.duration = self.began.elapsed();
            self.log.write(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn line(path: &str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH,
            client: Some([127, 0, 0, 1].into()),
            method: "GET".into(),
            path: shortened(path),
            status: 200,
            service: Some("greeter".into()),
            instance: None,
            version: None,
            attempts: 1,
            duration: Duration::from_micros(1500),
            bytes: 3,
            request_id: "r".into(),
            trace_id: "t".into(),
        }
    }

    /// Hands on what is written, as soon as nobody holds it back any more.
    struct Slow(mpsc::Sender<String>, Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            let text = String::from_utf8_lossy(bytes).into_owned();
            let sent = self.0.send(text);
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let (sent, written) = mpsc::channel();
        let (go, may) = mpsc::channel();
        let log = AccessLog::start(Slow(sent, may)).unwrap();
        log.write(line("/a\n\"b\""));
        drop(go);
        let text = written.recv().unwrap();
        assert_eq!(
            text,
            r#"{"time":"1970-01-01T00:00:00.000Z","client":"127.0.0.1","method":"GET","path":"/a\n\"b\"","status":200,"service":"greeter","instance":null,"version":null,"attempts":1,"duration_ms":1.5,"bytes":3,"request_id":"r","trace_id":"t"}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn what_finds_the_channel_full_is_dropped_and_counted() {
        let (sent, written) = mpsc::channel();
        let (go, may) = mpsc::channel();
        let log = AccessLog::start(Slow(sent, may)).unwrap();
        let most = WAITING * 3;
        (0..most).for_each(|_| log.write(line("/")));
        let dropped = usize::try_from(log.dropped()).unwrap();
        assert!(dropped > 0 && dropped <= most - WAITING, "{dropped}");
        drop(log);
        drop(go);
        let text: String = written.iter().collect();
        assert_eq!(text.lines().count() + dropped, most);
    }

    #[test]
    fn nobody_to_read_it_is_no_reason_to_wait() {
        let (sent, written) = mpsc::channel();
        let (go, may) = mpsc::channel();
        drop(written);
        let log = AccessLog::start(Slow(sent, may)).unwrap();
        log.write(line("/"));
        drop(go);
        while log.dropped() == 0 {
            log.write(line("/"));
        }
        log.end();
    }

    #[test]
    fn a_long_path_is_cut_between_two_characters() {
        let path = format!("/{}", "é".repeat(600));
        let short = shortened(&path);
        assert!(short.ends_with("é…") && short.len() <= LONGEST_PATH + "…".len());
        assert_eq!(shortened("/a"), "/a");
    }
}
