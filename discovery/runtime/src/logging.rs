//! The program's own log, on standard error.
//!
//! `env_logger` selects the records (`RUST_LOG`); they are formatted on the caller's thread and written
//! by a [`LineWriter`], so that a standard error that nothing reads neither delays a request nor the
//! end of the process. Each record is one line; what comes from outside is escaped.
//!
//! Panics, and the error that ends a program, are written the same way, whatever `RUST_LOG` selects.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, process, thread};

use anstream::{AutoStream, ColorChoice};
use env_logger::fmt::{Target, WriteStyle};
use log::kv::Value;
use log::{Level, Record};

use crate::line_writer::{LineWriter, unbuffered};

mod format;

pub use format::append_json;

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 1024;

/// Time that the end of a process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// Format of a program's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `[time level target] message key=value …`
    #[default]
    Text,
    /// An object with `ts`, `level`, `target`, `msg` and the keys and values.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The log of this process.
struct Log {
    writer: LineWriter<String>,
    format: LogFormat,
    has_colours: bool,
}

/// Queues what `env_logger` writes: one line each time, without its line break.
struct Queue(&'static Log);

/// Starts the log of this process, and sends panics there. `default_filter` applies where `RUST_LOG` is
/// not set.
///
/// # Errors
/// If the system refuses a thread or a descriptor, or if this process has a logger already.
pub fn start(default_filter: &str, format: LogFormat) -> io::Result<()> {
    let started = Log::start(format)?;
    let log = LOG.get_or_init(|| started);
    let style = if log.has_colours {
        WriteStyle::Always
    } else {
        WriteStyle::Never
    };
    let filter = env_logger::Env::default().default_filter_or(default_filter);
    env_logger::Builder::from_env(filter)
        .target(Target::Pipe(Box::new(Queue(log))))
        .write_style(style)
        .format(|line, record| line.write_all(log.line(record).as_bytes()))
        .try_init()
        .map_err(io::Error::other)?;
    panic::set_hook(Box::new(|panic| log.write_panic(panic)));
    Ok(())
}

/// Returns how many lines of the log were dropped.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.writer.dropped())
}

/// Writes the error that ends this program to standard error: as a line `error: …`, or as a record of
/// the log where that is JSON. Waits a second at most.
pub fn print_error(error: &str) {
    if let Some(log) = LOG.get() {
        return log.write_error(error);
    }
    match Log::start(LogFormat::Text) {
        Ok(log) => log.write_error(error),
        Err(_) => eprintln!("error: {error}"), // no thread or descriptor for more than this
    }
}

/// Ends the process. Waits for the last lines of the log, a second at most.
pub fn exit(code: i32) -> ! {
    if let Some(log) = LOG.get() {
        log.writer.flush(FLUSH_TIMEOUT);
    }
    process::exit(code)
}

impl Log {
    fn start(format: LogFormat) -> io::Result<Self> {
        let append =
            |line: &String, buffer: &mut Vec<u8>| buffer.extend_from_slice(line.as_bytes());
        let stderr = unbuffered(io::stderr())?;
        Ok(Self {
            writer: LineWriter::start("log", QUEUE_LINES, stderr, append)?,
            format,
            has_colours: format == LogFormat::Text && has_colours(),
        })
    }

    fn line(&self, record: &Record<'_>) -> String {
        match self.format {
            LogFormat::Text => format::text(record, self.has_colours),
            LogFormat::Json => format::json(record),
        }
    }

    fn write_error(&self, error: &str) {
        self.writer.push(match self.format {
            LogFormat::Text => format::escaped(&format!("error: {error}")),
            LogFormat::Json => {
                self.line(&error_record("main").args(format_args!("{error}")).build())
            }
        });
        self.writer.flush(FLUSH_TIMEOUT);
    }

    fn write_panic(&self, panic: &PanicHookInfo<'_>) {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref().map(String::as_str));
        let message = message.unwrap_or("no message");
        let (thread, backtrace) = (thread::current(), Backtrace::capture());
        let thread = thread.name().unwrap_or("unnamed");
        let mut fields = vec![("thread", Value::from(thread))];
        if let Some(location) = panic.location() {
            fields.push(("location", Value::from_display(location)));
        }
        if backtrace.status() == BacktraceStatus::Captured {
            fields.push(("backtrace", Value::from_display(&backtrace)));
        }
        let fields = fields.as_slice();
        let mut record = error_record("panic");
        record.key_values(&fields);
        self.writer
            .push(self.line(&record.args(format_args!("panicked: {message}")).build()));
        if thread == "main" {
            self.writer.flush(FLUSH_TIMEOUT); // that may be the end of the process
        }
    }
}

fn error_record(target: &str) -> log::RecordBuilder<'_> {
    let mut record = Record::builder();
    record.level(Level::Error).target(target);
    record
}

/// Decides as `env_logger` does for a standard error that it writes to itself: by `RUST_LOG_STYLE`,
/// else by the terminal, `NO_COLOR` and their like.
fn has_colours() -> bool {
    match env::var("RUST_LOG_STYLE").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        _ => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0
            .writer
            .push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
