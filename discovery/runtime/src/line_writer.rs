//! A bounded queue of lines in front of an output that may block or fail.
//!
//! One thread formats and writes; [`LineWriter::push`] never waits. A line that finds the queue full is
//! dropped and counted. The output is retried until it works again, from the byte at which it failed:
//! no line is cut, and none is glued to the next one. A full file system is therefore the same as a
//! pipe that nothing reads: the queue fills up, the rest is counted.
//!
//! Errors of the output are reported by the `log` crate, once at the beginning of the trouble and once
//! at its end, with the number of lines that were dropped meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are written together, if that many are waiting.
const BATCH_BYTES: usize = 64 << 10;

/// Time between two attempts to write to an output that fails.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Minimum time from the beginning of a trouble to the report of its end. An output that fails every
/// other time is one trouble.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Takes lines from any thread, and writes them to one output.
#[derive(Debug)]
pub struct LineWriter<L> {
    queue: SyncSender<L>,
    shared: Arc<Shared>,
}

/// State of the queue that both sides see.
#[derive(Debug, Default)]
struct Shared {
    queued: AtomicU64,
    dropped: AtomicU64,
    /// Set when no further line can come.
    closed: AtomicBool,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// Lines that the output has taken.
    written: u64,
    /// Attempts to write that ended in an error.
    failures: u64,
}

/// The thread's side.
struct Writer<L, O, F> {
    name: &'static str,
    queue: Receiver<L>,
    output: O,
    format: F,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
    /// Beginning of the trouble that has not been reported as ended.
    trouble: Option<Instant>,
    /// Dropped lines that have been reported.
    reported: u64,
}

impl<L: Send + 'static> LineWriter<L> {
    /// Starts the thread `name`, which writes up to `capacity` waiting lines to `output`. `format`
    /// appends a line to a buffer, without the line break.
    ///
    /// The thread ends when the `LineWriter` is dropped and all of its lines are written, or when the
    /// output fails after that.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start(
        name: &'static str,
        capacity: usize,
        output: impl Write + Send + 'static,
        format: impl FnMut(&L, &mut Vec<u8>) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, queue) = sync_channel(capacity);
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            name,
            queue,
            output,
            format,
            buffer: Vec::new(),
            shared: shared.clone(),
            trouble: None,
            reported: 0,
        };
        let thread = thread::Builder::new().name(name.into());
        thread.spawn(move || writer.run())?;
        Ok(Self {
            queue: sender,
            shared,
        })
    }

    /// Queues a line, or drops and counts it if the queue is full. Never waits.
    pub fn push(&self, line: L) {
        let counter = match self.queue.try_send(line) {
            Ok(()) => &self.shared.queued,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => &self.shared.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the output has taken every line queued so far, but not longer than `limit`, nor for
    /// an output that fails. Returns the number of lines that are still waiting.
    pub fn flush(&self, limit: Duration) -> u64 {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        let progress = self.shared.progress();
        let failures = progress.failures;
        let is_pending = |now: &mut Progress| now.written < queued && now.failures == failures;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(progress, limit, is_pending);
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queued.saturating_sub(progress.written)
    }
}

impl<L> Drop for LineWriter<L> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, lines: u64) {
        self.progress().written += lines;
        self.changed.notify_all();
    }

    fn failed(&self) {
        self.progress().failures += 1;
        self.changed.notify_all();
    }
}

