//! A line for each request, if wanted: JSON, on standard output.
//!
//! Workers never wait for its output. Lines go through a [`LineWriter`], which formats and writes them on
//! a thread of its own. An output that fails, such as a full file system, is retried until it works again.
//! A line that finds the queue full is dropped and counted.

#![allow(
    clippy::disallowed_types,
    reason = "a line's time is for those who read it, and nothing is decided by it"
)]

use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use log::warn;
use serde::{Serialize, Serializer};
use service_runtime::line_writer::LineWriter;
use service_runtime::logging;
use tokio::time::Instant;

/// Lines that may wait to be written: a fifth of a second of heavy load.
const QUEUE_LINES: usize = 4096;

/// The longest path that is written, in bytes. What is cut off has `…` in its place.
const LONGEST_PATH: usize = 1024;

/// Time that the end waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes what is to be written.
pub(crate) struct AccessLog(LineWriter<Line>);

/// One request, as it is written. Never its query, headers or bodies: there are secrets in them.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When the request came.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    pub(crate) client: Option<IpAddr>,
    /// `None`, as the path, if the head was refused.
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
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
    /// `None` if no valid `traceparent` came with the request.
    pub(crate) trace_id: Option<String>,
}

/// The body of an answer, which writes the line when it has been sent, or given up.
pub(crate) struct Logged {
    body: BoxBody,
    log: Arc<AccessLog>,
    began: Instant,
    line: Option<Line>,
}

impl AccessLog {
    /// Begins to write to `output`.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = LineWriter::start("access-log", QUEUE_LINES, output, logging::append_json)?;
        Ok(Self(writer))
    }

    /// How many lines were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// Waits for what was logged so far to be written, but not for long.
    pub(crate) fn end(&self) {
        let lines = self.0.flush(FLUSH_TIMEOUT);
        if lines > 0 {
            warn!(lines; "the last lines of the access log were not written in time");
        }
    }

    /// Takes a line that is complete.
    pub(crate) fn write(&self, line: Line) {
        self.0.push(line);
    }
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

    fn line(path: &str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH,
            client: Some([127, 0, 0, 1].into()),
            method: Some("GET".into()),
            path: Some(shortened(path)),
            status: 200,
            service: Some("greeter".into()),
            instance: None,
            version: None,
            attempts: 1,
            duration: Duration::from_micros(1500),
            bytes: 3,
            request_id: "r".into(),
            trace_id: Some("t".into()),
        }
    }

    #[test]
    fn a_line_is_one_json_object_without_control_characters() {
        let mut text = Vec::new();
        logging::append_json(&line("/a\n\"b\"\u{9b}\u{2028}\u{7f}"), &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"time":"1970-01-01T00:00:00.000Z","client":"127.0.0.1","method":"GET","path":"/a\n\"b\"\u009b\u2028\u007f","status":200,"service":"greeter","instance":null,"version":null,"attempts":1,"duration_ms":1.5,"bytes":3,"request_id":"r","trace_id":"t"}"#
        );
    }

    #[test]
    fn a_long_path_is_cut_between_two_characters() {
        let path = format!("/{}", "é".repeat(600));
        let short = shortened(&path);
        assert!(short.ends_with("é…") && short.len() <= LONGEST_PATH + "…".len());
        assert_eq!(shortened("/a"), "/a");
    }
}