impl<L, O: Write, F: FnMut(&L, &mut Vec<u8>)> Writer<L, O, F> {
    fn run(mut self) {
        while let Some(line) = self.next() {
            let lines = self.fill(line);
            if !self.write() {
                return;
            }
            self.shared.wrote(lines);
            if self.dropped() > self.reported {
                self.trouble.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Waits for a line. `None` after the last one.
    fn next(&mut self) -> Option<L> {
        while let Some(began) = self.trouble {
            let wait = MIN_REPORT_INTERVAL.saturating_sub(began.elapsed());
            match self.queue.recv_timeout(wait) {
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Timeout) => self.report_end(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.queue.recv().ok()
    }

    /// Formats this line and those that wait behind it. Returns their number.
    fn fill(&mut self, first: L) -> u64 {
        let (mut next, mut lines) = (Some(first), 0);
        while let Some(line) = next {
            (self.format)(&line, &mut self.buffer);
            self.buffer.push(b'\n');
            lines += 1;
            let is_full = self.buffer.len() >= BATCH_BYTES;
            next = if is_full {
                None
            } else {
                self.queue.try_recv().ok()
            };
        }
        lines
    }

    /// Writes the buffer, however often that fails. Returns false if no further line can come and the
    /// output still fails.
    fn write(&mut self) -> bool {
        let mut written = 0;
        while written < self.buffer.len() {
            let error = match self.output.write(&self.buffer[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(bytes) => {
                    written += bytes;
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock => {} // as slow as a pipe that is not read, which blocks
                _ => {
                    self.report_begin(&error);
                    self.shared.failed();
                    if self.shared.closed.load(Ordering::Relaxed) {
                        return false;
                    }
                }
            }
            thread::sleep(RETRY_INTERVAL);
        }
        self.buffer.clear();
        true
    }

    fn report_begin(&mut self, error: &io::Error) {
        if self.trouble.is_none() {
            self.trouble = Some(Instant::now());
            log::warn!(output = self.name, error:%; "output cannot be written, retrying");
        }
    }

    fn report_end(&mut self) {
        self.trouble = None;
        let dropped = self.dropped();
        let lines = dropped - self.reported;
        self.reported = dropped;
        log::warn!(output = self.name, lines_dropped = lines; "output is written again");
    }

    fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// Returns another handle of standard output or standard error, without the buffer and the lock of
/// `std::io`: the end of the process waits for those.
///
/// # Errors
/// If the process has no descriptor left.
pub fn unbuffered(output: impl AsFd) -> io::Result<File> {
    Ok(output.as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::sync::{LazyLock, Once};

    const LIMIT: Duration = Duration::from_secs(20);

    /// An output that hands on what it takes, as each message of `script` allows.
    struct Scripted {
        script: Receiver<io::Result<usize>>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        /// Takes as many bytes as the script allows, or fails. Takes all when the script has ended.
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let allowed = self.script.recv().unwrap_or(Ok(usize::MAX))?;
            let taken = bytes.len().min(allowed);
            self.taken.send(bytes[..taken].to_vec()).unwrap();
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Script = mpsc::Sender<io::Result<usize>>;

    fn scripted(
        name: &'static str,
        capacity: usize,
    ) -> (LineWriter<String>, Script, Receiver<Vec<u8>>) {
        let ((allow, script), (taken, written)) = (mpsc::channel(), mpsc::channel());
        let append = |line: &String, buffer: &mut Vec<u8>| buffer.extend(line.bytes());
        let output = Scripted { script, taken };
        let writer = LineWriter::start(name, capacity, output, append).unwrap();
        (writer, allow, written)
    }

    fn text(written: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(written.iter().flatten().collect()).unwrap()
    }

    fn no_space() -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    /// The messages that writers have logged, each with the name of its output.
    fn logged(output: &str) -> Vec<String> {
        LOGGED
            .lock()
            .unwrap()
            .iter()
            .filter(|(name, _)| name == output)
            .map(|(_, text)| text.clone())
            .collect()
    }

    static LOGGED: LazyLock<Mutex<Vec<(String, String)>>> = LazyLock::new(Mutex::default);

    struct Collector;

    impl log::Log for Collector {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let value = |key| {
                record
                    .key_values()
                    .get(log::kv::Key::from_str(key))
                    .map(|v| v.to_string())
            };
            let dropped = value("lines_dropped").map_or(String::new(), |n| format!(" {n}"));
            let text = format!("{}{dropped}", record.args());
            LOGGED
                .lock()
                .unwrap()
                .push((value("output").unwrap_or_default(), text));
        }

        fn flush(&self) {}
    }

    fn collect_logs() {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            log::set_logger(&Collector).unwrap();
            log::set_max_level(log::LevelFilter::Info);
        });
    }

    /// Lets the output take one byte of a first line, so that the thread waits for it with an empty queue.
    fn block(writer: &LineWriter<String>, allow: &Script, written: &Receiver<Vec<u8>>) {
        allow.send(Ok(1)).unwrap();
        writer.push("first".into());
        assert_eq!(written.recv_timeout(LIMIT).unwrap(), b"f");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (writer, allow, written) = scripted("full", 8);
        block(&writer, &allow, &written);
        (0..100).for_each(|n| writer.push(format!("{n}")));
        assert_eq!(writer.dropped(), 92);
        drop(allow);
        assert_eq!(writer.flush(LIMIT), 0);
        drop(writer);
        assert_eq!(text(&written), "irst\n0\n1\n2\n3\n4\n5\n6\n7\n");
    }

    #[test]
    fn a_failing_output_gets_every_line_once_it_works() {
        collect_logs();
        let (writer, allow, written) = scripted("failing", 100);
        for step in [
            Ok(3),
            no_space(),
            no_space(),
            Ok(2),
            no_space(),
            Err(io::ErrorKind::Interrupted.into()),
        ] {
            allow.send(step).unwrap();
        }
        drop(allow);
        writer.push("first line".into());
        let begun = Instant::now();
        while writer.flush(LIMIT) > 0 {
            assert!(
                begun.elapsed() < LIMIT,
                "a failure ends the wait, and there are three"
            );
        }
        writer.push("second line".into());
        while logged("failing").len() < 2 {
            assert!(begun.elapsed() < LIMIT, "{:?}", logged("failing"));
            thread::yield_now();
        }
        drop(writer);
        assert_eq!(text(&written), "first line\nsecond line\n");
        let reports = [
            "output cannot be written, retrying",
            "output is written again 0",
        ];
        assert_eq!(logged("failing"), reports);
    }

    #[test]
    fn dropped_lines_are_reported_once_the_output_takes_lines_again() {
        collect_logs();
        let (writer, allow, written) = scripted("blocked", 4);
        block(&writer, &allow, &written);
        (0..50).for_each(|n| writer.push(format!("{n}")));
        drop(allow);
        let begun = Instant::now();
        while logged("blocked").is_empty() {
            assert!(begun.elapsed() < LIMIT);
            thread::yield_now();
        }
        assert_eq!(logged("blocked"), ["output is written again 46"]);
    }

    #[test]
    fn flush_does_not_wait_longer_than_its_limit() {
        let (writer, _allow, _written) = scripted("silent", 4);
        writer.push("a line".into());
        assert_eq!(writer.flush(Duration::from_millis(50)), 1);
    }

    #[test]
    fn flush_does_not_wait_for_an_output_that_fails() {
        let (writer, allow, _written) = scripted("broken", 4);
        (0..100_000).for_each(|_| allow.send(no_space()).unwrap());
        writer.push("a line".into());
        let begun = Instant::now();
        assert_eq!(writer.flush(LIMIT), 1);
        assert!(begun.elapsed() < LIMIT);
    }

    #[test]
    fn the_thread_of_a_failing_output_ends_with_its_owner() {
        let (writer, allow, written) = scripted("ownerless", 4);
        (0..100_000).for_each(|_| allow.send(no_space()).unwrap());
        writer.push("a line".into());
        drop(writer);
        assert!(
            written
                .recv_timeout(LIMIT)
                .is_err_and(|e| e == RecvTimeoutError::Disconnected)
        );
    }
}
